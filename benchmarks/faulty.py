"""`trainers.train_teacher`, with rollouts whose numbers fail: for the soak.

    python -m benchmarks.faulty --config configs/demo.py --workdir runs/faulty

Of a training of one rollout a step every twelfth fails, by turns: its student begins with NaN, or with weights so large
that its loss is not finite, or its dθ has a NaN. Three in a row fail once in 480 steps, and send the teacher back.
"""

from __future__ import annotations

from collections.abc import Sequence
from unittest import mock

import numpy as np

from tf_l2t.hypergradient import Hypergradient, StudentState
from tf_l2t.training import teacher_trainer
from tf_l2t.training.teacher_fit import TeacherFit
from trainers import command, train_teacher

EVERY, ROW_EVERY, ROW = 12, 480, (250, 251, 252)
KINDS = ("NaN", "large", "gradient")


def fault(seed: int) -> str:
    """What is wrong with the rollout of that seed, which is the number of its teacher step; "" if nothing."""
    if seed % ROW_EVERY in ROW:
        return KINDS[ROW.index(seed % ROW_EVERY)]
    return KINDS[seed // EVERY % len(KINDS)] if seed % EVERY == EVERY // 2 else ""


class FaultyFit(TeacherFit):
    """The loop of a teacher's training, with the faults."""

    def _student(self, seed: int) -> StudentState:
        state, factor = super()._student(seed), {"NaN": np.nan, "large": 1e30}.get(fault(seed), 1.0)
        return state._replace(params=tuple(factor * value for value in state.params))

    def _hypergradients(self, seeds: list[int]) -> Sequence[Hypergradient]:
        return [result._replace(gradient=tuple(np.nan * part for part in result.gradient))
                if fault(seed) == "gradient" else result
                for seed, result in zip(seeds, super()._hypergradients(seeds), strict=True)]


if __name__ == "__main__":
    with mock.patch.object(teacher_trainer, "TeacherFit", FaultyFit):
        command.main(train_teacher.prepare)
