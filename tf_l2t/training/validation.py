"""Which weights of a teacher are the best: those whose students, of seeds that never train it, do best."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from tf_l2t.hypergradient import Problem, StudentState, advance, initial_state
from tf_l2t.teachers import Teacher
from tf_l2t.training.replicas import Replicas
from tf_l2t.training.tasks import Task

JUDGES = ("objective", "measure")
PARTS = 20  # of a student's run, behind which one is told of it


class Validation:
    """Students that follow a teacher as it is, and the best weights that it had so far.

    The best are those of the highest M, or exact measure. A penalty does not enter: at its full weight it shrinks
    coefficients that are needed, and weights from before that are the better ones (docs/teaching.md has the figures).

    Args:
      teacher: whose weights are judged.
      task, problem: what it trains.
      objective: as the task takes it.
      data: checked, on which M and the task's exact measure are measured.
      seeds: of the students.
      jit: as for `tf_l2t.hypergradient.advance`.
      judge: "objective" for M, "measure" for the exact measure.
      replicas: that the students are spread over; None for this device alone.

    Attributes:
      value: by which the newest validation is judged; −∞ where it is not finite.
      best, best_weights: what the best one returned, and of which weights; before the first, nothing, and the weights
        given.
    """

    def __init__(self, teacher: Teacher, task: Task, problem: Problem, objective: Any, data: Any, seeds: range,
                 jit: str | bool = "auto", judge: str = "objective", replicas: Replicas | None = None):
        self._replicas = replicas or Replicas(None)
        self._teacher, self._task, self._problem, self._seeds = teacher, task, problem, seeds
        self._run = advance(problem, teacher, jit=jit, strategy=self._replicas.strategy)
        names = ("val_objective", f"val_{task.measure}")
        self.judged_by = names[JUDGES.index(judge)]
        self._measures = dict(zip(names, task.measures(objective, data), strict=True))
        self.value = -np.inf
        self.best: dict[str, float] = {}
        self.best_weights = weights_of(teacher)
        self._newest: tuple[dict[str, float], list[np.ndarray]] = {}, []

    @property
    def num_students(self) -> int:
        return len(self._seeds)

    @property
    def best_value(self) -> float:
        return self.best.get(self.judged_by, -np.inf)

    def __call__(self, told: Callable[[int, int], Any] | None = None) -> dict[str, float]:
        """Validates the teacher, keeps its weights if they are the best, and returns the means over its students.

        Args:
          told: hears along the way of how many student steps of how many are made; under a strategy it hears nothing.
        """
        logs = self._means(told)
        self.value, self._newest = logs[self.judged_by], (logs, weights_of(self._teacher))
        if self.value > self.best_value:
            self.best, self.best_weights = self._newest
        return logs

    def known(self, weights: list[np.ndarray]) -> dict[str, float]:
        """What was found with these weights: of the best ones, of those of the newest validation, or else nothing."""
        for logs, those in ((self.best, self.best_weights), self._newest):
            if those and all(np.array_equal(a, b) for a, b in zip(those, weights, strict=True)):
                return logs
        return {}

    def warn_of_start(self, start: dict[str, float]) -> None:
        """Warns, behind a training, if no validation was better than what the first one found, `start`."""
        if self.best_value <= start[self.judged_by]:
            warnings.warn(f"no validated teacher was better than the one that this training began with ("
                          f"{self.judged_by} {start[self.judged_by]:.4g}): it is left as it began. Give it more "
                          "teacher_steps or another learning rate, or more validation_rollouts if its students differ "
                          "much by seed.", stacklevel=3)

    def _means(self, told: Callable[[int, int], Any] | None) -> dict[str, float]:
        values = np.zeros([len(self._seeds), len(self._measures)])
        for index, final in self._replicas.run(functools.partial(self._final_states, told), self._seeds):
            values[index] = [measured(final) for measured in self._measures.values()]
        means = np.mean(self._replicas.total(values), axis=0)
        return {name: float(mean) if np.isfinite(mean) else -np.inf
                for name, mean in zip(self._measures, means, strict=True)}

    def _final_states(self, told: Callable[[int, int], Any] | None, seeds: list[int]) -> list[StudentState]:
        states = [initial_state(self._problem, *self._task.init(seed)) for seed in seeds]
        steps = self._problem.num_steps
        if self._replicas.strategy:
            return self._run(states, seeds, steps)
        stops = sorted({round(steps * part / PARTS) for part in range(1, PARTS + 1)} - {0}) if told else [steps]
        for i, seed in enumerate(seeds):
            for stop in stops:  # a run in stretches is the same run
                states[i] = self._run(states[i], seed, stop)
                if told:
                    told(self._seeds.index(seed) * steps + stop, len(self._seeds) * steps)
        return states


def weights_of(teacher: Teacher) -> list[np.ndarray]:
    """The values of a teacher's variables."""
    return [variable.numpy() for variable in teacher.theta]
