"""CIFAR's files in the formats of its authors."""

import io
import pickle
import tarfile

import numpy as np

FOLDERS = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}


def files(name, version, pieces, test):
    """File name -> content, as the authors' pages describe them: planes of red, green and blue, rows first.

    `pieces` are the (images, labels) of the train files, five of CIFAR-10 and one of CIFAR-100; `test` those of the
    last. A coarse label is a fifth of the fine one.
    """
    names = [f"data_batch_{i}" for i in range(1, 6)] if name == "cifar10" else ["train"]
    found = {}
    for file, (x, y) in zip([*names, "test_batch" if name == "cifar10" else "test"], [*pieces, test], strict=True):
        flat = np.stack([np.concatenate([image[..., c].ravel() for c in range(3)]) for image in x])
        if version == "python":
            labels = {b"labels": y.tolist()} if name == "cifar10" else \
                {b"coarse_labels": (y // 5).tolist(), b"fine_labels": y.tolist()}
            found[file] = pickle.dumps({b"data": flat, **labels}, protocol=2)
        else:
            before = [y] if name == "cifar10" else [y // 5, y]
            found[f"{file}.bin"] = np.column_stack([*before, flat]).astype(np.uint8).tobytes()
    return found


def archive(folder, name, contents):
    """Writes `files` as the authors' archive and returns its path."""
    with tarfile.open(folder / f"{name}.tar.gz", "w:gz") as made:
        for file, content in contents.items():
            info = tarfile.TarInfo(f"{FOLDERS[name]}/{file}")
            info.size = len(content)
            made.addfile(info, io.BytesIO(content))
    return folder / f"{name}.tar.gz"
