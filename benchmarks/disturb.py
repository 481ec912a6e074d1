"""Ends trainings at random moments, spoils what they kept, and reads what they have in the end."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import random
import re
import signal
import subprocess
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import h5py
import numpy as np
import tensorflow as tf

from benchmarks.tables import OUTCOMES

ROOT = pathlib.Path(__file__).parent.parent
RESULTS = ("*/rows/*.json", "*/**/results.json")  # of a table's parts
SEALS = "state-*.json"
KINDS = OUTCOMES[:5]  # by which a training is ended


class Outcome(NamedTuple):
    """Of one training that is through: how often it was ended, by kind, and how many files of states were spoiled."""

    ended: dict[str, int]
    damaged: int


def run_through(arguments: list[str]) -> float:
    """The seconds that an uninterrupted training takes."""
    started = time.monotonic()
    subprocess.run(arguments, cwd=ROOT, check=True, capture_output=True)
    return time.monotonic() - started


def disturb(arguments: list[str], workdir: pathlib.Path, seconds: float, kills: int, rng: random.Random, ending: str,
            kinds: Sequence[str] = KINDS, before: Mapping[str, int] | None = None) -> Outcome:
    """Runs a training to its end, killing it up to `kills` times; random moments are within `seconds` of a start.

    Half the time the kind is one of those that came least, counted with those `before`, in other trainings: some
    moments are rarely reached.
    """
    ended, damaged = dict.fromkeys(KINDS, 0), 0
    while True:
        so_far = {kind: ended[kind] + (before or {}).get(kind, 0) for kind in kinds}
        rare = [kind for kind in kinds if so_far[kind] == min(so_far.values())]
        kind, caught = rng.choice(rare if rng.random() < 0.5 else kinds) if killed(ended) < kills else "", False
        with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            if kind and _reached(process, kind, workdir, seconds, rng, ending):
                caught = _catches_termination(process.pid)
                process.send_signal(signal.SIGTERM if kind == "SIGTERM" else signal.SIGKILL)
            assert process.stderr
            said = process.stderr.read().decode()
        if process.returncode == 0:
            return Outcome(ended, damaged)
        allowed = [os.EX_TEMPFAIL if kind == "SIGTERM" else -signal.SIGKILL]
        if kind == "SIGTERM" and not caught:  # before it was listened to: while Python and TensorFlow began
            allowed.append(-signal.SIGTERM)
        if process.returncode not in allowed:
            raise RuntimeError(f"{arguments} ended with {process.returncode}: {said}")
        ended[kind] += 1
        if rng.random() < 1 / 3:
            damaged += damage(workdir, rng)


def killed(ended: dict[str, int]) -> int:
    """How often of all that a training was ended it was by SIGKILL."""
    return sum(count for kind, count in ended.items() if kind != "SIGTERM")


def _reached(process: subprocess.Popen[bytes], kind: str, workdir: pathlib.Path, seconds: float, rng: random.Random,
             ending: str) -> bool:
    """Waits for the moment of that kind; False if the training is through before."""
    began, moment, before = time.monotonic(), rng.uniform(0, seconds), _there(workdir, ending)
    seals, unsealed, sealed = _there(workdir, f"**/{SEALS}"), _unsealed(workdir), list[float]()

    def within() -> bool:
        """Behind two states of this process, by a part of the time between them."""
        nonlocal seals
        if len(sealed) < 2 and (now := _there(workdir, f"**/{SEALS}")) != seals:
            seals = now
            sealed.append(time.monotonic())
        return len(sealed) == 2 and time.monotonic() > sealed[1] + part * (sealed[1] - sealed[0])

    part = rng.random()
    here: Callable[[], bool] = {
        KINDS[1]: within,
        KINDS[2]: lambda: bool(_unsealed(workdir).items() - unsealed.items()) and rng.random() < 0.2,
        KINDS[3]: lambda: _there(workdir, ending) != before}.get(kind, lambda: time.monotonic() - began > moment)
    while process.poll() is None:
        if here():
            return True
        time.sleep(0.001)
    return False


def _matching(workdir: pathlib.Path, pattern: str) -> list[pathlib.Path]:
    while True:
        with contextlib.suppress(OSError):  # a directory may go while it is looked through
            return list(workdir.glob(pattern))


def _there(workdir: pathlib.Path, ending: str) -> dict[str, int]:
    """The files of that name, and when each was written."""
    found = {}
    for file in _matching(workdir, ending):
        with contextlib.suppress(OSError):  # it may go while it is looked at
            found[str(file)] = file.stat().st_mtime_ns
    return found


def _unsealed(workdir: pathlib.Path) -> dict[str, int]:
    """The files of states that are not whole yet, or were left so, and when each was written."""
    found = {}
    for file in _matching(workdir, "**/state-*"):
        seal = file.with_name(f"{file.name.split('.')[0]}.json")
        with contextlib.suppress(OSError):  # a file may go while it is looked at
            if file.is_file() and file != seal and not seal.exists():
                found[str(file)] = file.stat().st_mtime_ns
    return found


def _catches_termination(pid: int) -> bool:
    """Whether a process has a handler for SIGTERM."""
    with contextlib.suppress(OSError):
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
        (mask,) = re.findall(r"^SigCgt:\s*(\w+)$", status, re.MULTILINE)
        return bool(int(mask, 16) >> (signal.SIGTERM - 1) & 1)
    return False


def damage(workdir: pathlib.Path, rng: random.Random) -> int:
    """Spoils one file of the newest state of the newest part of a training, or the list of its states, or, of a table,
    now and then what it has of a part that is through, a row or results; how many it has spoiled.

    The states are those of a part that is not through: nobody asks for the others' again.
    """
    whole = [file for pattern in RESULTS for file in workdir.glob(pattern)]
    if whole and rng.random() < 1 / 3:
        return _spoil(rng.choice(sorted(whole)), rng)
    seals = sorted((seal for seal in workdir.rglob(SEALS) if not _through(seal, workdir)),
                   key=lambda file: file.stat().st_mtime)
    if not seals:
        return 0
    return _spoil(rng.choice(sorted([*seals[-1].parent.glob(f"{seals[-1].stem}.*"),
                                     *seals[-1].parent.glob("checkpoint")])), rng)


def _spoil(file: pathlib.Path, rng: random.Random) -> int:
    content = bytearray(file.read_bytes())
    how = rng.choice(("flip", "cut", "remove"))
    if how == "remove" and file.suffix != ".json":
        file.unlink()
    elif how == "cut":
        file.write_bytes(content[:rng.randrange(len(content))])
    else:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        file.write_bytes(content)
    return 1


def _through(seal: pathlib.Path, workdir: pathlib.Path) -> bool:
    """Whether a state is of a part of a table that has its results."""
    part_of = [folder for folder in seal.parents if workdir in folder.parents]
    return any((folder / "results.json").exists() or
               ((folder / "teacher").is_dir() and folder.suffix != ".partial") for folder in part_of)


def kept(workdir: pathlib.Path, result: str = "") -> dict[str, Any]:
    """The bytes of every tensor of the last states, but for their records, which have times; those of the weights of
    exported teachers and saved networks; and those of `result`."""
    found: dict[str, Any] = {result: (workdir / result).read_bytes()} if result else {}
    for exported in sorted(workdir.rglob("variables/variables.index")):
        reader = tf.train.load_checkpoint(str(exported.with_suffix("")))
        for name in reader.get_variable_to_shape_map():
            if not name.startswith("_CHECKPOINTABLE"):
                found[f"{exported.relative_to(workdir)}/{name}"] = np.asarray(reader.get_tensor(name)).tobytes()
    for saved in sorted(file for file in workdir.rglob("*.keras") if not file.name.startswith(".")):  # whole ones
        with zipfile.ZipFile(saved) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as weights:
            weights.visititems(lambda name, value, saved=saved: found.update(
                {f"{saved.relative_to(workdir)}/{name}": value[()].tobytes()} if isinstance(value, h5py.Dataset)
                else {}))
    for folder in sorted({seal.parent for seal in workdir.rglob(SEALS)}):
        last = max(int(seal.stem.removeprefix("state-")) for seal in folder.glob(SEALS))
        reader = tf.train.load_checkpoint(str(folder / f"state-{last}"))
        for name in reader.get_variable_to_shape_map():
            if name.startswith("variables/"):
                found[f"{folder.relative_to(workdir)}-{last}/{name}"] = np.asarray(reader.get_tensor(name)).tobytes()
    return found


def compared(found: dict[str, Any], expected: dict[str, Any]) -> tuple[int, int]:
    """How many bytes of what is `kept` were compared, and how many of them are not the same."""
    lost = 0
    for name in found.keys() | expected.keys():
        mine, other = (np.frombuffer(values.get(name, b""), np.uint8) for values in (found, expected))
        size = min(len(mine), len(other))
        lost += int(np.sum(mine[:size] != other[:size])) + max(len(mine), len(other)) - size
    return sum(map(len, expected.values())), lost
