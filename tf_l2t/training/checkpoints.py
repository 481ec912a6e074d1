"""States of a training on disk: the newest few, each whole or not used."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from tf_l2t.files import sync
from tf_l2t.training.errors import ForeignStatesError, UnwritableError
from tf_l2t.training.workdir import claim, environment, write_json

NAME = "state"
FOREIGN = "it is of another training, of another "


class Checkpoints:
    """What a training goes on from after it was stopped at any moment, by whatever.

    A state is the values of all variables and a record, written through `tf.train.CheckpointManager`. Beside state-N
    stands state-N.json, written after it and to the disk itself: the SHA-256 of its files, of which training it is, and
    the machine and the versions that it was written by; others that go on are warned. A state without that file, or
    other than it says, or of another training, does not count; the one before it does.

    Args:
      folder: made here, and used by one process at a time.
      variables: TensorFlow's and Keras'; where one is there twice, the first place counts.
      identity: JSON values, or NumPy's numbers, that tell this training from others.
      keep: how many states are kept, at least 2: an older one stands until the newer one does.

    Raises:
      ValueError: for fewer, for numbers that are not finite, or if another process uses the folder.
      UnwritableError: if the folder cannot be made.
    """

    def __init__(self, folder: str | os.PathLike[str], variables: Iterable[Any], identity: dict[str, Any],
                 keep: int = 3):
        if keep < 2:
            raise ValueError(f"keep must be at least 2; received {keep!r}.")
        self._folder = pathlib.Path(folder)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            claim(self._folder)
        except OSError as error:
            raise UnwritableError(f"{str(folder)!r} cannot be made, or written to: {error.strerror}.") from error
        held = list({id(variable): variable for variable in variables}.values())
        shapes = [[*variable.shape, tf.as_dtype(variable.dtype).name] for variable in held]
        self._identity = json.loads(json.dumps({**identity, "variables": shapes}, default=_plain, allow_nan=False))
        self._environment = environment()
        self._held = held
        self._record = tf.Variable("", dtype=tf.string, trainable=False)
        self._checkpoint = tf.train.Checkpoint(variables=held, record=self._record)
        self._keep = keep
        self._manager: Any = None
        self._warned = False

    def __str__(self) -> str:
        return repr(str(self._folder))

    def _managed(self) -> tf.train.CheckpointManager:
        """TensorFlow's manager, its list of states written anew from those that are whole: it deletes whatever stands
        there, wherever that is, and keeps only so many."""
        states, file = sorted(n for n in self._sealed() if not self._damage(n)), self._folder / "checkpoint"
        lines = [f'model_checkpoint_path: "{NAME}-{states[-1]}"'] if states else []
        for time, number in enumerate(states, start=1):
            lines += [f'all_model_checkpoint_paths: "{NAME}-{number}"', f"all_model_checkpoint_timestamps: {time}"]
        file.unlink(missing_ok=True)
        if lines:
            file.write_text("\n".join(lines) + "\n")
        return tf.train.CheckpointManager(self._checkpoint, str(self._folder), self._keep, checkpoint_name=NAME)

    def _sealed(self) -> list[int]:
        numbers = [seal.stem.removeprefix(f"{NAME}-") for seal in self._folder.glob(f"{NAME}-*.json")]
        return [int(number) for number in numbers if number.isdecimal()]

    def save(self, number: int, record: dict[str, Any]) -> None:
        """Keeps the variables as they are, and the record, JSON values; `number` grows along the training.

        Raises:
          UnwritableError: if the disk is full or may not be written to; earlier states are kept.
        """
        self._record.assign(json.dumps(record, default=float))
        try:
            self._manager = self._manager or self._managed()
            self._manager.save(checkpoint_number=number)
            files = self._files(number)
            for file in files:
                sync(file)
            content = {"identity": self._identity, "environment": self._environment,
                       "files": {file.name: _sha256(file) for file in files}}
            write_json(self._seal(number), content | {"digest": _digest(content)})
        except (OSError, tf.errors.OpError) as error:
            raise UnwritableError(f"state {number} could not be written to {str(self._folder)!r}; those before it are "
                                  f"kept. {getattr(error, 'message', error)}") from error
        kept = {pathlib.Path(path).name for path in self._manager.checkpoints}
        for seal in self._folder.glob(f"{NAME}-*.json"):
            # The manager has deleted the state, or lost its list of states; those of others are left where they are.
            if seal.stem not in kept and not self._is_foreign(seal):
                for file in (seal, *self._of(seal.stem)):
                    file.unlink(missing_ok=True)

    def restore(self, number: int | None = None) -> dict[str, Any] | None:
        """Puts the variables back to the newest whole state, or to that of a `number`, and returns its record.

        Returns None if there is none; warns of every newer one, or that one, that is damaged.

        Raises:
          ForeignStatesError: if all whole states are of another training.
        """
        asked = sorted((there for there in self._sealed() if number in (None, there)), reverse=True)
        damages = [(there, self._damage(there)) for there in asked]
        foreign = next((damage for _, damage in damages if damage.startswith(FOREIGN)), "")
        if foreign and not any(damage == "" for _, damage in damages):
            raise ForeignStatesError(f"{str(self._folder)!r} holds the states of another training, of another "
                                     f"{foreign.removeprefix(FOREIGN)}. Name a new directory, or go on with what "
                                     "began it.", foreign.removeprefix(FOREIGN).split(" and "))
        for there, damage in damages:
            if not damage:
                self._checkpoint.restore(str(self._folder / f"{NAME}-{there}")).assert_existing_objects_matched()
                logging.info("goes on behind %s", self._folder / f"{NAME}-{there}")
                self._compare_environment(there)
                return json.loads(self._record.numpy())
            used = "the state before it is used" if number is None else "what it holds is made again"
            warnings.warn(f"{str(self._seal(there))!r}: {damage}; {used}.", stacklevel=3)
        return None

    def _compare_environment(self, number: int) -> None:
        """Warns of a whole state that was written elsewhere."""
        then = json.loads(self._seal(number).read_text(encoding="utf-8")).get("environment", self._environment)
        differ = [f"{then.get(name)} then, {now} now" for name, now in self._environment.items()
                  if then.get(name) != now]
        if differ and not self._warned:
            self._warned = True
            warnings.warn(f"{str(self._folder)!r} goes on elsewhere than it was begun, and will not end with the same "
                          f"bits: {'; '.join(differ)}.", stacklevel=4)

    def are_finite(self) -> bool:
        """Whether all numbers of the variables are, as they are now."""
        return all(bool(tf.reduce_all(tf.math.is_finite(tf.convert_to_tensor(variable)))) for variable in self._held
                   if tf.as_dtype(variable.dtype).is_floating)

    def _damage(self, number: int) -> str:
        """What is wrong with a state, if anything is; it may be whole, and of another training."""
        try:
            seal = json.loads(self._seal(number).read_text(encoding="utf-8"))
            whole = seal.pop("digest") == _digest(seal)
            files, identity = dict(seal["files"]), dict(seal["identity"])
        except (OSError, AttributeError, ValueError, KeyError, TypeError, RecursionError) as error:
            return f"it is damaged ({error!r})"
        if not whole:
            return "it is not what was written"
        found = self._files(number)
        if sorted(files) != [file.name for file in found]:
            return f"it is of files {sorted(files)}, and {[file.name for file in found]} are there"
        damaged = [file.name for file in found if _sha256(file) != files[file.name]]
        if damaged:
            return f"{damaged} are not what was written"
        differ = sorted(name for name in {*identity, *self._identity}
                        if identity.get(name) != self._identity.get(name))
        return FOREIGN + " and ".join(differ) if differ else ""

    def _is_foreign(self, seal: pathlib.Path) -> bool:
        number = seal.stem.removeprefix(f"{NAME}-")
        return number.isdecimal() and self._damage(int(number)).startswith(FOREIGN)

    def _seal(self, number: int) -> pathlib.Path:
        return self._folder / f"{NAME}-{number}.json"

    def _files(self, number: int) -> list[pathlib.Path]:
        return sorted(file for file in self._of(f"{NAME}-{number}") if file != self._seal(number))

    def _of(self, state: str) -> list[pathlib.Path]:
        """By hand: Python keeps the pattern of every `glob`, and no two states have the same name."""
        return [file for file in self._folder.iterdir() if file.name.startswith(f"{state}.")]


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else float(value)


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sha256(file: pathlib.Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
