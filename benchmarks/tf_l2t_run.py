"""The work through tf_l2t's public engine.

    python -m benchmarks.tf_l2t_run    (see benchmarks/serve.py for what it reads)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.serve import Options, serve
from benchmarks.work import LEARNING_RATE, MOMENTUM, NUM_CLASSES, NUM_FEATURES, NUM_KEYS, Work
from tf_l2t.hypergradient import Problem, StatusFeatures, StepOutput, hypergradient, initial_state, rollout, sgd
from tf_l2t.losses import paper_loss
from tf_l2t.objectives import relaxed_accuracy
from tf_l2t.students import STUDENTS, FunctionalStudent
from tf_l2t.teachers import AttentionTeacher


def problem_of(work: Work, student: FunctionalStudent) -> Problem:
    x_train, y_train, x_dev, y_dev = map(tf.constant, (work.x_train, work.y_train, work.x_dev, work.y_dev))
    index, features = tf.constant(work.batches), tf.constant(work.features)

    def batch_fn(seed, step):
        rows = index[step]
        return tf.gather(x_train, rows), tf.gather(y_train, rows)

    def loss_fn(params, non_trainable, batch, coefficients):
        x, y = batch
        logits, non_trainable, penalty = student.apply(params, non_trainable, x, training=True)
        return StepOutput(tf.reduce_mean(paper_loss(y, logits, coefficients)) + penalty, non_trainable, {})

    def objective_fn(params, non_trainable):
        return relaxed_accuracy(y_dev, student.apply(params, non_trainable, x_dev, training=False)[0])

    status = StatusFeatures(init_fn=lambda: (), features_fn=lambda state: (features[state.step], ()),
                            update_fn=lambda status, metrics: status)
    return Problem(loss_fn, batch_fn, objective_fn, sgd(LEARNING_RATE, momentum=MOMENTUM), status, work.steps)


class TfL2t:
    def __init__(self, work: Work, options: Options):
        self.teacher = AttentionTeacher(NUM_CLASSES, NUM_FEATURES, NUM_KEYS, loss="paper")
        self.teacher.values.assign(work.values)
        self.teacher.keys.assign(work.keys)
        student_fn: Any = STUDENTS[work.student]
        problem = problem_of(work, FunctionalStudent(student_fn))
        self.state = initial_state(problem, tuple(tf.constant(p) for p in work.params))
        how: dict[str, Any] = {"schedule": options.schedule}
        if options.schedule.isdigit():
            how = {"schedule": int(options.schedule)}
        elif options.schedule.endswith("MB"):
            how = {"memory_budget": options.schedule}
        self.run = hypergradient(problem, self.teacher, hvp=options.hvp or "auto", jit=options.jit, **how)
        self.train = rollout(problem, self.teacher, jit=options.jit)

    @property
    def planned_mb(self) -> float | None:
        """The peak that the engine predicted, once it has planned."""
        return None if self.run.choice is None else self.run.choice.peak_bytes / 2**20

    def gradient(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        result = self.run(self.state, 0)
        values, keys = result.gradient
        return result.objective.numpy(), values.numpy(), keys.numpy()

    def plain(self) -> np.ndarray:
        return self.train(self.state, 0).final_state.params[-1].numpy()


if __name__ == "__main__":
    serve(TfL2t)
