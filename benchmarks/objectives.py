"""How well the objectives of a translation teacher rank students: their values beside greedy BLEU on the same pairs.

    python -m benchmarks.objectives --data DIR runs/lstm1/kept/*

The directories are translators of `trainers.train_student`; with --config.training.keep_every=1 a run keeps one of
every look. Rows go to docs/measured/objectives.json.
"""

from __future__ import annotations

import argparse
import pathlib
from typing import Any

ROOT = pathlib.Path(__file__).parent.parent
KEY = ("data", "run", "model", "dev_pairs", "max_length")


def spearman(x: list[float], y: list[float]) -> float:
    """Pearson's correlation of ranks; equal values share the mean of theirs."""
    import numpy as np

    ranks = []
    for values in (np.array(x), np.array(y)):
        less, equal = (compare(values[:, None], values[None]).sum(axis=1) for compare in (np.greater, np.equal))
        ranks.append(less + (equal - 1) / 2)
    return float(np.corrcoef(ranks)[0, 1])


def measure(path: str, dev: Any, max_length: int) -> dict[str, float]:
    """Greedy BLEU, detokenized, of one translator, and every objective, of pairs cut after `max_length` subwords as a
    teacher's dev pairs are."""
    import tensorflow as tf

    from tf_l2t.students import FunctionalTranslator
    from tf_l2t.training.translation_objectives import OBJECTIVES, objective_of
    from tf_l2t.translation import encode_pairs, load_translator, report_bleu

    translator = load_translator(path, beam_size=1)
    model = translator.model
    encoded = encode_pairs(translator.subwords, dev, max_length, too_long="truncate")
    student = FunctionalTranslator(lambda: type(model).from_config(model.get_config()))
    params, non_trainable = (tuple(tf.convert_to_tensor(w) for w in weights) for weights in
                             (model.trainable_variables, model.non_trainable_variables))
    found = {"bleu": report_bleu(translator(dev.source), dev.target).score}
    for name in OBJECTIVES:
        value = tf.function(objective_of(student, encoded, name), autograph=False)
        found[name] = float(value(params, non_trainable))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.objectives", description="Objectives beside BLEU.")
    parser.add_argument("models", nargs="+", help="directories of translators")
    parser.add_argument("--data", required=True, help="a folder with valid.de, valid.en, ...")
    parser.add_argument("--dev_size", type=int, default=500)
    parser.add_argument("--max_length", type=int, default=50, help="of pairs, as data.max_length")
    parser.add_argument("--output", default=str(ROOT / "docs" / "measured" / "objectives.json"))
    chosen = parser.parse_args()
    from tf_l2t.garbage import graphs_gone_afterwards
    from tf_l2t.training.measured import record
    from tf_l2t.translation import read_splits
    from trainers.command import command_line
    from trainers.translation import sample

    text = read_splits(chosen.data)
    dev = sample(text.dev, chosen.dev_size)
    rows: list[dict[str, Any]] = []
    for path in chosen.models:
        with graphs_gone_afterwards():
            figures = {name: round(value, 5) for name, value in measure(path, dev, chosen.max_length).items()}
        folder = pathlib.Path(path)
        rows.append({"data": text.name, "run": str(folder.parent), "model": folder.name, "dev_pairs": dev.size,
                     "max_length": chosen.max_length, **figures, "command": command_line()})
        print(rows[-1], flush=True)
    names = [name for name in figures if name != "bleu"]
    bleu = [row["bleu"] for row in rows]
    correlations = {name: round(spearman([row[name] for row in rows], bleu), 3) for name in names}
    print({"rank correlation with bleu": correlations})
    record(chosen.output, rows, key=KEY)


if __name__ == "__main__":
    main()
