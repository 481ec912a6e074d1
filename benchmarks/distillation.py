"""What a step of ProKT costs beside its parts: one step of the teacher, one of the student, two forward passes.

    python -m benchmarks.distillation

All are compiled, and measured in turn on the same batch; medians. Rows go to docs/measured/distillation_cost.json.
"""

from __future__ import annotations

import argparse
import functools
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

ROOT = pathlib.Path(__file__).parent.parent
KEY = ("teacher", "student")
PAIRS = (("resnet20", "resnet8"), ("resnet20", "mlp"), ("bert6", "bilstm"), ("bert6", "bert2"))
IMAGES, SENTENCES, LENGTH, VOCABULARY = 64, 32, 40, 8000


def network(name: str) -> Any:
    import keras_nlp

    from tf_l2t.students import STUDENTS, bert_classifier, bilstm

    if name == "bilstm":
        return bilstm(VOCABULARY)
    if name.startswith("bert"):  # of the width of MiniLM
        backbone = keras_nlp.models.BertBackbone(VOCABULARY, int(name.removeprefix("bert")), 12, 384, 1536)
        return bert_classifier(backbone)
    return STUDENTS[name](num_classes=10, input_shape=(32, 32, 3))


def batch(name: str) -> tuple[Any, Any]:
    import tensorflow as tf

    rng = np.random.default_rng(0)
    if name.startswith("bert"):
        tokens = rng.integers(1000, VOCABULARY, (SENTENCES, LENGTH)).astype(np.int32)
        tokens[:, 0], tokens[:, -1] = 101, 102
        return tf.constant(tokens), tf.constant(rng.integers(0, 2, SENTENCES))
    return tf.constant(rng.standard_normal((IMAGES, 32, 32, 3)), tf.float32), tf.constant(rng.integers(0, 10, IMAGES))


def measure(teacher: str, student: str, repetitions: int) -> dict[str, Any]:
    """Milliseconds of a step of ProKT and of its parts."""
    import keras
    import tensorflow as tf

    from tf_l2t.distillation import DistillationTrainer

    x, y = batch(teacher)
    work: dict[str, Callable[[], Any]] = {}
    together = DistillationTrainer(network(student), network(teacher), "prokt")
    together.compile(keras.optimizers.Adam(1e-4), keras.optimizers.Adam(1e-4))
    trainers = {"prokt": together}
    for part, name in (("teacher", teacher), ("student", student)):
        trainers[part] = DistillationTrainer(network(name), None, "none")
        trainers[part].compile(keras.optimizers.Adam(1e-4))
    for part, trainer in trainers.items():
        work[part] = _step(trainer, x, y)
    for part in ("teacher", "student"):
        work[f"{part} forward"] = functools.partial(tf.function(trainers[part].student), x, training=False)
    ms = {part: statistics.median(values) for part, values in in_turn(work, repetitions).items()}
    parts = sum(value for part, value in ms.items() if part != "prokt")
    return {"teacher": teacher, "student": student, "repetitions": repetitions,
            **{f"{part.replace(' ', '_')}_ms": round(value, 2) for part, value in ms.items()},
            "parts_ms": round(parts, 2), "ratio": round(ms["prokt"] / parts, 3)}


def in_turn(work: dict[str, Callable[[], Any]], repetitions: int) -> dict[str, list[float]]:
    """Milliseconds of every call, until its tensors are there; the calls in turn, so that whatever else the machine
    does slows all of them."""
    import tensorflow as tf

    times: dict[str, list[float]] = {name: [] for name in work}
    for repetition in range(repetitions + 2):  # the first compile
        for name, run in work.items():
            start = time.perf_counter()
            tf.nest.map_structure(lambda t: t.numpy(), run())
            if repetition > 1:
                times[name].append((time.perf_counter() - start) * 1000)
    return times


def _step(trainer: Any, x: Any, y: Any) -> Callable[[], Any]:
    import tensorflow as tf

    step = tf.function(lambda x, y: trainer.train_step((x, y)))
    return lambda: step(x, y)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.distillation", description="Cost of ProKT's step.")
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--output", default=str(ROOT / "docs" / "measured" / "distillation_cost.json"))
    chosen = parser.parse_args()
    from tf_l2t.training.measured import record

    for teacher, student in PAIRS:
        row = measure(teacher, student, chosen.repetitions)
        print(row, flush=True)
        record(chosen.output, [{**row, "command": "python -m benchmarks.distillation"}], KEY)


if __name__ == "__main__":
    main()
