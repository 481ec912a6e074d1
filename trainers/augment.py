"""Writes TinyBERT's augmentation of a task's train.tsv: every example, and copies of it with other words.

    python -m trainers.augment --input DIR/train.tsv --output DIR/augmented.tsv --encoder ENCODER
    python -m trainers.augment --input DIR/train.tsv --output DIR/augmented.tsv --encoder ENCODER --vectors glove.txt

Words of one piece are replaced by the masked language model, if the encoder's weights have its head; others, and all
words without it, by neighbours among --vectors, or among the encoder's own embeddings.
"""

from __future__ import annotations

import pathlib
import sys

import numpy as np
from absl import app, flags, logging

INPUT = flags.DEFINE_string("input", None, "A file of label, tab, sentence, for pairs tab, sentence.", required=True)
OUTPUT = flags.DEFINE_string("output", None, "The new file.", required=True)
ENCODER = flags.DEFINE_string("encoder", None, "A directory of a BERT encoder.", required=True)
VECTORS = flags.DEFINE_string("vectors", None, "A file of word vectors, a word and its numbers a line.")
COPIES = flags.DEFINE_integer("copies", 20, "Copies of a sentence, at most.")
PROBABILITY = flags.DEFINE_float("probability", 0.4, "With which a word is replaced.")
CANDIDATES = flags.DEFINE_integer("num_candidates", 15, "From how many words.")
SEED = flags.DEFINE_integer("seed", 0, "Of the draws.")


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    try:
        if len(argv) > 1:
            raise ValueError(f"unexpected arguments {argv[1:]}; options begin with --.")
        count = augment(INPUT.value, OUTPUT.value, ENCODER.value, VECTORS.value, COPIES.value, CANDIDATES.value,
                        PROBABILITY.value, SEED.value)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{count} examples: {OUTPUT.value}")


def augment(source: str, target: str, encoder: str, vectors: str | None, copies: int, num_candidates: int,
            probability: float, seed: int) -> int:
    """Writes the file and returns how many examples it has.

    Raises:
      ValueError: for files that are not what they should be; for a target that is there.
    """
    from tf_l2t.text import WordVectors, augmented, load_encoder, load_masked_language_model, masked_candidates
    from tf_l2t.text.augmentation import embedding_vectors, neighbours
    from tf_l2t.text.tasks import read_rows

    file = pathlib.Path(target)
    if file.exists():
        raise ValueError(f"{target!r} is there already; name a new file.")
    rows = read_rows(pathlib.Path(source))
    near = neighbours(WordVectors.read(vectors) if vectors else embedding_vectors(load_encoder(encoder)))
    try:
        sources = [masked_candidates(*load_masked_language_model(encoder)), near]
    except ValueError as error:
        print(f"neighbours alone: {error}", file=sys.stderr)
        sources = [near]
    rng, lines = np.random.default_rng(seed), []
    for label, *sentences in rows:
        lines.append("\t".join([label, *sentences]))
        for i, sentence in enumerate(sentences):
            made = augmented(sentence, sources, rng, copies=copies, num_candidates=num_candidates,
                             probability=probability)
            lines += ["\t".join([label, *sentences[:i], new, *sentences[i + 1:]]) for new in made[1:]]
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
    partial.replace(file)
    return len(lines)


if __name__ == "__main__":
    app.run(main)
