"""Translation as a task of `TeacherTrainer`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_l2t.hypergradient import Problem
from tf_l2t.students import FunctionalTranslator, PreflightReport, Translator, preflight
from tf_l2t.teachers import Teacher
from tf_l2t.training.tasks import Measure, Task
from tf_l2t.training.taught_translator import check_fits_translator
from tf_l2t.training.translation_objectives import OBJECTIVES, OF_REFERENCES, check_objective, objective_of
from tf_l2t.training.translation_problem import translation_problem
from tf_l2t.translation.batches import EncodedText, check_ids, eval_batches
from tf_l2t.translation.bleu import corpus_bleu, ngram_statistics
from tf_l2t.translation.decoding import greedy, length_limits


class TranslationTask(Task):
    """Translation students, that begin with random weights or with those of a trained one (L2T-DLF, section 4.2).

        task = TranslationTask(lambda: tf_l2t.students.lstm1(4000), start=translations.model)
        trainer = tf_l2t.TeacherTrainer(task, teacher, num_steps=200, batch_size=32, student_optimizer=...)
        trainer.compile(optimizer=..., objective="log_expected_bleu", hvp="reverse_over_reverse")
        trainer.fit(train, dev, teacher_steps=50)          # `EncodedText` of `encode_pairs`

    M is one of `translation_objectives.OBJECTIVES`; `dev_bleu` is BLEU of greedy translations of subwords.

    Args:
      student_fn: builds a new `Translator`.
      start: a model of the same architecture whose weights every student begins with; None for new ones.
      sample_size: how many train and dev pairs s_t looks at.
      dtype: as for `FunctionalTranslator`.

    Raises:
      ValueError: as `FunctionalTranslator`, or for a `start` of other shapes.
    """

    measure = "bleu"
    student: FunctionalTranslator

    def __init__(self, student_fn: Callable[[], Translator], start: Translator | None = None, sample_size: int = 100,
                 dtype: str | None = None):
        self.student = FunctionalTranslator(student_fn, dtype)
        self._student_fn, self._start, self._sample_size = student_fn, start, sample_size
        own = [tuple(w.shape) for w in self.student.model.trainable_variables]
        if start is not None and own != [tuple(w.shape) for w in start.trainable_variables]:
            raise ValueError("start must be a model of the student's architecture; its weights have other shapes.")

    def in_float64(self) -> TranslationTask:
        return TranslationTask(self._student_fn, self._start, self._sample_size, "float64")

    def identity(self) -> dict[str, Any]:
        return {"sample_size": self._sample_size}

    def check_teacher(self, teacher: Teacher) -> None:
        check_fits_translator(teacher, self.student.model.vocabulary_size)

    def checked(self, data: Any, what: str, dev: bool = False) -> EncodedText:
        if not isinstance(data, EncodedText):
            raise ValueError(f"{what} must be an EncodedText, such as encode_pairs returns; received "
                             f"{type(data).__name__}.")
        check_ids(data, self.student.model.vocabulary_size, what)
        return data

    def content(self, data: EncodedText) -> Sequence[Any]:
        return [value for name, value in data._asdict().items() if name != "origin"]

    def check_objective(self, objective: Any) -> None:
        check_objective(objective)
        if self.student.model.unroll and OBJECTIVES[objective].rows not in OF_REFERENCES:
            known = sorted(name for name, of in OBJECTIVES.items() if of.rows in OF_REFERENCES)
            raise ValueError(f"the student has unroll=True, which takes sentences of one length, and {objective!r} is "
                             "of its own translations, of any length: build it with unroll=False, or choose one of "
                             f"{known}.")

    def problem(self, train: EncodedText, dev: EncodedText, teacher: Teacher, objective: Any, **options: Any
                ) -> Problem:
        return translation_problem(self.student, train, dev, form=teacher.loss, objective=objective,
                                   sample_size=self._sample_size, **options)

    def measures(self, objective: Any, data: EncodedText) -> tuple[Measure, Measure]:
        value = tf.function(objective_of(self.student, data, objective), autograph=False)
        longest = int(max(data.source_lengths.max(), data.target_lengths.max()))
        batches = list(eval_batches(data, 64, (longest,) if self.student.model.unroll else None))

        @tf.function(autograph=False, reduce_retracing=True)
        def statistics(params: Any, non_trainable: Any, source: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
            found = self.student.using(params, non_trainable, greedy, source, length_limits(source))
            return ngram_statistics(found, target)

        def bleu(state: Any) -> float:
            found = [statistics(state.params, state.non_trainable, *batch.tokens)[:batch.real] for batch in batches]
            return float(corpus_bleu(tf.concat(found, axis=0)))

        return lambda state: float(value(state.params, state.non_trainable)), bleu

    def init(self, seed: int) -> tuple[tuple[tf.Tensor, ...], tuple[tf.Tensor, ...]]:
        params, non_trainable = self.student.init(seed)  # the seeds of random layers are the new one's
        if self._start is not None:
            params = tuple(tf.constant(np.asarray(w), self.student.dtype) for w in self._start.trainable_variables)
        return params, non_trainable

    def preflight(self, progress: Callable[[int, int], None] | None = None) -> PreflightReport:
        return preflight(self._student_fn, progress)
