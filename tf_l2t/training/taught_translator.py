"""A Keras model in which a teacher trains a translation student."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_l2t.hypergradient.graphs import separate
from tf_l2t.students import Translator, previous_tokens
from tf_l2t.teachers import Teacher
from tf_l2t.training.wrapped_translator import WrappedTranslator
from tf_l2t.translation.batches import EncodedText, check_ids
from tf_l2t.translation.features import FEATURES, status_bleu, status_vector
from tf_l2t.translation.subwords import BOS, EOS, PAD
from tf_l2t.translation.token_losses import taught_token_loss, token_nll


@keras.saving.register_keras_serializable(package="tf_l2t")
class TaughtTranslator(WrappedTranslator):
    """A translation student trained by a teacher's loss, through ordinary `compile`, `fit`, `evaluate`, `save`.

        model = TaughtTranslator(student, tf_l2t.load_teacher("runs/teacher/teacher"), train, dev, num_steps=2000)
        model.compile(optimizer=keras.optimizers.SGD(0.1))
        model.fit(translation_dataset(batches, seed, 0, 2000))

    Before every k-th step the status s_t = (t/T, train BLEU, dev BLEU) is measured on the first pairs of `train` and
    `dev`, and Φ_t = μ_θ(s_t) becomes the coefficients; between, Φ is held (L2T-DLF, section 4.2). The loss of a batch
    is the mean over its sentences of `taught_token_loss`. The teacher's weights and the samples become weights of this
    model: a saved student goes on training after `tf_l2t.load_model`.

    Args:
      student: trained in place; usually one that was trained by maximum likelihood first.
      teacher: with a diagonal Φ of the student's vocabulary and the features `FEATURES`. Its weights are copied.
      train, dev: pairs as ids.
      num_steps: T, over which t/T runs from 0 to 1.
      refresh_every: k.
      sample_size: how many train and dev pairs the status looks at.
      **options: of `WrappedTranslator`.

    Raises:
      ValueError: if teacher and student do not fit together, or a number is below 1; as `check_ids`.
    """

    logged = ("loss", "token_loss", "train_bleu", "dev_bleu")

    def __init__(self, student: Translator, teacher: Teacher, train: EncodedText, dev: EncodedText, num_steps: int,
                 refresh_every: int = 20, sample_size: int = 100, **options: Any):
        super().__init__(student, **options)
        check_fits_translator(teacher, student.vocabulary_size)
        for name, part in (("train", train), ("dev", dev)):
            check_ids(part, student.vocabulary_size, name)
        if min(num_steps, refresh_every, sample_size) < 1:
            raise ValueError("num_steps, refresh_every and sample_size must be at least 1; received "
                             f"{num_steps!r}, {refresh_every!r}, {sample_size!r}.")
        self.num_steps, self.refresh_every = num_steps, refresh_every
        self._teacher = teacher
        self._samples = [[self._constant(f"{name}_{side}", ids[:sample_size]) for side, ids in
                          (("source", part.source), ("target", part.target))]
                         for name, part in (("train", train), ("dev", dev))]
        self._theta = [self._constant(f"teacher_{i}", v.numpy()) for i, v in enumerate(teacher.theta)]
        self._coefficients = self._constant("coefficients", np.zeros(student.vocabulary_size, np.float32))
        self._status = self._constant("status", np.zeros(len(FEATURES), np.float32))

    def _constant(self, name: str, value: np.ndarray) -> Any:
        return self.add_weight(name=name, shape=value.shape, dtype=value.dtype.name, trainable=False,
                               aggregation="only_first_replica",
                               initializer=lambda shape, dtype: keras.ops.convert_to_tensor(value, dtype))

    @property
    def coefficients(self) -> np.ndarray:
        """Φ as of the last refresh, [V]; zeros before the first step."""
        return np.array(self._coefficients)

    def learn(self, source: tf.Tensor, target: tf.Tensor) -> dict[str, tf.Tensor]:
        refresh = tf.equal(self._step.value % self.refresh_every, 0)
        self._status.assign(tf.cond(refresh, separate(self._fresh_status), lambda: self._status.value + 0))
        self._coefficients.assign(self._teacher.apply(tuple(v.value for v in self._theta), self._status.value))
        with tf.GradientTape() as tape:
            logits = self.student((source, previous_tokens(target, BOS)), training=True)
            losses = taught_token_loss(target, logits, self._coefficients.value, self._teacher.loss)
            loss = tf.reduce_mean(losses) + self.regularisers()
        self.descend(tape, loss)
        return {"loss": losses, "token_loss": token_nll(target, logits), "train_bleu": self._status.value[1],
                "dev_bleu": self._status.value[2]}

    def _fresh_status(self) -> tf.Tensor:
        train_bleu, dev_bleu = (status_bleu(self.student, source.value, target.value)
                                for source, target in self._samples)
        return status_vector(self._step.value, self.num_steps, train_bleu, dev_bleu, tf.float32)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "teacher_spec": self._teacher.spec(), "num_steps": self.num_steps,
                "refresh_every": self.refresh_every,
                "sample_shapes": [[list(v.shape) for v in sample] for sample in self._samples]}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> TaughtTranslator:
        config = dict(config)
        student = keras.saving.deserialize_keras_object(config.pop("student"), custom_objects=custom_objects)
        # Stand-ins of the right shapes: the values are among the saved weights, which Keras loads next.
        train, dev = (_empty_sentences(source, target) for source, target in config.pop("sample_shapes"))
        return cls(student, Teacher.from_spec(config.pop("teacher_spec")), train, dev,
                   sample_size=max(train.size, dev.size), **config)


def _empty_sentences(source: Sequence[int], target: Sequence[int]) -> EncodedText:
    sides = []
    for shape in (source, target):
        ids = np.full(shape, PAD, np.int32)
        ids[:, 0] = EOS
        sides.append(ids)
    ones = np.ones(len(sides[0]), np.int32)
    return EncodedText(sides[0], sides[1], ones, ones, np.arange(len(ones)))


def check_fits_translator(teacher: Teacher, vocabulary_size: int) -> None:
    """Raises ValueError unless `teacher` has a diagonal Φ of that many numbers and the features of translation, and no
    class counts, which a loss of tokens has no use for."""
    if not isinstance(teacher, Teacher) or teacher.coefficients_shape != (vocabulary_size,) \
            or teacher.num_features != len(FEATURES):
        found = f"{type(teacher).__name__}" + (f" of Φ {teacher.coefficients_shape} and {teacher.num_features} features"
                                               if isinstance(teacher, Teacher) else "")
        raise ValueError(f"the teacher of these students has a diagonal Φ of {vocabulary_size} numbers, one a token, "
                         f"and the features {FEATURES}: DiagonalTeacher({vocabulary_size}, {len(FEATURES)}); "
                         f"received {found}.")
    if teacher.get_config()["class_counts"] is not None:
        raise ValueError("the taught loss of tokens knows no class counts: make the teacher without class_counts.")
