"""A run's directory: made once, never overwritten, used by one process at a time, with a manifest of what ran in it."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import warnings
from typing import Any

from tf_l2t.files import partial_name, write_whole

MANIFEST = "manifest.json"
SEAL = "sha256"
LOCK = ".lock"
PACKAGES = ("tensorflow", "keras", "numpy")

_claimed: dict[tuple[int, int], int] = {}  # locks of this process, by device and inode, open until it ends


def environment() -> dict[str, Any]:
    """The machine and versions that results depend on."""
    import tf_l2t

    versions = {"python": platform.python_version(), "tf_l2t": tf_l2t.__version__}
    versions |= {name: importlib.metadata.version(name) for name in PACKAGES}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"machine": f"{_processor()}, {cores} cores, {_accelerators() or 'CPU'}", "versions": versions}


def _processor() -> str:
    """Its model, where Linux tells it."""
    try:
        said = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        said = ""
    models = [line.partition(":")[2].strip() for line in said.splitlines() if line.startswith("model name")]
    return ", ".join([platform.machine(), *models[:1]])


def _accelerators() -> str:
    import tensorflow as tf

    return ", ".join(tf.config.experimental.get_device_details(device).get("device_name", "GPU")
                     for device in tf.config.list_physical_devices("GPU"))


def check_workdir(path: str | pathlib.Path) -> pathlib.Path:
    """Raises ValueError unless a new run may begin at `path`: nothing there, or an empty directory."""
    path = pathlib.Path(path)
    if not str(path) or path == pathlib.Path("."):
        raise ValueError("--workdir must name a new directory for the run's files; received none.")
    if path.exists() and not path.is_dir():
        raise ValueError(f"the work directory {str(path)!r} is a file; name a new directory.")
    begun = {LOCK, partial_name(MANIFEST)}  # of a run that was stopped while it wrote the first of its files
    if path.is_dir() and any(file.name not in begun for file in path.iterdir()):
        what = "another run" if (path / MANIFEST).exists() else "other files"
        raise ValueError(f"the work directory {str(path)!r} holds {what}; name a new one, or remove it yourself.")
    return path


def create_workdir(path: str | pathlib.Path, command: str, config: dict[str, Any],
                   data: dict[str, Any]) -> pathlib.Path:
    """Makes the directory of a new run and writes its manifest.

    Args:
      path: as for `check_workdir`.
      command: that started the run.
      config: its configuration, JSON values.
      data: what the run was made on: sizes, seeds, fingerprint.

    Raises:
      ValueError: as `check_workdir`, or if another process works there.
    """
    path = check_workdir(path)
    path.mkdir(parents=True, exist_ok=True)
    claim(path)
    check_workdir(path)  # a run may have come and gone since
    write_json(path / MANIFEST, {"command": command, "config": config, "data": data, **environment()})
    return path


def check_resumable(path: str | pathlib.Path, config: dict[str, Any], data: dict[str, Any]) -> pathlib.Path:
    """Raises ValueError unless a run may begin at `path`, or go on there: one of the same config, data and versions.

    Warns if it was begun on another machine or number of cores.

    Args:
      path: as for `check_workdir`.
      config, data: as for `create_workdir`.
    """
    manifest = pathlib.Path(path) / MANIFEST
    if not manifest.is_file():
        return check_workdir(path)
    try:
        begun, here = json.loads(manifest.read_text()), environment()
        now = {"config": config, "data": data, "versions": here["versions"]}
        differ = [name for name, value in now.items() if begun[name] != _plain(value)]
        machine = begun["machine"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{str(manifest)!r} is damaged: {error!r}. Name a new work directory.") from error
    if differ:
        raise ValueError(f"the work directory {str(path)!r} holds another run, of another {' and '.join(differ)}; name "
                         "a new one, or give the command that began it to go on.")
    if machine != here["machine"]:
        warnings.warn(f"the run in {str(path)!r} was begun on {machine} and goes on on {here['machine']}: sums are "
                      "rounded in another order there, so it will not end with the same bits.", stacklevel=3)
    return pathlib.Path(path)


def resume_workdir(path: str | pathlib.Path, command: str, config: dict[str, Any],
                   data: dict[str, Any]) -> pathlib.Path:
    """As `create_workdir`; a directory that holds a run of the same config and data is taken as it is.

    Raises:
      ValueError: as `check_resumable`, or if another process works there.
    """
    path = check_resumable(path, config, data)
    if not (path / MANIFEST).is_file():
        return create_workdir(path, command, config, data)
    claim(path)
    return path


def claim(path: pathlib.Path) -> None:
    """Keeps the directory for this process until it ends, however it ends.

    Raises:
      ValueError: if another process has it.
    """
    # A file, and not the directory itself, which NFS locks on each machine by itself; opened to be written to, because
    # there it is locked as POSIX locks are.
    lock = path / LOCK
    if lock.exists() and _of_file(lock.stat()) in _claimed:
        return  # and it is not opened once more: to close a file may give up a process' locks of it
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise ValueError(f"another process works in the work directory {str(path)!r}; wait for its end, or name a new "
                         "one.") from error
    except OSError as error:  # of some file systems of networks
        os.close(descriptor)
        raise ValueError(f"{str(path)!r} is on a file system without locks ({error.strerror}), where two processes "
                         "could not be kept apart; name a directory on another.") from error
    _claimed[_of_file(os.fstat(descriptor))] = descriptor


def _of_file(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes JSON whole or not at all, even if the machine stops."""
    text = json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    write_whole(path, lambda file: file.write_text(text, encoding="utf-8"))


def write_sealed(path: pathlib.Path, values: dict[str, Any]) -> None:
    """`write_json` of results that others are made of, with their SHA-256 beside them, for `read_sealed`."""
    plain = _plain(values)
    write_json(path, {**plain, SEAL: _digest(plain)})


def read_sealed(path: pathlib.Path) -> dict[str, Any] | None:
    """The values that `write_sealed` wrote; None if there are none, or, with a warning, if they are damaged."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        damage = "" if values.pop(SEAL, None) == _digest(values) else "it is not what was written"
    except FileNotFoundError:
        return None
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        damage = f"it is damaged ({error})"
    if damage:
        warnings.warn(f"{str(path)!r}: {damage}; what it says is made again.", stacklevel=2)
        return None
    return values


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
