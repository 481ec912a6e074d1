"""The ways of training that a table compares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_l2t.data import ArrayPair, noise_matrix
from tf_l2t.losses import estimated_noise, fixed_loss
from tf_l2t.students import FunctionalStudent
from tf_l2t.teachers import Teacher
from tf_l2t.training.problem import PerExampleLoss
from tf_l2t.training.step_losses import LargeMarginStep, MetaWeightStep, ReweightStep, StepLoss


class Recipe(NamedTuple):
    """What students of a row are made from: `StudentRuns` takes it.

    Attributes:
      train: what they are trained on.
      loss: (labels, logits, coefficients) -> [batch], or a `StepLoss`.
      coefficients_fn: a teacher, or None.
    """

    train: ArrayPair
    loss: PerExampleLoss | StepLoss
    coefficients_fn: Callable[[tf.Tensor], tf.Tensor] | None = None


class Kitchen(NamedTuple):
    """What recipes are cooked with.

    Attributes:
      train: the train set; beside it a recipe gets clean examples, and never sees dev or test as such.
      true_y: the labels of train before they were made wrong, for `oracle_clean`; None where they are as they came.
      num_classes: C.
      about: of the splits, for the true noise.
      student: the architecture.
      num_steps: of a student run.
      teacher: for rows that need one.
      noisy_probabilities: x -> the predictions of a student trained by cross entropy on train, for `gold_correction`.
    """

    train: ArrayPair
    true_y: np.ndarray | None
    num_classes: int
    about: Mapping[str, Any]
    student: FunctionalStudent
    num_steps: int
    teacher: Teacher | None
    noisy_probabilities: Callable[[np.ndarray], np.ndarray]


Build = Callable[..., Recipe]  # (kitchen, clean examples, **variant)


class Way(NamedTuple):
    """One way of training, before any tuning on dev.

    Attributes:
      label: in the table.
      build: (kitchen, clean examples, **variant) -> `Recipe`.
      sees_dev: whether it trains on the clean examples.
      variants: options of `build` to choose from on dev, beside the rate.
      oracle: what it knows that no one would, one of `ORACLES`; "" for nothing.
      needs_teacher: whether `build` needs the kitchen's teacher.
    """

    label: str
    build: Build
    sees_dev: bool = False
    variants: tuple[Mapping[str, Any], ...] = ({},)
    oracle: str = ""
    needs_teacher: bool = False


class Row(NamedTuple):
    """A row of the table: a way of training, alone or followed by tuning on dev by cross entropy."""

    way: str
    tuned: bool = False

    @property
    def label(self) -> str:
        """What tables and reports call it."""
        return WAYS[self.way].label + (", then tuned on dev" if self.tuned else "")

    @property
    def sees_dev(self) -> bool:
        """Whether dev labels were trained on; a teacher's students only by its loss."""
        return self.tuned or WAYS[self.way].sees_dev

    @property
    def oracle(self) -> str:
        """What it knows that no one would, one of `ORACLES`; "" for nothing."""
        return WAYS[self.way].oracle

    @property
    def needs_teacher(self) -> bool:
        """Whether there is no such row without a teacher."""
        return WAYS[self.way].needs_teacher

    @property
    def taught(self) -> bool:
        """Whether a trained teacher sets its loss: it has as many sets of students as there are teachers."""
        return self.way == "taught"


def _fixed(name: str, options: Callable[[Kitchen], dict[str, Any]] = lambda kitchen: {}) -> Build:
    def build(kitchen: Kitchen, clean: ArrayPair, **variant: Any) -> Recipe:
        loss = fixed_loss(name, **options(kitchen), **variant)
        return Recipe(kitchen.train, lambda labels, logits, _: loss(labels, logits))

    return build


def _counts(kitchen: Kitchen) -> dict[str, Any]:
    return {"counts": np.bincount(kitchen.train.y, minlength=kitchen.num_classes).tolist()}


def _on(data: Callable[[ArrayPair, ArrayPair], ArrayPair]) -> Build:
    """Cross entropy on what `data` makes of train and clean examples."""
    def build(kitchen: Kitchen, clean: ArrayPair) -> Recipe:
        loss = fixed_loss("cross_entropy")
        return Recipe(data(kitchen.train, clean), lambda labels, logits, _: loss(labels, logits))

    return build


def _together(train: ArrayPair, clean: ArrayPair) -> ArrayPair:
    return ArrayPair(np.concatenate([train.x, clean.x]), np.concatenate([train.y, clean.y]))


def _corrected(noise: Callable[[Kitchen, ArrayPair], np.ndarray]) -> Build:
    def build(kitchen: Kitchen, clean: ArrayPair) -> Recipe:
        trusted = ArrayPair(clean.x, clean.y + kitchen.num_classes)
        loss = fixed_loss("gold_correction", noise=noise(kitchen, clean))
        return Recipe(_together(kitchen.train, trusted), lambda labels, logits, _: loss(labels, logits))

    return build


def _true_noise(kitchen: Kitchen, clean: ArrayPair) -> np.ndarray:
    about = kitchen.about
    return noise_matrix(about.get("noise", "shift"), about.get("noise_fraction", 0.0), kitchen.num_classes)


def _estimated(kitchen: Kitchen, clean: ArrayPair) -> np.ndarray:
    return estimated_noise(clean.y, kitchen.noisy_probabilities(clean.x))


def _true_labels(kitchen: Kitchen, clean: ArrayPair) -> Recipe:
    if kitchen.true_y is None:
        raise ValueError("its labels were not made wrong; leave out the row, or set config.data.noise_fraction.")
    return _on(_together)(kitchen._replace(train=kitchen.train._replace(y=kitchen.true_y)), clean)


def _large_margin(kitchen: Kitchen, clean: ArrayPair, margin: int, least: float) -> Recipe:
    return Recipe(kitchen.train, LargeMarginStep(kitchen.student, kitchen.num_steps, margin, least))


def _taught(kitchen: Kitchen, clean: ArrayPair) -> Recipe:
    teacher: Any = kitchen.teacher
    return Recipe(kitchen.train, teacher.per_example, teacher)


def _untaught(kitchen: Kitchen, clean: ArrayPair) -> Recipe:
    """The fixed loss from which teachers start: what a taught loss is better by is what was learned."""
    teacher: Any = kitchen.teacher
    return Recipe(kitchen.train, lambda labels, logits, _: teacher.per_example(
        labels, logits, tf.cast(teacher.first, logits.dtype)))


WAYS = {
    "cross_entropy": Way("cross entropy", _fixed("cross_entropy")),
    "smooth": Way("smooth 0-1 loss", _fixed("smooth")),
    # The authors advise a least λ of 5 or 10 where training does not converge; the MLP wants more.
    "large_margin": Way("large-margin softmax", _large_margin, variants=tuple(
        {"margin": m, "least": least} for m in (2, 3, 4) for least in (0.0, 10.0, 100.0))),
    "label_smoothing": Way("label smoothing", _fixed("label_smoothing")),
    "focal": Way("focal loss", _fixed("focal")),
    "generalised_cross_entropy": Way("generalised cross entropy", _fixed("generalised_cross_entropy")),
    # The authors' α for MNIST and for CIFAR-10, and their three β.
    "symmetric_cross_entropy": Way("symmetric cross entropy", _fixed("symmetric_cross_entropy"),
                                   variants=tuple({"alpha": a} for a in (0.01, 0.1))),
    "class_balanced": Way("class-balanced weights", _fixed("class_balanced", _counts),
                          variants=tuple({"beta": b} for b in (0.99, 0.999, 0.9999))),
    "logit_adjustment": Way("logit adjustment", _fixed("logit_adjustment", _counts)),
    "dev_only": Way("cross entropy on dev alone", _on(lambda train, clean: clean), sees_dev=True),
    "train_dev": Way("cross entropy on train and dev", _on(_together), sees_dev=True),
    "gold_correction": Way("gold loss correction", _corrected(_estimated), sees_dev=True),
    "reweight": Way("examples reweighted by dev gradients", lambda kitchen, clean: Recipe(
        kitchen.train, ReweightStep(kitchen.student, clean)), sees_dev=True),
    "meta_weight_net": Way("Meta-Weight-Net", lambda kitchen, clean: Recipe(
        kitchen.train, MetaWeightStep(kitchen.student, clean)), sees_dev=True),
    "oracle_forward": Way("forward correction by the true noise, and dev (oracle)", _corrected(_true_noise),
                          sees_dev=True, oracle="true noise"),
    "oracle_clean": Way("cross entropy on the true labels, and dev (oracle)", _true_labels, sees_dev=True,
                        oracle="true labels"),
    "untaught": Way("fixed loss from which teachers start", _untaught, needs_teacher=True),
    "taught": Way("taught loss", _taught, needs_teacher=True),
}

# What oracles know: the values of `Way.oracle` but for "".
ORACLES = ("true noise", "true labels")

# Every way alone, and followed by tuning on dev; dev alone has nothing to tune.
ROWS = {**{way: Row(way) for way in WAYS},
        **{"train_tuned" if way == "cross_entropy" else f"{way}_tuned": Row(way, tuned=True)
           for way in WAYS if way != "dev_only"}}
