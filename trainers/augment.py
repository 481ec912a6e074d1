"""Writes TinyBERT's augmentation of a task's train part: every example, and copies of it with other words.

    python -m trainers.augment --config configs/distill_text.py \\
        --config.data.path=REVIEWS --config.encoder=ENCODER --output REVIEWS/augmented.tsv
    python -m trainers.augment --config configs/prokt_glue.py:sst2-bert6 \\
        --config.data.path=TFDS --config.encoder=BERT12 --output augmented.tsv --vectors glove.txt

The train part is that of the config: where dev is taken from train, none of it is in the file, and a copy that is an
example of dev is left out. Words of one piece
are replaced by the masked language model, if the encoder's weights have its head; others, and all words without it, by
neighbours among --vectors, or among the encoder's own embeddings.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Sequence, Set

import ml_collections
import numpy as np
from absl import flags, logging

from tf_l2t.files import write_whole
from tf_l2t.text import Examples
from tf_l2t.training.pace import every_few_seconds, tell
from trainers import command

OUTPUT = flags.DEFINE_string("output", None, "The new file, for config.data.augmented.", required=True)
VECTORS = flags.DEFINE_string("vectors", None, "A file of word vectors, a word and its numbers a line.")
COPIES = flags.DEFINE_integer("copies", 20, "Copies of a sentence, at most.")
PROBABILITY = flags.DEFINE_float("probability", 0.4, "With which a word is replaced.")
CANDIDATES = flags.DEFINE_integer("num_candidates", 15, "From how many words.")


def prepare(config: ml_collections.ConfigDict, workdir: str) -> Callable[[], None]:
    from tf_l2t.text.augmentation import check_augmentation  # these packages take a second to import
    from trainers import text

    if workdir:
        raise ValueError("augment takes --output in place of --workdir.")
    check_augmentation(COPIES.value, CANDIDATES.value, PROBABILITY.value)
    check_target(pathlib.Path(OUTPUT.value))
    task = text.load_text(command.changed(config, [("data.augmented", "")])).task

    def work() -> None:
        with command.refusals():
            count = augment(task.train, task.labels, OUTPUT.value, config.encoder, VECTORS.value, COPIES.value,
                            CANDIDATES.value, PROBABILITY.value, config.seed, text.held_out(task),
                            command.VERBOSE.value)
        command.result(f"{count} examples: {OUTPUT.value}", examples=count, output=OUTPUT.value)

    return work


def check_target(file: pathlib.Path) -> None:
    """Raises ValueError unless a new file can be made there."""
    if file.exists():
        raise ValueError(f"{str(file)!r} is there already; name a new file.")
    if not file.parent.is_dir() or not os.access(file.parent, os.W_OK):
        raise ValueError(f"{str(file.parent)!r} is no directory that can be written to; name a file in another.")


def augment(examples: Examples, labels: Sequence[str], target: str, encoder: str, vectors: str | None, copies: int,
            num_candidates: int, probability: float, seed: int, left_out: Set[tuple[str, ...]] = frozenset(),
            verbose: int = 0) -> int:
    """Writes the file and returns how many examples it has.

    Tabs and line ends within a sentence are spaces in it. Examples with an empty sentence, which no reader takes, are
    left out, with a warning; so are copies in `left_out`, the sentences of examples, words apart by one space.

    Raises:
      ValueError: for files that are not what they should be; for a target that is there.
    """
    from tf_l2t.text import WordVectors, augmented, load_encoder, load_masked_language_model, masked_candidates
    from tf_l2t.text.augmentation import MASKED_LENGTH, embedding_vectors, neighbours

    file = pathlib.Path(target)
    check_target(file)
    found = load_encoder(encoder)
    near = neighbours(WordVectors.read(vectors) if vectors else embedding_vectors(found))
    try:
        length = min(MASKED_LENGTH, found.backbone.max_sequence_length)
        sources = [masked_candidates(*load_masked_language_model(encoder), length=length), near]
    except ValueError as error:
        logging.warning("neighbours alone: %s", error)
        sources = [near]
    rng, lines, empty = np.random.default_rng(seed), list[str](), 0
    columns = [examples.first, *([] if examples.second is None else [examples.second])]
    say = every_few_seconds(lambda done, total, left: tell({"examples": done, "total": total}, verbose, left))
    for done, (number, *sentences) in enumerate(zip(examples.labels, *columns, strict=True), start=1):
        label, sentences = labels[number], [" ".join(sentence.split()) for sentence in sentences]
        if not all(sentences):
            empty += 1
            continue
        lines.append("\t".join([label, *sentences]))
        for i, sentence in enumerate(sentences):
            made = augmented(sentence, sources, rng, copies=copies, num_candidates=num_candidates,
                             probability=probability)
            copied = [(*sentences[:i], " ".join(new.split()), *sentences[i + 1:]) for new in made[1:]]
            lines += ["\t".join([label, *copy]) for copy in copied if copy not in left_out]
        say(done, len(examples.labels))
    if empty:
        logging.warning("%d examples with an empty sentence are left out.", empty)
    write_whole(file, lambda partial: partial.write_text("\n".join(lines) + "\n", encoding="utf-8"))
    return len(lines)


if __name__ == "__main__":
    command.main(prepare, ("text_distillation",))
