"""What a teacher step takes on one and on two processes, what they send, and how many rollouts are worth their work.

    python -m benchmarks.scaling

Students are MLPs on the embedded digits. In teacher steps every process is pinned to a core of its own. Measured are
whole teacher steps, from the beginning of one to that of the next, states written and flags agreed upon (the median,
and what a step sends; the first and the last are left out); all-reduces of several sizes between 2 … 8 processes; the
noise scale of dθ, B = tr Σ / ‖E dθ‖², Σ the covariance of dθ between rollouts: with n rollouts in a step, a training
needs about 1 + B / n times the steps that it would need with infinitely many. Rows go to docs/measured/scaling.json;
docs/scaling.md reads them.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_l2t.training.measured import record

ROOT = pathlib.Path(__file__).parent.parent
MEASURED = ROOT / "docs" / "measured" / "scaling.json"
KEY = ("what", "way", "processes", "rollouts", "floats")
NUM_STEPS, TEACHER_STEPS, NOISE_ROLLOUTS = 200, 8, 24
FLOATS = (1_000, 100_000, 1_000_000, 10_000_000)
PROCESSES = (2, 4, 8)  # that all-reduce
# (way, processes, rollouts)
STEPS = (("rollouts", 1, 1), ("rollouts", 1, 2), ("rollouts", 2, 2), ("rollouts", 1, 4), ("rollouts", 2, 4),
         ("batch", 1, 1), ("batch", 2, 1))


def trainer(strategy: Any, way: str, rollouts: int) -> tuple[Any, Any, Any]:
    """(trainer, train, dev): students of 784-100-10, batches of 100, T = NUM_STEPS."""
    import keras

    import tf_l2t
    from tf_l2t.data import mnist_5k

    digits = mnist_5k(dev_size=1000, test_size=500)
    made = tf_l2t.TeacherTrainer(lambda: tf_l2t.students.mlp(hidden=100), tf_l2t.teachers.AttentionTeacher(10, 13),
                                 num_steps=NUM_STEPS, batch_size=100,
                                 student_optimizer=keras.optimizers.SGD(0.1, momentum=0.9))
    # Without XLA everywhere: a batch that is split cannot have it.
    made.compile(keras.optimizers.Adam(0.001), rollouts=rollouts, strategy=strategy, distribute=way, jit=False)
    return made, (digits.train.x, digits.train.y), (digits.dev.x, digits.dev.y)


def timed_steps(strategy: Any, way: str, rollouts: int, states: str) -> dict[str, Any]:
    import keras

    made, train, dev = trainer(strategy, way, rollouts)
    begun: list[tuple[float, int]] = []
    clock = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: begun.append((time.perf_counter(), sent_by_all())))
    made.fit(train, dev, TEACHER_STEPS, validation_freq=0, verbose=0, preflight=False, callbacks=[clock],
             checkpoint_dir=states)
    times, sent = zip(*begun[1:], strict=True)
    return {"seconds_per_step": float(np.median(np.diff(times))),
            "bytes_per_step": round((sent[-1] - sent[0]) / (len(sent) - 1)) if strategy else 0}


def sent_by_all() -> int:
    """Bytes that have passed over the loopback interface so far: those of all processes, with gRPC's own."""
    lines = pathlib.Path("/proc/net/dev").read_text().splitlines()
    (loopback,) = (line.split(":")[1].split() for line in lines if line.strip().startswith("lo:"))
    return int(loopback[8])


def timed_reductions(strategy: Any) -> dict[str, Any]:
    from tf_l2t.training.replicas import Replicas

    replicas, found = Replicas(strategy), {}
    for size in FLOATS:
        values, times = np.ones(size, np.float32), []
        for _ in range(12):
            started = time.perf_counter()
            replicas.total(values)
            times.append(time.perf_counter() - started)
        found[str(size)] = 1000 * statistics.median(times[2:])
    return found


def noise_scale() -> dict[str, Any]:
    """B of the first step, unbiased: from n rollouts, ‖E g‖² is (n ‖ḡ‖² − mean ‖g‖²) / (n − 1)."""
    from tf_l2t.hypergradient import hypergradient

    made, train, dev = trainer(None, "rollouts", 1)
    problem, _ = made._first_student(train, dev)
    function = hypergradient(problem, made.teacher, jit=False)
    gradients = []
    for seed in range(NOISE_ROLLOUTS):
        found = function(made._new_student(problem, seed), seed).gradient
        gradients.append(np.concatenate([np.ravel(g) for g in found]).astype(np.float64))
    n, mean = len(gradients), np.mean(gradients, axis=0)
    each, whole = float(np.mean([g @ g for g in gradients])), float(mean @ mean)
    signal = (n * whole - each) / (n - 1)
    return {"noise_scale": (each - whole) * n / (n - 1) / signal if signal > 0 else float("inf"), "weights": mean.size}


def worker(out: str, task: str, way: str, rollouts: int) -> None:
    import tensorflow as tf

    strategy = tf.distribute.MultiWorkerMirroredStrategy() if "TF_CONFIG" in os.environ else None
    first = strategy is None or strategy.cluster_resolver.task_id == 0  # which alone writes states
    found = {"steps": lambda: timed_steps(strategy, way, rollouts, f"{out}-states" if first else ""),
             "reduce": lambda: timed_reductions(strategy), "noise": noise_scale}[task]()
    pathlib.Path(out).write_text(json.dumps(found))


def launched(processes: int, task: str, way: str = "rollouts", rollouts: int = 1) -> dict[str, Any]:
    """What the first of so many processes has found; all-reduces, which hardly compute, share cores."""
    cores = sorted(os.sched_getaffinity(0))
    if task == "steps" and len(cores) < processes:
        raise SystemExit(f"error: {processes} processes need as many cores; this machine has {len(cores)}.")
    ports = []
    for _ in range(processes):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    workers = [f"127.0.0.1:{port}" for port in ports]
    with tempfile.TemporaryDirectory() as folder:
        outs = [os.path.join(folder, str(index)) for index in range(processes)]
        running = []
        for index, out in enumerate(outs):
            told = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
            if processes > 1:
                told["TF_CONFIG"] = json.dumps({"cluster": {"worker": workers},
                                                "task": {"type": "worker", "index": index}})
            running.append(subprocess.Popen(
                ["taskset", "-c", str(cores[index % len(cores)]), sys.executable, "-W", "ignore", "-m",
                 "benchmarks.scaling", "--worker", out, task, way, str(rollouts)], cwd=ROOT, env={**os.environ, **told},
                stderr=subprocess.DEVNULL))
        if any(process.wait() for process in running):
            raise SystemExit(f"error: a process of {task}, {way}, {rollouts} rollouts ended with an error.")
        return json.loads(pathlib.Path(outs[0]).read_text())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Scaling of teacher training over processes.")
    parser.add_argument("--worker", nargs=4, metavar=("OUT", "TASK", "WAY", "ROLLOUTS"), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=pathlib.Path, default=MEASURED)
    options = parser.parse_args(arguments)
    if options.worker:
        out, task, way, rollouts = options.worker
        worker(out, task, way, int(rollouts))
        return
    rows = []
    for way, processes, rollouts in STEPS:
        found = launched(processes, "steps", way, rollouts)
        rows.append({"what": "teacher step", "way": way, "processes": processes, "rollouts": rollouts, "floats": 0,
                     "seconds_per_step": round(found["seconds_per_step"], 3),
                     "bytes_per_step": found["bytes_per_step"]})
        print(rows[-1], flush=True)
    for processes in PROCESSES:
        for size, milliseconds in launched(processes, "reduce").items():
            rows.append({"what": "all-reduce", "way": "", "processes": processes, "rollouts": 0, "floats": int(size),
                         "ms": round(milliseconds, 3)})
    noise = launched(1, "noise")
    rows.append({"what": "noise", "way": "", "processes": 1, "rollouts": NOISE_ROLLOUTS, "floats": noise["weights"],
                 "noise_scale": round(noise["noise_scale"], 2)})
    for row in rows:
        row["command"] = "python -m benchmarks.scaling"
    record(options.out, rows, KEY)
    print(*rows[len(STEPS):], sep="\n")


if __name__ == "__main__":
    main()
