"""Parallel text: sentence pairs from files of lines, tab-separated files and the package, and their splits."""

from __future__ import annotations

import gzip
import hashlib
import importlib.resources
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

PARTS = ("train", "valid", "test")
OF_SIZES = ("matches_published", "test_words_match_published")  # in `about`, of a text that is whole


class Origin(NamedTuple):
    """Where sentence pairs were read, for messages.

    Attributes:
      source, target: the sides' files, or what else they are called.
      numbers: of the pairs' lines, from 1; None for 1, 2, ….
      unit: what is counted.
    """

    source: str
    target: str
    numbers: tuple[int, ...] | None = None
    unit: str = "line"

    def place(self, side: str, index: int) -> str:
        """Where the pair at `index` has its "source" or "target"."""
        number = index + 1 if self.numbers is None else self.numbers[index]
        return f"{getattr(self, side)}, {self.unit} {number}"

    def take(self, indices: Sequence[int] | np.ndarray) -> Origin:
        """Of the pairs at `indices`."""
        return self._replace(numbers=tuple(int(i) + 1 if self.numbers is None else self.numbers[i] for i in indices))


class ParallelText(NamedTuple):
    """Sentence pairs: source[i] is to be translated as target[i]; `name` and `origin` are for messages."""

    source: tuple[str, ...]
    target: tuple[str, ...]
    name: str = "text"
    origin: Origin | None = None

    @property
    def size(self) -> int:
        """The number of pairs."""
        return len(self.source)

    def take(self, indices: Sequence[int] | np.ndarray) -> ParallelText:
        """The pairs at `indices`, in their order."""
        return self._replace(source=tuple(self.source[i] for i in indices),
                             target=tuple(self.target[i] for i in indices),
                             origin=self.origin and self.origin.take(indices))

    def swapped(self) -> ParallelText:
        """The pairs in the other direction."""
        origin = self.origin and self.origin._replace(source=self.origin.target, target=self.origin.source)
        return self._replace(source=self.target, target=self.source, origin=origin)

    def place(self, side: str, index: int) -> str:
        """Where the pair at `index` has its "source" or "target", as messages say it."""
        return place(self.origin, self.name, side, index)


def place(origin: Origin | None, what: str, side: str, index: int) -> str:
    """`Origin.place`; in `what`, where no file is known."""
    return origin.place(side, index) if origin else f"{what}, line {index + 1} ({side})"


class TextSplits(NamedTuple):
    """Train, dev and test pairs of one task.

    Attributes:
      name: of the data set.
      about: what a run's manifest records: source, languages, sizes, seeds, how the text was prepared.
    """

    train: ParallelText
    dev: ParallelText
    test: ParallelText
    name: str
    about: dict[str, Any]


Path = str | os.PathLike[str]


def decoded_lines(content: bytes, where: str) -> list[str]:
    """The lines of UTF-8 text, which may begin with a byte order mark, without their ends, "\\n" or "\\r\\n".

    Nothing else ends a line: translations hold U+2028 and the like, at which `str.splitlines` would split.

    Args:
      where: what the text is called in errors.

    Raises:
      ValueError: naming the line that is not UTF-8.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = error.object[:error.start].count(b"\n") + 1
        raise ValueError(f"{where}, line {number}: byte 0x{error.object[error.start]:02x} is not UTF-8. Convert the "
                         "file first, as with `iconv -f ISO-8859-1 -t UTF-8`.") from error
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def _read(path: Path) -> list[str]:
    try:
        content = pathlib.Path(path).read_bytes()
    except FileNotFoundError as error:
        raise ValueError(f"there is no file {str(path)!r}.") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    return decoded_lines(content, str(path))


def _paired(source: Sequence[str], target: Sequence[str], name: str, wheres: tuple[str, str]) -> ParallelText:
    """The pairs, checked: equally many, none of them empty."""
    if len(source) != len(target):
        longer, shorter = wheres if len(source) > len(target) else wheres[::-1]
        raise ValueError(f"{wheres[0]} has {len(source)} lines and {wheres[1]} has {len(target)}; they must be equally "
                         f"many. Line {min(len(source), len(target)) + 1} of {longer} has no counterpart in {shorter}.")
    for lines, where in zip((source, target), wheres, strict=True):
        for number, line in enumerate(lines, 1):
            if not line.strip():
                raise ValueError(f"{where}, line {number} is empty. Drop such a line from both sides.")
    if not source:
        raise ValueError(f"{wheres[0]}: there is no sentence in it.")
    return ParallelText(tuple(source), tuple(target), name, Origin(*wheres))


def read_parallel(source_path: Path, target_path: Path, name: str | None = None) -> ParallelText:
    """Pairs from two UTF-8 files of one sentence a line.

    Args:
      name: for messages; that of the source's file without its ending if None.

    Raises:
      ValueError: naming file and line, if a file is missing, they are not equally long, a line is empty or not UTF-8.
    """
    return _paired(_read(source_path), _read(target_path), name or pathlib.Path(source_path).stem,
                   (str(source_path), str(target_path)))


def read_tsv(path: Path, name: str | None = None) -> ParallelText:
    """Pairs from a UTF-8 file of lines "source TAB target", without a header and without quotes.

    Raises:
      ValueError: naming the line, if it has not two columns, one is empty or it is not UTF-8; if the file is missing.
    """
    return _from_tsv(_read(path), str(path), name or pathlib.Path(path).stem)


def _from_tsv(lines: list[str], where: str, name: str) -> ParallelText:
    rows = [line.split("\t") for line in lines]
    for number, row in enumerate(rows, 1):
        if len(row) != 2:
            raise ValueError(f"{where}, line {number} should be a source, a tab and a target; it has {len(row)} "
                             f"column{'s' * (len(row) != 1)}: {lines[number - 1][:60]!r}.")
    return _paired([source for source, _ in rows], [target for _, target in rows], name,
                   (f"{where} (source)", f"{where} (target)"))


def read_splits(path: Path, source: str = "de", target: str = "en") -> TextSplits:
    """Splits from a folder of train, valid and test files, such as train.de and train.en.

    An `about.json` beside them, as `write_splits` leaves one, goes into the splits' `about`.

    Raises:
      ValueError: as `read_parallel`.
    """
    folder = pathlib.Path(path)
    if not folder.is_dir():
        raise ValueError(f"{str(path)!r} is no folder. Give one with {PARTS[0]}.{source}, {PARTS[0]}.{target} and the "
                         f"same of {PARTS[1]} and {PARTS[2]}.")
    train, dev, test = (read_parallel(folder / f"{part}.{source}", folder / f"{part}.{target}", part)
                        for part in PARTS)
    name, stored = folder.resolve().name, {}
    if (folder / "about.json").is_file():
        try:
            stored = dict(json.loads((folder / "about.json").read_bytes()))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{folder / 'about.json'} holds no JSON record: {error}") from error
    sizes = {"train": train.size, "dev": dev.size, "test": test.size}
    if any(stored.get(part, size) != size for part, size in sizes.items()):  # what it says of those is not of these
        stored = {key: value for key, value in stored.items() if key not in OF_SIZES}
    # What was read counts, whatever is stored about it.
    about = {"source": name, **stored, "languages": [source, target], **sizes}
    return TextSplits(train, dev, test, name, about)


def write_splits(splits: TextSplits, path: Path, source: str = "de", target: str = "en") -> None:
    """Writes the files that `read_splits` reads, to keep what was prepared.

    Raises:
      ValueError: for a sentence that would not come back: an empty one, or one with a line break.
    """
    folder = pathlib.Path(path)
    contents: dict[str, str] = {}
    for part, text in zip(PARTS, (splits.train, splits.dev, splits.test), strict=True):
        for language, lines in ((source, text.source), (target, text.target)):
            for number, line in enumerate(lines):
                if not line.strip() or "\n" in line or line.endswith("\r"):
                    raise ValueError(f"{part}.{language}: sentence {number} is empty or has a line break: {line!r}.")
            contents[f"{part}.{language}"] = "".join(f"{line}\n" for line in lines)
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in contents.items():
        (folder / file).write_bytes(content.encode())
    (folder / "about.json").write_text(json.dumps(splits.about, indent=2) + "\n")


def split_text(pool: ParallelText, dev_size: int, test_size: int, seed: int = 0) -> TextSplits:
    """Train, then dev, then test pairs from a permutation of `pool` drawn by `seed`.

    Raises:
      ValueError: if a part would be empty.
    """
    num_train = pool.size - dev_size - test_size
    if min(num_train, dev_size, test_size) < 1:
        raise ValueError(f"{pool.name} has {pool.size} pairs; dev_size={dev_size} and test_size={test_size} leave "
                         f"{num_train} to train on. Every part needs at least one.")
    order = np.random.default_rng(seed).permutation(pool.size)
    train, dev, test = (pool.take(part) for part in np.split(order, [num_train, num_train + dev_size]))
    about = {"source": pool.name, "split_seed": seed, "train": num_train, "dev": dev_size, "test": test_size}
    return TextSplits(train, dev, test, pool.name, about)


def embedded_help() -> ParallelText:
    """The 6,000 short German–English pairs inside the package: LibreOffice help texts (see `embedded/NOTICE.md`)."""
    resource = importlib.resources.files("tf_l2t.translation") / "embedded" / "libreoffice_help_de_en.tsv.gz"
    content = gzip.decompress(resource.read_bytes())
    return _from_tsv(decoded_lines(content, resource.name), resource.name, "libreoffice_help")


def fingerprint(splits: TextSplits) -> str:
    """A SHA-256 of every sentence in its place, for a run's manifest."""
    digest = hashlib.sha256()
    for part in (splits.train, splits.dev, splits.test):
        for lines in (part.source, part.target):
            # Lengths before the sentences: no two splits give the same bytes.
            digest.update(len(lines).to_bytes(8, "big"))
            for line in lines:
                content = line.encode("utf-8", "surrogatepass")
                digest.update(len(content).to_bytes(8, "big") + content)
    return digest.hexdigest()
