"""Teachers as SavedModels: out with named signatures and metadata, in with every file checked."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from tf_l2t.data import check_class_names
from tf_l2t.features import feature_names
from tf_l2t.files import sync
from tf_l2t.teacher_card import intended_use, teacher_card
from tf_l2t.teachers import Teacher

METADATA, CARD = "tf_l2t.json", "teacher_card.md"
FORMAT = 1
_METADATA_TYPES: dict[str, Any] = {"teacher": dict, "files": dict, "training": dict, "num_classes": int,
                                   "num_steps": int | None, "loss": str, "features": int | list, "versions": dict}
_REQUIRED_FILES = {"saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"}


class _Exported(tf.Module):
    """The functions of the SavedModel. `teacher` is its only state."""

    def __init__(self, teacher: Teacher):
        super().__init__()
        self.teacher = teacher
        status = tf.TensorSpec([teacher.num_features], tf.float32, "features")

        @tf.function(input_signature=[status], autograph=False)
        def coefficients(features):
            return {"coefficients": teacher(features)}

        @tf.function(input_signature=[status, tf.TensorSpec([None], tf.int32, "labels"),
                                      tf.TensorSpec([None, teacher.num_classes], tf.float32, "logits")],
                     autograph=False)
        def loss(features, labels, logits):
            return {"loss": teacher.per_example(labels, logits, teacher(features))}

        self.coefficients = coefficients
        self.loss = loss


def export_teacher(teacher: Teacher, path: str | pathlib.Path, *, num_steps: int | None = None,
                   summary: dict[str, Any] | None = None, overwrite: bool = False,
                   class_names: Sequence[str] = ()) -> pathlib.Path:
    """Writes a teacher as a TensorFlow SavedModel.

    Signatures, usable from any program that reads SavedModels, without this library:

        coefficients: features float32 [num_features] -> coefficients float32 [classes, classes], or the [classes] of a
                      `DiagonalTeacher`
        loss: features float32 [num_features], labels int32 [batch], logits float32 [batch, classes]
              -> loss float32 [batch]

    Beside it, `tf_l2t.json` holds the class and config, the features' names in order, the number of classes, T, the
    versions, values of the taught loss by which it is known again, a summary of the training, and the SHA-256 of the
    SavedModel's files; `teacher_card.md` says the same to people. It may be edited; `overwrite` writes it anew.

    Args:
      teacher: to export.
      path: a directory that does not exist yet (or see `overwrite`); written whole, and to the disk itself, or not at
        all.
      num_steps: T, over which the teacher was trained; by default what `TeacherTrainer.fit` noted.
      summary: more about the training, JSON values.
      overwrite: replace an exported teacher at `path`, also one that is damaged. A directory with any other file in it
        is never touched. A process that is killed between two renames leaves the old one beside it, as .NAME-…-old.
      class_names: of the classes, in order, for the card and for who loads the teacher; () for those that it was loaded
        with, if any.

    Returns:
      `path`.

    Raises:
      ValueError: if something is at `path` already, or for names that are not those of as many classes.
    """
    import keras

    path = pathlib.Path(path)
    replaced = path.exists()
    if replaced and not (overwrite and (path / METADATA).is_file()):
        raise ValueError(f"{str(path)!r} exists; export to a new directory. overwrite=True replaces an exported "
                         "teacher, and nothing else.")
    if replaced:
        foreign = _files(path) - {METADATA, CARD, *_files_of(path)}
        if foreign:
            raise ValueError(f"{str(path)!r} exists and holds files that are no teacher's: {sorted(foreign)}; export "
                             "to a new directory.")
    training = dict(teacher.training)
    if len(class_names):
        training["class_names"] = list(check_class_names(class_names, teacher.num_classes))
    metadata = {
        "format": FORMAT, "teacher": teacher.spec(), "loss": teacher.loss, "form": teacher.form.probe(),
        "num_classes": teacher.num_classes,
        "features": _features_of(teacher),
        "num_steps": num_steps if num_steps is not None else training.get("num_steps"),
        "versions": {"tensorflow": tf.__version__, "keras": keras.__version__, "tf_l2t": _version()},
        "training": training | (summary or {}),
        "intended_use": intended_use(teacher.loss, teacher.get_config().get("class_counts"),
                                     trained="teacher_steps" in training),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = pathlib.Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        module = _Exported(teacher)
        tf.saved_model.save(module, str(staging), signatures={"coefficients": module.coefficients,
                                                              "loss": module.loss})
        metadata["files"] = {name: _sha256(staging / name) for name in sorted(_files(staging))}
        (staging / METADATA).write_text(json.dumps(metadata, indent=2) + "\n")
        (staging / CARD).write_text(teacher_card(metadata), encoding="utf-8")
        staging.chmod(0o755)
        for written in (*staging.rglob("*"), staging):
            sync(written)
        old = staging.with_name(f"{staging.name}-old")
        try:
            if replaced:
                path.rename(old)  # kept until the new one stands
            staging.rename(path)
        except BaseException:
            if old.exists() and not path.exists():
                old.rename(path)
            raise
        sync(path.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return path


def load_teacher(path: str | pathlib.Path, class_names: Sequence[str] = ()) -> Teacher:
    """Reads a teacher that `export_teacher` wrote.

    No graph is loaded, so nothing from the file runs: the teacher is built again from its class name and config, and
    only its variables are read. Every file's checksum and the signatures' shapes are checked first.

    Args:
      path: the directory.
      class_names: of the students' classes, in order; () where that is not to be checked. A teacher that was exported
        without names cannot be checked, and a warning says so.

    Returns:
      A `Teacher`, equal to the exported one and trainable; `teacher.training` is the summary of its training.

    Raises:
      ValueError: if there is no exported teacher at `path`, a file is missing or damaged, it holds another kind of
        SavedModel or a teacher class that is not imported, its features were others or in another order, its taught
        loss was another function then, or its classes are others than `class_names`, or in another order.
    """
    path = pathlib.Path(path)
    metadata = _read_metadata(path)
    for name, expected in metadata["files"].items():
        file = path / name
        try:
            there = file.resolve().is_relative_to(path.resolve()) and file.is_file()
            digest = _sha256(file) if there else ""
        except (OSError, RuntimeError, ValueError) as error:  # a name that cannot be one, a link to itself
            raise ValueError(f"{str(path)!r} is damaged: {name!r} cannot be read: {error}.") from error
        if not there:
            raise ValueError(f"{str(path)!r} is damaged: {name} is missing.")
        if digest != expected:
            raise ValueError(f"{str(path)!r} is damaged: {name} is not the file that was exported.")
    config = metadata["teacher"].get("config")
    if isinstance(config, dict) and config.get("num_classes", metadata["num_classes"]) != metadata["num_classes"]:
        raise ValueError(f"{path / METADATA} contradicts itself: {metadata['num_classes']} classes, and "
                         f"{config['num_classes']}.")
    teacher = Teacher.from_spec(metadata["teacher"])
    _check_card(path, teacher, metadata)
    _check_form(path, teacher, metadata.get("form"))
    _check_classes(path, metadata, check_class_names(class_names, teacher.num_classes) if len(class_names) else ())
    _check_signatures(path, teacher)
    try:
        status = tf.train.Checkpoint(teacher=teacher).read(str(path / "variables" / "variables"))
        status.assert_existing_objects_matched()
    except (AssertionError, LookupError, RuntimeError, TypeError, ValueError, DecodeError, tf.errors.OpError) as error:
        # Whatever TensorFlow's reader meets in a file that was spoiled together with its SHA-256.
        raise ValueError(f"{str(path)!r} does not hold the variables of its {type(teacher).__name__}: "
                         f"{error}") from error
    teacher.note_training(metadata["training"] | {"num_steps": metadata["num_steps"]})
    return teacher


def _files_of(path: pathlib.Path) -> set[str]:
    """The files of the exported teacher at `path`; where its metadata are damaged, those that every one has."""
    try:
        return set(_read_metadata(path)["files"])
    except ValueError:
        return {*_REQUIRED_FILES, "fingerprint.pb"}


def _files(path: pathlib.Path) -> set[str]:
    return {str(file.relative_to(path)) for file in path.rglob("*") if not file.is_dir()}


def _read_metadata(path: pathlib.Path) -> dict[str, Any]:
    """The metadata of the exported teacher at `path`, every key present and of its type."""
    if not os.path.isdir(path):
        raise ValueError(f"there is no directory {str(path)!r}; give the one that export_teacher wrote.")
    if not os.path.isfile(path / METADATA):  # as False also where it may not be asked, and for a pipe
        kind = "a SavedModel, but not of a teacher" if (path / "saved_model.pb").exists() else "no SavedModel"
        raise ValueError(f"{str(path)!r} is {kind}: it has no {METADATA}. Give a directory that export_teacher wrote.")
    try:
        metadata = json.loads((path / METADATA).read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path / METADATA} is damaged: {error}. Export the teacher again.") from error
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        found = metadata.get("format") if isinstance(metadata, dict) else None
        raise ValueError(f"{path / METADATA} has format {found!r}; this version reads format {FORMAT}. It is damaged, "
                         "or of another version: export the teacher again.")
    wrong = [key for key, kind in _METADATA_TYPES.items() if not isinstance(metadata.get(key, ...), kind)]
    if wrong or not set(metadata["files"]) >= _REQUIRED_FILES:
        raise ValueError(f"{path / METADATA} is damaged: {wrong or ['files']} missing or of another type. Export the "
                         "teacher again.")
    if (metadata["num_steps"] or 1) < 1:
        raise ValueError(f"{path / METADATA} is damaged: a horizon of {metadata['num_steps']} steps. Export the "
                         "teacher again.")
    return metadata


def _check_card(path: pathlib.Path, teacher: Teacher, metadata: dict[str, Any]) -> None:
    """A status is numbers without names: in another order than a teacher was trained on it would mislead it."""
    if metadata["loss"] != teacher.loss:
        raise ValueError(f"{path / METADATA} contradicts itself: the loss {metadata['loss']!r}, and of its teacher "
                         f"{teacher.loss!r}.")
    expected = _features_of(teacher)
    if metadata["features"] != expected:
        raise ValueError(f"{str(path)!r} was trained on the features {metadata['features']}; this version gives a "
                         f"{type(teacher).__name__} of {teacher.num_classes} classes {expected}, in this order. Train "
                         "it again, or use the SavedModel's own signatures.")


def _check_classes(path: pathlib.Path, metadata: dict[str, Any], names: tuple[str, ...]) -> None:
    """Φ(i, j) is of classes by their numbers: in another order it would be of others. No names ask for nothing."""
    known = metadata["training"].get("class_names")
    if known is not None and (not isinstance(known, list) or not all(isinstance(name, str) for name in known) or
                              len(set(known)) != len(known) or len(known) != metadata["num_classes"]):
        raise ValueError(f"{path / METADATA} is damaged: class_names {known!r} are no names of "
                         f"{metadata['num_classes']} classes. Export the teacher again.")
    if not names:
        return
    if known is None:
        warnings.warn(f"{str(path)!r} does not say what its classes are called, so that their order cannot be checked: "
                      "export the teacher with class_names.", stacklevel=3)
    elif known != list(names):
        same = set(known) == set(names)
        raise ValueError(f"{str(path)!r} was trained for the classes {known}; received "
                         f"{'them in another order' if same else 'other ones'}: {list(names)}. " +
                         ("Number the labels as the teacher's." if same else "Train a teacher for these."))


def _features_of(teacher: Teacher) -> list[str] | int:
    """The names of the status's numbers, in order, or how many there are where it is another task's."""
    if teacher.num_features == teacher.num_classes + 3:
        return list(feature_names(teacher.num_classes))
    return teacher.num_features


def _check_form(path: pathlib.Path, teacher: Teacher, form: Any) -> None:
    """A form of the loss may change from one version to the next, and coefficients for one say nothing to another."""
    if form is None:
        warnings.warn(f"{path / METADATA} does not tell which form {teacher.loss!r} was when the teacher was exported. "
                      "If it was another one than today's, train the teacher again.", stacklevel=3)
        return
    today = teacher.form.probe()
    numbers = isinstance(form, list) and all(isinstance(value, float) for value in form)
    if not numbers or len(form) != len(today) or not np.allclose(form, today, rtol=1e-6, atol=0):
        raise ValueError(f"{str(path)!r} was exported when the loss {teacher.loss!r} was another function; train the "
                         "teacher again, or use the SavedModel's own signatures.")


def _check_signatures(path: pathlib.Path, teacher: Teacher) -> None:
    try:
        graphs = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes()).meta_graphs
        signatures = graphs[0].signature_def
    except (DecodeError, IndexError, OSError) as error:
        raise ValueError(f"{path / 'saved_model.pb'} is no SavedModel: {error}") from error
    classes, features = teacher.num_classes, teacher.num_features
    expected = {"coefficients": {"features": [features], "coefficients": list(teacher.coefficients_shape)},
                "loss": {"features": [features], "labels": [-1], "logits": [-1, classes], "loss": [-1]}}
    for name, shapes in expected.items():
        if name not in signatures:
            raise ValueError(f"{str(path)!r} has no signature {name!r}; it has {sorted(signatures)}.")
        found = {key: [d.size for d in info.tensor_shape.dim] for part in (signatures[name].inputs,
                 signatures[name].outputs) for key, info in part.items()}
        if found != shapes:
            raise ValueError(f"{str(path)!r}: the signature {name!r} should have the shapes {shapes}; it has {found}.")


def _sha256(file: pathlib.Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _version() -> str:
    from tf_l2t import __version__

    return __version__
