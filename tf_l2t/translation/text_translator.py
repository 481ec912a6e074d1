"""From lines of text to lines of text: a student, its subwords and how to decode, as one thing on disk."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_l2t.files import write_whole
from tf_l2t.students import Translator, load_network
from tf_l2t.translation import moses
from tf_l2t.translation.batches import EncodedText, encode_pairs, eval_batches
from tf_l2t.translation.decoding import beam_search, greedy, length_limits
from tf_l2t.translation.subwords import UNK, Subwords
from tf_l2t.translation.text import ParallelText

STUDENT, SUBWORDS, DECODING, FORM = "student.keras", "subwords.model", "decoding.json", "text.json"


class TextForm(NamedTuple):
    """How the text is written that a student was trained on.

    Attributes:
      source, target: languages, as two letters.
      tokenized: "moses", or "" for plain text.
      lower: whether it is in lower case, beside what subwords do by themselves.
    """

    source: str = ""
    target: str = ""
    tokenized: str = ""
    lower: bool = False

    def of_plain(self, lines: Sequence[str]) -> list[str]:
        """Plain source lines in this form."""
        found = moses.tokenized(lines, self.source) if self.tokenized else list(lines)
        return [line.lower() for line in found] if self.lower else found

    def to_plain(self, lines: Sequence[str]) -> list[str]:
        """Target lines of this form as plain text; what is in lower case stays so."""
        return moses.detokenized(lines, self.target) if self.tokenized else list(lines)


class Decoding(NamedTuple):
    """How lines are translated.

    Attributes:
      beam_size: 1 for greedy decoding.
      length_penalty: of `beam_search`.
      longest: subwords of a source line, its end included; longer lines are cut.
      batch_size: lines at a time.
    """

    beam_size: int = 5
    length_penalty: float = 1.0
    longest: int = 200
    batch_size: int = 64


class TextTranslator:
    """Translates lines: `TextTranslator(model, subwords)(["Guten Morgen."])`.

    Lines are sorted by length and decoded in batches, by a function that is compiled once; for a student with
    `unroll`, once a width. A line's translation does not depend on the others; that of a line without any word is
    empty.

    Args:
      model: the student; its weights are read anew at every call.
      subwords: its vocabulary.
      decoding: how.
      form: of the text that the student was trained on, which lines are in, too; see `translate_plain`.

    Raises:
      ValueError: if the vocabulary is not of the model's size, or a number is out of range.
    """

    def __init__(self, model: Translator, subwords: Subwords, decoding: Decoding = Decoding(),  # noqa: B008
                 form: TextForm = TextForm()):  # noqa: B008
        if model.vocabulary_size != subwords.size:
            raise ValueError(f"the student has a vocabulary of {model.vocabulary_size}, the subwords are "
                             f"{subwords.size}; they must be those that it was trained with.")
        whole = (decoding.beam_size, decoding.batch_size, decoding.longest)
        if not all(isinstance(number, int) for number in whole) or min(whole) < 1 or decoding.longest < 2 \
                or not isinstance(decoding.length_penalty, int | float) or not decoding.length_penalty >= 0:
            raise ValueError("beam_size and batch_size must be at least 1, longest at least 2 and length_penalty at "
                             f"least 0; received {decoding}.")
        self.model, self.subwords, self.decoding, self.form = model, subwords, decoding, form
        any_width = tf.TensorSpec([decoding.batch_size, None], tf.int32)
        self._decode = tf.function(self._decoded, input_signature=None if model.unroll else [any_width],
                                   autograph=False)

    def _decoded(self, source: tf.Tensor) -> tf.Tensor:
        how, limits = self.decoding, length_limits(source)
        if how.beam_size == 1:
            return greedy(self.model, source, limits)
        return beam_search(self.model, source, limits, how.beam_size, how.length_penalty).tokens[:, 0]

    def __call__(self, lines: Sequence[str], progress: Callable[[int, int], None] | None = None) -> list[str]:
        """The lines' translations, in their order.

        Args:
          lines: text.
          progress: hears after every batch how many lines are translated, and of how many.

        Raises:
          ValueError: for one string, or for lines that are no strings.
        """
        if isinstance(lines, str):
            raise ValueError("lines must be several lines of text; received one string. Pass a list of lines.")
        lines = list(lines)
        wrong = next((line for line in lines if not isinstance(line, str)), None)
        if wrong is not None or None in lines:
            raise ValueError(f"lines must be strings; one of them is {wrong!r}.")
        spoken = [line for line in lines if line.strip()]
        if not spoken:
            return [""] * len(lines)
        text = ParallelText(tuple(spoken), tuple(spoken), "lines to translate")
        encoded = encode_pairs(self.subwords, text, self.decoding.longest, too_long="truncate")
        found = iter(self.tokens(encoded, progress))
        return [self.subwords.decode(next(found)) if line.strip() else "" for line in lines]

    def translate_plain(self, lines: Sequence[str], progress: Callable[[int, int], None] | None = None) -> list[str]:
        """As a call, from plain text to plain text, whatever `form` the student's own is in."""
        return self.form.to_plain(self(self.form.of_plain(lines), progress))

    def unknown(self, lines: Sequence[str]) -> list[int]:
        """The places, from 0, of lines with characters that the vocabulary does not hold."""
        return [i for i, ids in enumerate(self.subwords.encode_lines(lines)) if UNK in ids]

    def cut(self, lines: Sequence[str]) -> list[int]:
        """The places, from 0, of lines that with their end are longer than `decoding.longest`: they are cut."""
        return [i for i, ids in enumerate(self.subwords.encode_lines(lines)) if len(ids) >= self.decoding.longest]

    def tokens(self, encoded: EncodedText, progress: Callable[[int, int], None] | None = None) -> list[np.ndarray]:
        """The translations' ids, in the order of the pairs, of which the targets are not looked at."""
        found: list[Any] = [None] * encoded.size
        done = 0
        for batch in eval_batches(encoded, self.decoding.batch_size):
            decoded = self._decode(batch.tokens.source).numpy()
            for row, index in enumerate(batch.indices):
                found[index] = decoded[row]
            done += len(batch.indices)
            if progress:
                progress(done, encoded.size)
        return found

    def save(self, path: str | os.PathLike[str]) -> pathlib.Path:
        """Writes student, subwords, decoding and form into the directory `path`, each file whole or not at all."""
        folder = pathlib.Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / STUDENT, self.model.save)
        write_whole(folder / SUBWORDS, self.subwords.save)
        write_whole(folder / DECODING, lambda file: file.write_text(json.dumps(self.decoding._asdict()) + "\n"))
        write_whole(folder / FORM, lambda file: file.write_text(json.dumps(self.form._asdict()) + "\n"))
        return folder


def load_translator(path: str | os.PathLike[str], **decoding: Any) -> TextTranslator:
    """What `TextTranslator.save` wrote, ready to translate.

    Args:
      path: the directory.
      **decoding: fields of `Decoding` that are to differ from those saved.

    Raises:
      ValueError: if a file is missing, damaged or of another translator, or a field unknown.
    """
    folder = pathlib.Path(path)
    missing = [name for name in (STUDENT, SUBWORDS, DECODING, FORM) if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"{str(path)!r} is no saved translator: it has no {', '.join(missing)}. Give the directory "
                         "best/ or last/ that trainers.train_student wrote.")
    try:
        saved = json.loads((folder / DECODING).read_text())
        Decoding(**saved)
    except (TypeError, ValueError, OSError, RecursionError) as error:
        raise ValueError(f"{folder / DECODING} says not how to decode: {error}") from error
    try:
        form = TextForm(**json.loads((folder / FORM).read_text()))
    except (TypeError, ValueError, OSError, RecursionError) as error:
        raise ValueError(f"{folder / FORM} says not how text is written: {error}") from error
    if form.tokenized not in ("", "moses") or not isinstance(form.lower, bool) \
            or not all(isinstance(language, str) for language in (form.source, form.target)):
        raise ValueError(f"{folder / FORM} says not how text is written: {form}.")
    if unknown := sorted(set(decoding) - set(Decoding._fields)):
        raise ValueError(f"decoding has the fields {Decoding._fields}; received {unknown}.")
    model = load_network(folder / STUDENT)
    if not isinstance(model, Translator):
        raise ValueError(f"{folder / STUDENT} holds a {type(model).__name__}, which is no translation student.")
    subwords = Subwords.load(folder / SUBWORDS)
    if model.vocabulary_size != subwords.size:
        raise ValueError(f"{folder / SUBWORDS} holds {subwords.size} subwords, and the student in {folder / STUDENT} "
                         f"has a vocabulary of {model.vocabulary_size}: the files are not of one translator.")
    return TextTranslator(model, subwords, Decoding(**{**saved, **decoding}), form)
