"""Translation data sets that tensorflow-datasets has prepared on local disk, and its folders of text files."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from tf_l2t.translation.text import Origin, ParallelText, TextSplits, read_parallel

FOLDER = "translate_folder"
_DEV_NAMES = ("validation", "valid", "dev")


def read_translation_tfds(name: str, data_dir: str | None = None, pair: tuple[str, str] = ("de", "en")) -> TextSplits:
    """The sentence pairs of a translation data set, in the order that it is stored in. Nothing is downloaded.

    Args:
      name: "ted_multi_translate", any other data set whose examples are `Translation` or
        `TranslationVariableLanguages`, or "translate_folder": the folder `data_dir` of files LANGUAGE.SPLIT.txt
        (`tfds.folder_dataset.TranslateFolder`).
      data_dir: where it was prepared; None for the default of tensorflow-datasets.
      pair: source and target language. Examples that lack one of the two are left out; `about` counts them.

    Raises:
      ValueError: if it is not there (the message says which command prepares it), lacks a split or a language, or
        has a sentence with a line break in it; of a folder as `read_parallel`.
    """
    if len(pair) != 2 or pair[0] == pair[1]:
        raise ValueError(f"pair must be two languages; received {pair!r}.")
    splits: Mapping[str, Any] = _folder_files(data_dir) if name == FOLDER else _prepared_examples(name, data_dir)
    dev = next((dev for dev in _DEV_NAMES if dev in splits), _DEV_NAMES[0])
    missing = [split for split in ("train", dev, "test") if split not in splits]
    if missing:
        raise ValueError(f"{name} has the splits {sorted(splits)}, but not {missing}.")
    parts, without = {}, 0
    for part, split in (("train", "train"), ("dev", dev), ("test", "test")):
        where = f"{name} ({split})"
        parts[part], lacking = (_of_files if name == FOLDER else _pairs)(splits[split], pair, where)
        without += lacking
    about = {"source": name, "languages": list(pair), **{part: text.size for part, text in parts.items()},
             "without_pair": without}
    return TextSplits(parts["train"], parts["dev"], parts["test"], name, about)


def _prepared_examples(name: str, data_dir: str | None) -> dict[str, Iterable[Mapping[str, Any]]]:
    """The examples of every split."""
    import tensorflow_datasets as tfds

    try:
        info = tfds.builder(name, data_dir=data_dir).info
        names = list(info.splits)
        if not names:
            raise FileNotFoundError(f"{info.full_name} has no splits: its builder is here, and its data is not")
        if info.file_format is tfds.core.FileFormat.ARRAY_RECORD:
            parts = [tfds.data_source(name, split=split, data_dir=data_dir, download=False) for split in names]
        else:
            # Several shards would otherwise be read in turns.
            order = tfds.ReadConfig(interleave_cycle_length=1)
            parts = [tfds.as_numpy(tfds.load(name, split=split, data_dir=data_dir, download=False, read_config=order))
                     for split in names]
    except (AssertionError, FileNotFoundError, tfds.core.DatasetNotFoundError) as error:
        where = f" in {data_dir!r}" if data_dir else ""
        option = f" --data_dir={data_dir}" if data_dir else ""
        raise ValueError(f"tensorflow-datasets has no prepared {name}{where}. Prepare it with `tfds build {name}"
                         f"{option}`, or give the path of parallel files.") from error
    return dict(zip(names, parts, strict=True))


def _folder_files(data_dir: str | None) -> dict[str, dict[str, pathlib.Path]]:
    """The files of every split by language.

    They are read as other parallel files are: `tfds.folder_dataset.TranslateFolder` ends lines at U+2028 and the like,
    too, after which other sentences would stand side by side.
    """
    if data_dir is None or not pathlib.Path(data_dir).is_dir():
        raise ValueError(f"{FOLDER} needs data_dir to be a folder of files LANGUAGE.SPLIT.txt, such as de.train.txt; "
                         f"received {data_dir!r}.")
    found: dict[str, dict[str, pathlib.Path]] = {}
    for file in sorted(pathlib.Path(data_dir).iterdir()):
        language, *rest = file.name.split(".")
        if len(rest) != 2 or rest[1] != "txt":
            raise ValueError(f"{data_dir!r} must hold nothing but files LANGUAGE.SPLIT.txt; received {file.name!r}.")
        found.setdefault(rest[0], {})[language] = file
    return found


def _of_files(files: Mapping[str, pathlib.Path], pair: tuple[str, str], where: str) -> tuple[ParallelText, int]:
    if not set(pair) <= set(files):
        raise ValueError(f"{where} has no pair of {pair}; its languages are {sorted(files)}.")
    return read_parallel(files[pair[0]], files[pair[1]], where), 0


def _pairs(examples: Iterable[Mapping[str, Any]], pair: tuple[str, str], where: str) -> tuple[ParallelText, int]:
    """The pairs, and how many examples lack one of the two languages."""
    source, target, numbers, languages = [], [], [], set()
    number = 0
    for number, example in enumerate(examples, 1):
        sentences = _sentences(example)
        languages |= set(sentences)
        both = [sentences.get(language, "") for language in pair]
        if all(sentence.strip() for sentence in both):
            for language, sentence in zip(pair, both, strict=True):
                if "\n" in sentence:
                    raise ValueError(f"{where} ({language}), example {number} has a line break in its sentence: "
                                     f"{sentence[:60]!r}. Prepare the data set without it.")
            source.append(both[0])
            target.append(both[1])
            numbers.append(number)
    if not source:
        raise ValueError(f"{where} has no pair of {pair}; its languages are {sorted(languages)}.")
    origin = Origin(f"{where} ({pair[0]})", f"{where} ({pair[1]})", tuple(numbers), "example")
    return ParallelText(tuple(source), tuple(target), where, origin), number - len(numbers)


def _sentences(example: Mapping[str, Any]) -> dict[str, str]:
    """Language to sentence, of either of the two features that tensorflow-datasets has for translations."""
    example = example.get("translations", example.get("translation", example))
    if set(example) == {"language", "translation"}:
        languages, texts = ([_text(value) for value in example[key]] for key in ("language", "translation"))
        # A language may come twice; the first is taken.
        return dict(reversed(list(zip(languages, texts, strict=True))))
    return {language: _text(value) for language, value in example.items() if isinstance(value, bytes | str)}


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
