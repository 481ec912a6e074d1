"""Moses' tokenization, in which IWSLT-14 is published, and its way back to plain text."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from typing import Any

_FINAL_DOT = re.compile(r"(?<=[^\s.])\.$")


@functools.cache
def _tokenizer(language: str) -> Any:
    import sacremoses

    return sacremoses.MosesTokenizer(language)


@functools.cache
def _detokenizer(language: str) -> Any:
    import sacremoses

    return sacremoses.MosesDetokenizer(language)


def tokenized(lines: Iterable[str], language: str) -> list[str]:
    """Every line as tokens between single spaces, as `tokenizer.perl -l LANGUAGE` gives them.

    Special characters are escaped, as there by default: "'" is "&apos;". The final full stop is a token of its own
    even after an abbreviation or a single letter, as in Moses since November 2018 (sacremoses keeps it). Chinese
    characters, which Moses keeps together, are split one by one.
    """
    tokenize = _tokenizer(language).tokenize
    return [_FINAL_DOT.sub(" .", tokenize(line, return_str=True).rstrip()) for line in lines]


def detokenized(lines: Iterable[str], language: str) -> list[str]:
    """Plain text of tokenized lines, escapes undone, as sacrebleu's default tokenizer wants it."""
    detokenize = _detokenizer(language).detokenize
    return [detokenize(line.split()) for line in lines]
