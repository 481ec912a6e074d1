"""How long the first gradient takes: preflight, tracing and compiling, by student and HVP mode.

    python -m benchmarks.first_call

Every figure is of a process of its own. Rows go to docs/measured/first_call.json.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import sys
import time
from typing import Any

ROOT = pathlib.Path(__file__).parent.parent
MODES = ("forward_over_reverse", "reverse_over_reverse", "saved_residuals")
STUDENTS = ("mlp", "lenet", "resnet32")
BATCH, STEPS = 8, 4
KEY = ("student", "hvp")


def resnet32() -> Any:
    """The CIFAR ResNet of 32 layers: 3 stages of 5 blocks, 16/32/64 filters, 466,906 trained parameters."""
    import keras

    layers = keras.layers

    def convolved(x, filters, size, stride):
        x = layers.Conv2D(filters, size, stride, padding="same", use_bias=False, kernel_initializer="he_normal")(x)
        return layers.BatchNormalization()(x)

    inputs = layers.Input((32, 32, 3))
    x = layers.ReLU()(convolved(inputs, 16, 3, 1))
    for filters in (16, 32, 64):
        for block in range(5):
            stride = 2 if filters > 16 and block == 0 else 1
            y = convolved(layers.ReLU()(convolved(x, filters, 3, stride)), filters, 3, 1)
            x = convolved(x, filters, 1, stride) if stride == 2 else x
            x = layers.ReLU()(layers.add([x, y]))
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)), name="resnet32")


def measure(name: str, hvp: str) -> dict[str, Any]:
    """One row, from this process."""
    import numpy as np
    import tensorflow as tf

    import tf_l2t
    from tf_l2t.data import ArrayPair
    from tf_l2t.hypergradient import hypergradient, initial_state, sgd
    from tf_l2t.losses import taught_form
    from tf_l2t.objectives import relaxed_accuracy
    from tf_l2t.students import STUDENTS as KNOWN
    from tf_l2t.students import FunctionalStudent
    from tf_l2t.teachers import AttentionTeacher
    from tf_l2t.training.problem import classification_problem

    student_fn: Any = {**KNOWN, "resnet32": resnet32}[name]
    student = FunctionalStudent(student_fn)
    shape = student_fn().input_shape[1:]
    rng = np.random.default_rng(0)
    x, y = rng.uniform(size=(64, *shape)).astype(np.float32), np.arange(64) % 10
    start = time.perf_counter()
    tf_l2t.preflight(student_fn)
    preflight = time.perf_counter() - start
    teacher = AttentionTeacher(10, 13)
    problem = classification_problem(
        student, ArrayPair(x, y), ArrayPair(x, y), loss=taught_form(teacher.loss).per_example,
        objective=relaxed_accuracy, optimizer=sgd(0.01, momentum=0.9), num_steps=STEPS, batch_size=BATCH)
    run = hypergradient(problem, teacher, hvp=hvp, schedule="store_all")
    state = initial_state(problem, *student.init(0))
    seconds = []
    for seed in range(3):
        start = time.perf_counter()
        tf.nest.map_structure(lambda t: t.numpy(), run(state, seed).gradient)
        seconds.append(time.perf_counter() - start)
    assert run.choice is not None
    return {"student": name, "batch": BATCH, "steps": STEPS, "hvp": hvp, "jit": run.choice.jit,
            "preflight_s": round(preflight, 2), "compile_s": round(seconds[0] - min(seconds[1:]), 2),
            "seconds": round(min(seconds[1:]), 3), "command": "python -m benchmarks.first_call"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.first_call", description="Time to the first gradient.")
    parser.add_argument("--one", nargs=2, metavar=("STUDENT", "MODE"), help="print one row as JSON, record nothing")
    parser.add_argument("--output", default=str(ROOT / "docs" / "measured" / "first_call.json"))
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(measure(*chosen.one)))
        return
    rows = []
    for name in STUDENTS:
        for hvp in MODES:
            command = [sys.executable, "-m", "benchmarks.first_call", "--one", name, hvp]
            result = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
            rows.append(json.loads(result.stdout.splitlines()[-1]))
            print(rows[-1], flush=True)
    from tf_l2t.training.measured import record

    record(chosen.output, rows, key=KEY)


if __name__ == "__main__":
    main()
