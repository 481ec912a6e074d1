"""What a teacher costs in `fit`: `TaughtStudent.fit` beside Keras's own `fit` with cross entropy, in turn.

    python -m benchmarks.fit

Rows go to docs/measured/fit.json.
"""

from __future__ import annotations

import argparse
import pathlib
import statistics
import time
from typing import Any

ROOT = pathlib.Path(__file__).parent.parent
# Student, batch, epochs of a repetition: so many that each holds several refreshes of the status.
SETTINGS = (("mlp", 20, 4), ("lenet", 500, 25))
NUM_EXAMPLES, REFRESH_EVERY = 4000, 50
KEY = ("student", "batch", "jit", "loss")


def models(name: str, steps: int) -> dict[str, Any]:
    """The same student twice: under cross entropy, and under a teacher."""
    import keras

    from tf_l2t.data import mnist_5k
    from tf_l2t.students import STUDENTS
    from tf_l2t.teachers import AttentionTeacher
    from tf_l2t.training import TaughtStudent

    dev = mnist_5k(dev_size=500, test_size=500, seed=0).dev
    keras.utils.set_random_seed(0)
    teacher = AttentionTeacher(num_classes=10, num_features=13)
    student_fn: Any = STUDENTS[name]
    return {"cross_entropy": student_fn(),
            "taught": TaughtStudent(student_fn(), teacher, (dev.x, dev.y), num_steps=steps,
                                    refresh_every=REFRESH_EVERY)}


def measure(name: str, batch: int, epochs: int, jit: bool, repetitions: int) -> list[dict[str, Any]]:
    """One student's rows: milliseconds per step of `fit`, data handling and metrics included."""
    import keras

    from tf_l2t.data import mnist_5k

    train = mnist_5k(dev_size=500, test_size=500, seed=0).train
    x, y = train.x[:NUM_EXAMPLES], train.y[:NUM_EXAMPLES]
    per_epoch = -(-len(x) // batch)
    both = models(name, per_epoch * epochs * (repetitions + 1))
    for loss, model in both.items():
        how = {"loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True)} if loss == "cross_entropy" else {}
        model.compile(keras.optimizers.SGD(0.01, momentum=0.9), metrics=["accuracy"], jit_compile=jit, **how)
        model.fit(x, y, batch_size=batch, epochs=1, verbose=0)  # traces and compiles
    times: dict[str, list[float]] = {loss: [] for loss in both}
    for _ in range(repetitions):
        for loss, model in both.items():
            start = time.perf_counter()
            model.fit(x, y, batch_size=batch, epochs=epochs, verbose=0)
            times[loss].append((time.perf_counter() - start) * 1000 / (per_epoch * epochs))
    return [{"student": name, "batch": batch, "jit": jit, "loss": loss, "refresh_every": REFRESH_EVERY,
             "ms_per_step": round(statistics.median(seconds), 4), "ms_min": round(min(seconds), 4),
             "ms_max": round(max(seconds), 4), "repetitions": repetitions, "command": "python -m benchmarks.fit"}
            for loss, seconds in times.items()]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fit", description="What a teacher costs in fit.")
    parser.add_argument("--repetitions", type=int, default=11)
    parser.add_argument("--output", default=str(ROOT / "docs" / "measured" / "fit.json"))
    chosen = parser.parse_args()
    from tf_l2t.training.measured import record

    rows = []
    for name, batch, epochs in SETTINGS:
        # XLA's convolutions on a CPU take tens of times longer, for both.
        for jit in (True, False) if name == "mlp" else (False,):
            rows += measure(name, batch, epochs, jit, chosen.repetitions)
            print(*rows[-2:], sep="\n", flush=True)
    record(chosen.output, rows, key=KEY)


if __name__ == "__main__":
    main()
