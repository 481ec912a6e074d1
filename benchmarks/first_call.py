"""What the first gradient takes: preflight, tracing and compiling, and memory, by student and HVP mode.

    python -m benchmarks.first_call
    python -m benchmarks.first_call --students densenet_bc_100_12 --modes forward_over_reverse

Every figure is of a process of its own. Rows go to docs/measured/first_call.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import pathlib
import subprocess
import sys
import time
from typing import Any

from benchmarks.memory import repeated

ROOT = pathlib.Path(__file__).parent.parent
MODES = ("forward_over_reverse", "reverse_over_reverse", "saved_residuals")
STUDENTS = ("mlp", "lenet", "resnet32", "densenet_bc_100_12", "wrn_40_10", "densenet_bc_190_40")
LARGE = STUDENTS[3:]  # measured in the first mode alone, unless others are asked for
BATCH, DEV, STEPS = 8, 64, 4
# A batch of so many, as many dev images, and no preflight, which runs out of 24 GB.
SMALL = {"densenet_bc_190_40": 2}
KEY = ("student", "hvp")


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

    student_fn, batch, dev = KNOWN[name], SMALL.get(name, BATCH), SMALL.get(name, DEV)
    student = FunctionalStudent(student_fn)
    shape = student_fn().input_shape[1:]
    rng = np.random.default_rng(0)
    x, y = rng.uniform(size=(DEV, *shape)).astype(np.float32), np.arange(DEV) % 10
    teacher = AttentionTeacher(10, 13)
    problem = classification_problem(
        student, ArrayPair(x, y), ArrayPair(x[:dev], y[:dev]), loss=taught_form(teacher.loss).per_example,
        objective=relaxed_accuracy, optimizer=sgd(0.01, momentum=0.9), num_steps=STEPS, batch_size=batch)
    run = hypergradient(problem, teacher, hvp=hvp, schedule="store_all")
    state = initial_state(problem, *student.init(0))
    seeds = itertools.count()
    seconds, peak_mb = repeated(lambda: tf.nest.map_structure(lambda t: t.numpy(), run(state, next(seeds)).gradient), 3)
    start = time.perf_counter()
    if name not in SMALL:
        tf_l2t.preflight(student_fn)  # last, as what it has freed would hide some of the peak
    preflight = None if name in SMALL else round(time.perf_counter() - start, 2)
    assert run.choice is not None
    weights = sum(int(tf.size(p)) for p in state.params)
    return {"student": name, "weights": weights, "batch": batch, "dev": dev, "steps": STEPS, "hvp": hvp,
            "jit": run.choice.jit, "preflight_s": preflight,
            "compile_s": round(seconds[0] - min(seconds[1:]), 2), "seconds": round(min(seconds[1:]), 3),
            "peak_mb": peak_mb, "predicted_mb": round(run.choice.peak_bytes / 1e6),
            "command": "python -m benchmarks.first_call"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.first_call", description="Time to the first gradient.")
    parser.add_argument("--one", nargs=2, metavar=("STUDENT", "MODE"), help="print one row as JSON, record nothing")
    parser.add_argument("--students", nargs="+", default=STUDENTS, metavar="NAME", help="of tf_l2t.students.STUDENTS")
    parser.add_argument("--modes", nargs="+", choices=MODES)
    parser.add_argument("--output", default=str(ROOT / "docs" / "measured" / "first_call.json"))
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(measure(*chosen.one)))
        return
    from tf_l2t.training.measured import record

    for name in chosen.students:
        for hvp in chosen.modes or (MODES[:1] if name in LARGE else MODES):
            command = [sys.executable, "-m", "benchmarks.first_call", "--one", name, hvp]
            result = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
            row = json.loads(result.stdout.splitlines()[-1])
            record(chosen.output, [row], key=KEY)
            print(row, flush=True)


if __name__ == "__main__":
    main()
