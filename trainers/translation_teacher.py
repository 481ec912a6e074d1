"""From a config to the training of a translation student's teacher."""

from __future__ import annotations

import ml_collections

from tf_l2t.teachers import TEACHERS, DiagonalTeacher, Teacher
from tf_l2t.training import TeacherTrainer
from tf_l2t.training.translation_task import TranslationTask
from tf_l2t.translation import encode_pairs
from tf_l2t.translation.features import FEATURES
from trainers import translation
from trainers.digests import translator_digest
from trainers.teacher_plan import TeacherPlan, built_teacher, compile_trainer, described

DIAGONAL = sorted(name for name, kind in TEACHERS.items() if issubclass(kind, DiagonalTeacher))


def new_teacher(config: ml_collections.ConfigDict, vocabulary_size: int, number: int = 0) -> Teacher:
    """The config's teacher as it begins.

    Raises:
      ValueError: for another kind of teacher than a diagonal one, or options that it does not take.
    """
    if config.teacher.name not in DIAGONAL:
        raise ValueError(f"the teacher of a translation student is one of {DIAGONAL}, with a coefficient for every "
                         f"subword; received config.teacher.name={config.teacher.name!r}.")
    return built_teacher(config, number, vocabulary_size, len(FEATURES))


def plan(config: ml_collections.ConfigDict, number: int = 0) -> TeacherPlan:
    """The training of the config's teacher, everything about it checked.

    Students begin with the weights of config.training.start, a translator that train_student wrote. M is measured on
    config.teacher_training.dev_size dev pairs.

    Raises:
      ValueError: for options that do not fit.
    """
    outer, training = config.teacher_training, config.training
    text = translation.load_text(config)
    start = translation.start_of(config)
    subwords = start.subwords if start else translation.train_subwords(config, text)
    train = encode_pairs(subwords, text.train, config.data.max_length, too_long="drop")
    dev = translation.taught_dev(config, text, subwords)
    teacher = new_teacher(config, subwords.size, number)
    num_steps = outer.num_steps or training.num_steps
    stages = []
    for length, steps in (*outer.curriculum, (num_steps, outer.steps)):
        task = TranslationTask(translation.student_fn(config, subwords.size), start.model if start else None,
                           config.features.sample_size)
        trainer = TeacherTrainer(task, teacher, num_steps=length, batch_size=training.batch_size,
                                 student_optimizer=translation.student_optimizer(config, length),
                                 refresh_every=config.features.refresh_every, seed=config.seed + number)
        compile_trainer(trainer, config, dev.size, steps)
        trainer.check_data(train, dev)
        trainer.check_steps(steps, outer.validation_freq, outer.validation_rollouts)
        stages.append((trainer, steps))
    begin = f"from {config.training.start}" if start else "from new weights"
    description = (
        f"data: {text.name}, {train.size:,} train pairs of at most {config.data.max_length} subwords, {dev.size:,} dev,"
        f" {subwords.size:,} subwords",
        f"student: {config.student.name} {begin}, batches of {training.batch_size}, {training.optimizer}, rate "
        f"{training.learning_rate:g} ({training.decay})",
        described(config, teacher))
    about = {**translation.describe(text), **({"start": translator_digest(start)} if start else {})}
    return TeacherPlan(teacher, stages, train, dev, about,
                       {**text.about, "features": list(FEATURES), "subwords": subwords.fingerprint,
                        "status": translation.status_of(config, dev)}, description, {})
