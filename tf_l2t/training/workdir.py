"""A run's directory: made once, never overwritten, with a manifest of what ran in it."""

from __future__ import annotations

import importlib.metadata
import json
import os
import pathlib
import platform
from typing import Any

MANIFEST = "manifest.json"
PACKAGES = ("tensorflow", "keras", "numpy")


def environment() -> dict[str, Any]:
    """The machine and versions that results depend on."""
    import tf_l2t

    versions = {"python": platform.python_version(), "tf_l2t": tf_l2t.__version__}
    versions |= {name: importlib.metadata.version(name) for name in PACKAGES}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"machine": f"{platform.machine()}, {cores} cores, CPU", "versions": versions}


def check_workdir(path: str | pathlib.Path) -> pathlib.Path:
    """Raises ValueError unless a new run may begin at `path`: nothing there, or an empty directory."""
    path = pathlib.Path(path)
    if not str(path) or path == pathlib.Path("."):
        raise ValueError("--workdir must name a new directory for the run's files; received none.")
    if path.exists() and not path.is_dir():
        raise ValueError(f"the work directory {str(path)!r} is a file; name a new directory.")
    if path.is_dir() and any(path.iterdir()):
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
      ValueError: as `check_workdir`.
    """
    path = check_workdir(path)
    path.mkdir(parents=True, exist_ok=True)
    write_json(path / MANIFEST, {"command": command, "config": config, "data": data, **environment()})
    return path


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes JSON whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")
    partial.replace(path)
