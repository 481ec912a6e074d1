"""IWSLT-14 German–English from its original archive, prepared as published.

Two preparations of the same archive are in use. They differ in the longest sentence that is kept: fairseq's 175 tokens,
and 50, after Ranzato et al. (Sequence Level Training with Recurrent Neural Networks), whose sizes are the ones that
L2T-DLF reports. Both: drop lines of metadata, strip tags, tokenize (Moses), clean, make lower case; every 23rd cleaned
pair is for dev; five held-out files in a row, never cleaned, are the test set.
"""

from __future__ import annotations

import pathlib
import re
import tarfile
import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tf_l2t.translation import moses
from tf_l2t.translation.text import Origin, ParallelText, TextSplits, decoded_lines

LANGUAGES = ("de", "en")
TRAIN_FILE = "train.tags.de-en.{language}"
TEST_FILES = tuple(f"IWSLT14.{part}.de-en.{{language}}.xml" for part in
                   ("TED.dev2010", "TEDX.dev2012", "TED.tst2010", "TED.tst2011", "TED.tst2012"))


class Variant(NamedTuple):
    """A published preparation: the longest sentence in tokens, and the numbers of pairs that it gives."""

    max_words: int
    train: int
    dev: int
    test: int


VARIANTS = {"fairseq": Variant(175, 160_239, 7_283, 6_750), "short": Variant(50, 153_326, 6_969, 6_750)}
# English tokens of the test set: `reflen` in logs of fairseq's scorer that stand in public repositories.
TEST_WORDS = (131_141, 131_156, 131_161)

_METADATA = ("<url>", "<talkid>", "<keywords>")
_TRAIN_TAGS = re.compile(r"</?(?:title|description)>")
_SEGMENT_START, _SEGMENT_END = re.compile(r'<seg id="[0-9]*">\s*'), re.compile(r"\s*</seg>\s*")
_DEV_EVERY = 23
_LONGEST_WORD = 1000  # characters; clean-corpus-n.perl drops pairs with longer ones whatever its arguments are


def iwslt14(path: str, variant: str = "fairseq", source: str = "de", target: str = "en") -> TextSplits:
    """IWSLT-14 de–en, tokenized and in lower case. It takes about half a minute; `write_splits` keeps it.

    `about` says which variant it is, what is published for it, and whether the numbers of pairs are the published ones
    (`matches_published`); so it does for the number of English tokens in the test set.

    Args:
      path: the archive de-en.tgz, a folder with it, the unpacked folder de-en or the folder around that.
      variant: "fairseq" (160,239 / 7,283 / 6,750 pairs) or "short" (153,326 / 6,969 / 6,750, L2T-DLF's).
      source, target: "de" and "en" or the other way round.

    Raises:
      ValueError: for another variant or language, if a file is missing, not UTF-8, or its two languages are not equally
        long.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant must be one of {sorted(VARIANTS)}; received {variant!r}.")
    if sorted((source, target)) != sorted(LANGUAGES):
        raise ValueError(f"source and target must be {LANGUAGES[0]!r} and {LANGUAGES[1]!r}, in either order; received "
                         f"{source!r} and {target!r}.")
    read, published = _reader(path), VARIANTS[variant]
    raw = [train_lines(read(TRAIN_FILE.format(language=language))) for language in (source, target)]
    _same_length(raw, TRAIN_FILE, (source, target))
    words = [moses.tokenized(lines, language) for lines, language in zip(raw, (source, target), strict=True)]
    kept = [[line.lower() for line in lines] for lines in clean(words[0], words[1], published.max_words)]
    (train_source, dev_source), (train_target, dev_target) = map(held_out, kept)
    train = ParallelText(tuple(train_source), tuple(train_target), "train", _origin(path, "train", source, target))
    dev = ParallelText(tuple(dev_source), tuple(dev_target), "valid", _origin(path, "dev", source, target))
    test = _test_set(read, source, target)._replace(origin=_origin(path, "test", source, target))
    sizes = {"train": train.size, "dev": dev.size, "test": test.size}
    english = sum(len(line.split()) for line in (test.target if target == "en" else test.source))
    about = {"source": "iwslt14", "languages": [source, target], **sizes, "variant": variant,
             "max_words": published.max_words, "tokenized": "moses", "lower": True,
             "published": published._asdict(), "matches_published": sizes == {k: getattr(published, k) for k in sizes},
             "test_words_en": english, "test_words_match_published": english in TEST_WORDS}
    return TextSplits(train, dev, test, f"iwslt14_{variant}", about)


def _origin(path: str, part: str, source: str, target: str) -> Origin:
    """Of prepared pairs, whose numbers are no lines of the archive's files."""
    of_source, of_target = (f"{path}, {part} pairs as prepared ({language})" for language in (source, target))
    return Origin(of_source, of_target, unit="pair")


def train_lines(lines: Sequence[str]) -> list[str]:
    """The sentences of a train file: lines of metadata dropped, the tags of titles and descriptions stripped."""
    return [_TRAIN_TAGS.sub("", line) for line in lines if not any(tag in line for tag in _METADATA)]


def segment_lines(lines: Sequence[str]) -> list[str]:
    """The sentences of a held-out XML file: its segments' text; typographic apostrophes become plain ones."""
    return [_SEGMENT_END.sub("", _SEGMENT_START.sub("", line)).replace("’", "'") for line in lines if "<seg id" in line]


def clean(source: Sequence[str], target: Sequence[str], max_words: int, min_words: int = 1,
          ratio: float = 1.5) -> tuple[list[str], list[str]]:
    """The tokenized pairs that `clean-corpus-n.perl -ratio RATIO … MIN MAX` keeps, white space made single.

    Dropped are pairs with a side of fewer than `min_words` or more than `max_words` words, with one side more than
    `ratio` times as long as the other, or with a word of more than 1,000 characters. (The original also removes "|", of
    which the tokenizer leaves none.)
    """
    kept: tuple[list[str], list[str]] = ([], [])
    for pair in zip(source, target, strict=True):
        words = [line.split() for line in pair]
        shorter, longer = sorted(map(len, words))
        # The original drops empty sides before it divides by their length.
        if (shorter >= max(min_words, 1) and longer <= max_words and longer / shorter <= ratio
                and all(len(word) <= _LONGEST_WORD for side in words for word in side)):
            for lines, side in zip(kept, words, strict=True):
                lines.append(" ".join(side))
    return kept


def held_out(lines: Sequence[str]) -> tuple[list[str], list[str]]:
    """(train, dev): the 23rd line, the 46th, … are for dev."""
    return [line for i, line in enumerate(lines, 1) if i % _DEV_EVERY], list(lines[_DEV_EVERY - 1::_DEV_EVERY])


def _test_set(read: Callable[[str], list[str]], source: str, target: str) -> ParallelText:
    sides: dict[str, list[str]] = {source: [], target: []}
    for file in TEST_FILES:
        parts = [segment_lines(read(file.format(language=language))) for language in sides]
        _same_length(parts, file, (source, target))
        for language, lines in zip(sides, parts, strict=True):
            sides[language] += [line.lower() for line in moses.tokenized(lines, language)]
    return ParallelText(tuple(sides[source]), tuple(sides[target]), "test")


def _same_length(sides: Sequence[Sequence[str]], file: str, languages: tuple[str, str]) -> None:
    if len(sides[0]) != len(sides[1]):
        names = [file.format(language=language) for language in languages]
        raise ValueError(f"{names[0]} has {len(sides[0])} sentences and {names[1]} has {len(sides[1])}; they must be "
                         "equally many. Is the archive complete?")


def _reader(path: str) -> Callable[[str], list[str]]:
    """A function from a file's name to its lines."""
    there = pathlib.Path(path)
    if there.is_file():
        return _archive_reader(there)
    for folder in (there, there / "de-en"):
        if (folder / TRAIN_FILE.format(language="de")).is_file():
            return _folder_reader(folder)
    if (there / "de-en.tgz").is_file():
        return _archive_reader(there / "de-en.tgz")
    raise ValueError(f"there is no IWSLT-14 archive de-en.tgz, and none of its files, such as "
                     f"{TRAIN_FILE.format(language='de')}, at {path!r}.")


def _folder_reader(folder: pathlib.Path) -> Callable[[str], list[str]]:
    def read(name: str) -> list[str]:
        if not (folder / name).is_file():
            raise ValueError(f"{folder} has no file {name}.")
        return decoded_lines((folder / name).read_bytes(), str(folder / name))

    return read


def _archive_reader(archive: pathlib.Path) -> Callable[[str], list[str]]:
    """Members are read under their exact names; nothing is unpacked to disk."""
    names = [file.format(language=language) for file in (TRAIN_FILE, *TEST_FILES) for language in LANGUAGES]
    wanted = {f"{before}{name}": name for name in names for before in ("de-en/", "./de-en/")}
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(archive) as members:
            for member in members:
                if member.isfile() and member.name in wanted:
                    extracted = members.extractfile(member)
                    contents[wanted[member.name]] = extracted.read() if extracted else b""
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{archive} is no readable tar archive: {error}") from error

    def read(name: str) -> list[str]:
        if name not in contents:
            raise ValueError(f"{archive} has no file de-en/{name}.")
        return decoded_lines(contents[name], f"{archive}: de-en/{name}")

    return read
