"""The part of train_student that trains a translation student."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections
import numpy as np
from absl import logging

import tf_l2t
from tf_l2t.students import Translator
from tf_l2t.training.callbacks import TranslatorSummaries
from tf_l2t.training.sequence_student import SEQUENCE_LOSSES, sequence_student
from tf_l2t.training.taught_translator import TaughtTranslator
from tf_l2t.training.translator_fit import check_any_length, fit_translator
from tf_l2t.training.workdir import resume_workdir, write_sealed
from tf_l2t.translation import (
    EncodedText,
    ParallelText,
    Subwords,
    TextSplits,
    TextTranslator,
    TokenLoss,
    bucketed_batches,
    encode_pairs,
    load_translator,
)
from tf_l2t.translation.token_losses import TOKEN_LOSSES
from trainers import command, translation
from trainers.digests import teacher_digest, translator_digest

TAUGHT = "taught"


def prepare_translator(config: ml_collections.ConfigDict, workdir: str, verbose: int) -> Callable[[], None]:
    """The work that trains config.student, translates the test set, and saves the translator.

    Writes manifest.json, history.json, checkpoints/ (to go on from), tensorboard/, best/ and last/ (translators, by dev
    BLEU and after the last step), kept/STEP/ if config.training.keep_every says so, results.json, with how many sources
    were longer than config.decoding.longest, and examples.txt.
    """
    text = translation.load_text(config)
    start = translation.start_of(config)
    subwords = start.subwords if start else translation.train_subwords(config, text)
    train = encode_pairs(subwords, text.train, config.data.max_length, too_long="drop")
    batches = bucketed_batches(train, config.training.batch_size)
    student = start.model if start else translation.new_student(config, subwords.size)
    model = compiled(config, student, subwords, text, train)
    how = translation.decoding(config)
    TextTranslator(student, subwords, how)  # raises here, rather than at the first look
    check_looks(config)
    num_steps = translation.run_steps(config)
    form = translation.form_of(config, text)
    about = {**translation.describe(text), "train_pairs_used": train.size, "train_pairs_too_long": train.dropped,
             **beginnings(config, start)}
    path = resume_workdir(workdir, command.command_line(), command.plain(config), about)
    if not start and config.training.loss not in TOKEN_LOSSES.keys() - {TAUGHT}:
        logging.warning("%r teaches what a student finds by itself, and a new one finds nothing: set "
                        "config.training.start to a run by maximum likelihood.", config.training.loss)
    dev = translation.sample(text.dev, config.training.dev_sample_size)
    scores = translation.Scores(dev, TextTranslator(inner(model), subwords, how._replace(beam_size=1), form))

    def evaluate(model: Any) -> dict[str, float]:
        return {"bleu": scores().bleus["detokenized"].score}

    summaries = TranslatorSummaries(path / "tensorboard")

    def looked(model: Any, record: dict[str, float]) -> None:
        summaries(model, record)
        every = config.training.keep_every * config.training.evaluate_every
        if every and record["step"] % every == 0:
            TextTranslator(inner(model), subwords, how, form).save(path / "kept" / str(record["step"]))

    cut = {f"truncated_{name}": len(TextTranslator(student, subwords, how).cut(part.source))
           for name, part in (("dev", dev), ("test", text.test))}

    def work() -> None:
        history = fit_translator(
            model, batches, seed=config.seed, num_steps=num_steps,
            evaluate_every=config.training.evaluate_every, evaluate=evaluate,
            best=lambda model: TextTranslator(inner(model), subwords, how, form).save(path / "best"), path=path,
            verbose=verbose, looked=looked)
        TextTranslator(inner(model), subwords, how, form).save(path / "last")
        results: dict[str, Any] = {"tokens_per_second": history[-1].get("tokens_per_second"),
                                   "dev_bleu": max(record["bleu"] for record in history), **cut}
        figures, found = scored({which: path / which for which in ("last", "best")}, text.test)
        results |= figures
        if any(cut.values()):
            command.result(f"sources that were cut after {how.longest} subwords (config.decoding.longest): "
                           f"{cut['truncated_dev']} of dev, {cut['truncated_test']} of test", **cut)
        examples = translation.write_examples(path / "examples.txt", text.test, found)
        write_sealed(path / "results.json", results)
        best, tensorboard = path / "best", path / "tensorboard"
        command.result(f"translator: {best}\nexamples: {examples}\nTensorBoard: {tensorboard}", translator=best,
                       examples=examples, tensorboard=tensorboard)

    return work


def scored(translators: Mapping[str, pathlib.Path], text: ParallelText) -> tuple[dict[str, Any], list[str]]:
    """The test BLEUs and speeds of saved translators of one student, greedy and with their beam, as WHICH_greedy and
    WHICH_beamN; and the last one's translations with the beam. All are told."""
    loaded = {which: load_translator(path) for which, path in translators.items()}
    weights = {which: translator.model.get_weights() for which, translator in loaded.items()}
    model, subwords, how, form = next((one.model, one.subwords, one.decoding, one.form) for one in loaded.values())
    results, found = dict[str, Any](), list[str]()
    for name, beam_size in (("greedy", 1), (f"beam{how.beam_size}", how.beam_size)):
        translator = TextTranslator(model, subwords, how._replace(beam_size=beam_size), form)
        translator(text.source[:1])  # compiles
        before = dict[str, translation.Scored]()
        for which, values in weights.items():
            # The best are often the last.
            same = next((other for other in before if _equal(weights[other], values)), "")
            if not same:
                translator.model.set_weights(values)
            before[which] = before[same] if same else translation.Scores(text, translator)()
            bleus, found, seconds = before[which]
            results[f"{which}_{name}"] = {
                **{kind: bleu._asdict() for kind, bleu in bleus.items()},
                "tokens_per_second": round(sum(map(len, subwords.encode_lines(found))) / seconds)}
            scores = {kind: bleu.score for kind, bleu in bleus.items()}
            command.result(f"test BLEU of the {which} weights, {name}: {scores['detokenized']:.2f}; of tokens in "
                           f"lower case: {scores['tokenized_lower']:.2f}", weights=which, decoding=name,
                           test_bleu=scores)
    return results, found


def _equal(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(map(np.array_equal, one, other))


def compiled(config: ml_collections.ConfigDict, student: Translator, subwords: Subwords, text: TextSplits,
             train: EncodedText) -> Any:
    """The model that trains `student` by config.training.loss: the student itself, or one around it.

    Raises:
      ValueError: for an unknown loss, options that it does not take, a run that is too short for it, or a teacher that
        does not fit.
    """
    training = config.training
    if training.loss != TAUGHT:
        return compiled_alone(config, student)
    if not training.teacher or dict(training.loss_options):
        raise ValueError("the taught loss needs config.training.teacher, the directory of an exported teacher, and "
                         f"takes no loss_options; received {training.teacher!r}, {dict(training.loss_options)}.")
    teacher = tf_l2t.load_teacher(training.teacher)
    theirs = teacher.training.get("data", {}).get("subwords", subwords.fingerprint)
    if theirs != subwords.fingerprint:
        raise ValueError(f"the teacher in {training.teacher!r} was trained with other subwords than this student's "
                         "are: its coefficients are of other tokens. Start from a student of the same vocabulary.")
    dev = translation.taught_dev(config, text, subwords)
    own, then = translation.status_of(config, dev), teacher.training.get("data", {}).get("status", {})
    if other := sorted(name for name in then.keys() & own if then[name] != own[name]):
        logging.warning("the status of this student is not what the teacher in %r was trained with; other is: %s. See "
                        "config.features, teacher_training.dev_size and data.", training.teacher, ", ".join(other))
    model = TaughtTranslator(student, teacher, train, dev, training.num_steps, config.features.refresh_every,
                             config.features.sample_size)
    model.compile(optimizer=translation.student_optimizer(config))
    return model


def compiled_alone(config: ml_collections.ConfigDict, student: Translator) -> Any:
    """As `compiled`, by a loss without a teacher."""
    training, options = config.training, dict(config.training.loss_options)
    check_any_length(student)
    if training.loss not in SEQUENCE_LOSSES:
        student.compile(optimizer=translation.student_optimizer(config), loss=token_loss(training.loss, options))
        return student
    model = sequence_student(student, training.loss, **{"seed": config.seed, **options})
    model.student_steps(translation.run_steps(config))  # raises for a run that ends before its student learns
    steps = model.student_steps(training.num_steps)
    model.compile(optimizer=translation.student_optimizer(config, steps))
    return model


def check_looks(config: ml_collections.ConfigDict) -> None:
    if config.training.evaluate_every < 1:
        raise ValueError("config.training.evaluate_every must be at least 1; received "
                         f"{config.training.evaluate_every!r}.")


def beginnings(config: ml_collections.ConfigDict, start: TextTranslator | None) -> dict[str, str]:
    """Digests of the run's start and teacher: with others at the same places it is another run."""
    found = {"start": translator_digest(start)} if start else {}
    if config.training.loss == TAUGHT:
        found["teacher"] = teacher_digest(tf_l2t.load_teacher(config.training.teacher))
    return found


def token_loss(name: str, options: dict[str, Any]) -> TokenLoss:
    try:
        return TokenLoss(name, **options)
    except (TypeError, ValueError) as error:
        raise ValueError(f"config.training.loss={name!r}: {error} There are the taught loss, {TAUGHT!r}, and those of "
                         f"whole sentences, {sorted(SEQUENCE_LOSSES)}.") from error


def inner(model: Any) -> Translator:
    """The student of a model that trains one."""
    return model if isinstance(model, Translator) else model.student
