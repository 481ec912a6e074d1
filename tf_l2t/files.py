"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable
from typing import Any


def partial_name(name: str) -> str:
    """What a file is called while it is written; it ends as the file does, by which Keras knows what to write."""
    return f".partial-{name}"


def write_whole(path: pathlib.Path, write: Callable[[pathlib.Path], Any]) -> None:
    """Has `write` write a file beside `path`, and puts it in the place of what is there: whole or not at all, even if
    the machine stops or the disk is full."""
    partial = path.with_name(partial_name(path.name))
    try:
        write(partial)
        sync(partial)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    partial.replace(path)
    sync(path.parent)


def sync(path: pathlib.Path) -> None:
    """Waits until a file, or a directory's list of names, is on the disk itself."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
