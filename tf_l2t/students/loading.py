"""Networks from files, which may be anybody's."""

from __future__ import annotations

import os
import zipfile
import zlib

import keras


class DamagedNetworkError(ValueError):
    """A file that holds no network, or none that can be loaded."""


def check_archive(file: str | os.PathLike[str]) -> None:
    """Raises `zipfile.BadZipFile` or `zlib.error` unless all that is in a .keras file has the checksums that it was
    written with, past which Keras reads from Python 3.12 on."""
    with zipfile.ZipFile(file) as archive:
        try:
            damaged = archive.testzip()
        except RuntimeError as error:  # a flipped bit may say that it is encrypted, or compressed in another way
            raise zipfile.BadZipFile(str(error)) from error
        if damaged:
            raise zipfile.BadZipFile(f"{damaged} in it is not what was written")


def load_network(file: str | os.PathLike[str]) -> keras.Model:
    """The network in a .keras file, not compiled.

    Nothing in the file is run: layers are built again by the names of their classes, Keras' and those that are
    registered, and a Lambda, which holds code, is refused.

    Raises:
      DamagedNetworkError: for a file that is missing, damaged, or holds something else; a ValueError.
    """
    try:
        check_archive(file)
        model = keras.models.load_model(file, compile=False, safe_mode=True)
    except (AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError, zipfile.BadZipFile,
            zlib.error) as error:
        raise DamagedNetworkError(f"the network in {str(file)!r} cannot be loaded: {error}") from error
    if not isinstance(model, keras.Model):
        raise DamagedNetworkError(f"{str(file)!r} holds a {type(model).__name__}, which is no network.")
    return model
