"""What an exported teacher says of itself, for people: `teacher_card.md` beside its `tf_l2t.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

# What `TeacherTrainer.fit` notes, and how a card calls it.
_NOTED = {"student": "students", "student_input": "their inputs", "student_weights": "their weights",
          "student_optimizer": "their optimizer", "batch_size": "their batches", "train": "train examples",
          "dev": "dev examples", "objective": "maximised on dev", "teacher_steps": "teacher steps",
          "dropped": "of them without a gradient", "seed": "seed", "validated_on": "validated on"}
_INTENDED = {
    "mixture": "For labels that may be wrong, as they were in its train data: it has learned which ones to doubt.\n\n",
    "soft": "For labels that are right: it keeps students from being too sure of them.\n\n"}
_OF_COUNTS = ("It corrects for the class sizes in the table: for train data of these proportions, and tests in which\n"
              "all classes are equally frequent.\n\n")
_FOR = """For new students of data like those it was trained on, in which class number c is the same class, from a
start of their own. A run may be longer than the horizon: t/T is all that the teacher sees of it. Try the student's
learning rates on dev anew. It says nothing about other classes, another order of the classes, another kind of noise, or
students that are trained already."""
_SHOWN = 24  # features; of more, those of the last classes are left out
_STATUS_OF_CLASSES = 3  # numbers of a status before those of the classes


def teacher_card(metadata: Mapping[str, Any]) -> str:
    """The card, Markdown, of a teacher's `tf_l2t.json`.

    It says what the teacher is, what it was trained on and for how long, how well its students did, what it may be used
    for, and how. What is not known is left out.
    """
    training, classes = dict(metadata["training"]), metadata["num_classes"]
    config = metadata["teacher"].get("config", {})
    names = f"{classes}: {', '.join(training['class_names'])}" if "class_names" in training else classes
    rows = [("class", metadata["teacher"]["class"]), ("form of the loss", metadata["loss"]), ("classes", names),
            ("features, in order", _features(metadata["features"]))]
    counts, ignored = config.get("class_counts"), config.get("ignored")
    rows += [("class sizes that it corrects for", ", ".join(map(str, counts)))] if counts else []
    rows += [("features that it does not see", ", ".join(map(str, ignored)))] if ignored else []
    steps = metadata["num_steps"]
    rows += [] if steps is None else [("horizon", f"{steps} steps")]
    rows += [(label, f"{training[name]:,}" if isinstance(training[name], int) else training[name])
             for name, label in _NOTED.items() if name in training]
    rows += [(f"validated: {name.removeprefix('val_')}", f"{value:.4g}") for name, value in training.items()
             if name.startswith("val_") and isinstance(value, float)]
    if "data" in training:
        rows.append(("data", f"`{json.dumps(training['data'], ensure_ascii=False)}`"))
    rows.append(("versions", ", ".join(f"{name} {version}" for name, version in metadata["versions"].items())))
    table = "\n".join(["| | |", "|---|---|", *(f"| {label} | {value} |" for label, value in rows)])
    use = "" if isinstance(metadata["features"], int) else f"""
    student = tf_l2t.TaughtStudent(model, teacher, dev_data=(x_dev, y_dev), num_steps={steps or "..."})

or, with a model that stays what it is, `model.compile(optimizer, loss=teacher.as_keras_loss())` and in its `fit` the
callback `tf_l2t.Teaching(teacher, dev_data=(x_dev, y_dev), num_steps={steps or "..."})`."""
    return f"""# A teacher of {classes} classes

Sets the coefficients Φ of a student's loss at every step of the student's training, from the student's status.

{table}

## Use

    import tf_l2t

    teacher = tf_l2t.load_teacher("THIS DIRECTORY"){use}

{metadata["intended_use"]}

`load_teacher` refuses files that are damaged, features in another order, and forms of the loss that are other functions
by now.
"""


def intended_use(loss: str, counts: Any, trained: bool) -> str:
    """What a teacher may be used for.

    Args:
      loss: the name of its form.
      counts: the class sizes that it corrects for, if any.
      trained: whether it was.
    """
    if not trained:
        return "It was not trained, as far as is known: its coefficients are those that teachers begin with."
    return _INTENDED.get(loss, "") + (_OF_COUNTS if counts else "") + _FOR


def _features(features: Any) -> str:
    if isinstance(features, int):
        return f"{features}"
    shown = features if len(features) <= _SHOWN else [*features[:_STATUS_OF_CLASSES + 1], "…",
                                                                      features[-1]]
    return ", ".join(shown)
