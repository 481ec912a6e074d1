"""Measures tf_l2t's engine beside other libraries: same arrays, same machine, one process each, in turn.

    python -m benchmarks.run                     time and memory of both students (make bench)
    python -m benchmarks.run --only mlp --quick  one student, 2 repetitions, nothing recorded
    python -m benchmarks.run --memory            the MLP at T = 100 … 10,000

Rows go to docs/measured/engine.json; `python -m trainers.tables` and `python -m benchmarks.plot` show them.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import pathlib
import statistics
import subprocess
import sys
import tempfile
from typing import Any, NamedTuple

import numpy as np

from benchmarks.load import Others, wait_for_quiet
from benchmarks.memory import Peak, resident
from benchmarks.tables import KEY, MEMORY_STEPS
from benchmarks.work import Spec
from benchmarks.workers import ROOT, Failed, TooSlow, Unsupported, Worker


class Setting(NamedTuple):
    library: str
    students: tuple[str, ...]
    schedule: str
    hvp: str | None
    jit: bool
    allocator: str = "default"
    sweep: bool = False  # over T as well


BOTH, MLP, LENET = ("mlp", "lenet"), ("mlp",), ("lenet",)
SETTINGS = (
    Setting("tf_l2t", MLP, "store_all", "saved_residuals", True, sweep=True),  # XLA's convolutions on a CPU: see JAX
    Setting("tf_l2t", MLP, "every_k", "saved_residuals", True, sweep=True),
    Setting("tf_l2t", MLP, "every_k", "forward_over_reverse", True, sweep=True),
    Setting("tf_l2t", MLP, "every_k", "reverse_over_reverse", True),
    Setting("tf_l2t", BOTH, "store_all", "saved_residuals", False),
    Setting("tf_l2t", LENET, "store_all", "forward_over_reverse", False),
    Setting("tf_l2t", LENET, "store_all", "reverse_over_reverse", False),
    Setting("tf_l2t", BOTH, "every_k", "saved_residuals", False, sweep=True),
    Setting("tf_l2t", BOTH, "every_k", "forward_over_reverse", False),
    Setting("tf_l2t", BOTH, "every_k", "reverse_over_reverse", False),
    Setting("tf_l2t", MLP, "binomial:20:10", "saved_residuals", False, sweep=True),
    Setting("tf_l2t", MLP, "binomial:20:10", "saved_residuals", False, "one arena", sweep=True),
    Setting("jax", BOTH, "store_all", None, True, sweep=True),
    Setting("jax", BOTH, "every_k", None, True, sweep=True),
    Setting("jax", MLP, "checkpoint_step", None, True),
    Setting("torchopt", BOTH, "store_all", None, False, sweep=True),
    Setting("torchopt", BOTH, "store_all", None, False, "mmap"),
    Setting("higher", BOTH, "store_all", None, False, sweep=True),
    Setting("higher", BOTH, "store_all", None, False, "mmap"),
)
MEMORY_SETTINGS = tuple(setting for setting in SETTINGS if setting.sweep)
MODULES = {"tf_l2t": "benchmarks.tf_l2t_run", "jax": "benchmarks.peers.jax_scan",
           "torchopt": "benchmarks.peers.torchopt_run", "higher": "benchmarks.peers.higher_run"}
PACKAGES = ("jax", "torch", "torchopt", "higher")
# What a graph keeps of every step lies between the weights that the step frees, so that glibc's heap does not shrink.
# Blocks of a weight matrix's size mapped one by one are returned at once: far less memory, more time.
# TensorFlow's threads have an arena of glibc's each; in one arena they fill each other's gaps.
ALLOCATORS = {"default": {}, "mmap": {"MALLOC_MMAP_THRESHOLD_": "1000000"}, "one arena": {"MALLOC_ARENA_MAX": "1"}}

SPECS = {"mlp": Spec("mlp", 20, 200), "lenet": Spec("lenet", 500, 20)}
TOLERANCE = 1e-3
SLOW_SECONDS, SLOW_REPETITIONS = 60, 3
MEMORY_LIMIT_MB = 14_000
MB = 2 ** 20


class Running:
    """A setting's worker, and what has been measured of it."""

    def __init__(self, setting: Setting, spec: Spec, work: pathlib.Path, limit: float):
        self.setting, self.spec, self.limit = setting, spec, limit
        self.folder = work.parent
        self.worker = Worker(MODULES[setting.library], ALLOCATORS[setting.allocator])
        self.seconds: list[float] = []
        self.plain_seconds: list[float] = []
        self.others: list[float] = []
        self.first_seconds = self.peak = 0.0
        self.planned: float | None = None
        try:
            self.worker.ask("setup", work=str(work), schedule=setting.schedule, hvp=setting.hvp, jit=setting.jit)
            self.base = resident(self.worker.pid)
        except BaseException:
            self.worker.close(kill=True)
            raise

    @property
    def name(self) -> str:
        return describe(self.setting)

    def first(self, wait: float) -> dict[str, np.ndarray]:
        """The first call: traced, compiled and run. Returns the results that all libraries must agree on."""
        wait_for_quiet(wait)
        gradient, plain = self.folder / "gradient.npz", self.folder / "plain.npz"
        with Peak(self.worker.pid) as peak:
            answer = self.worker.ask("gradient", self.limit, path=str(gradient))
        self.first_seconds, self.planned = answer["seconds"], answer["planned_mb"]
        self.peak = peak.peak - self.base
        self.worker.ask("plain", self.limit, path=str(plain))
        with np.load(gradient) as one, np.load(plain) as other:
            return {**one, **other}

    def wake(self) -> None:
        """A call that is not timed: while the others had their turn this process lay idle, and the kernel may have
        taken its memory's pages from it."""
        self.worker.ask("time", self.limit)

    def repeat(self, wait: float) -> None:
        """One timed repetition of each kind."""
        wait_for_quiet(wait)
        with Others(self.worker.pid) as others:
            self.seconds.append(self.worker.ask("time", self.limit)["seconds"])
        self.others.append(others.cores)
        self.plain_seconds.append(self.worker.ask("plain", self.limit)["seconds"])

    def failed(self, error: Exception) -> dict[str, Any]:
        """Ends the worker; the row that says so."""
        print(f"  {self.name}: {error}", flush=True)
        self.worker.close(kill=True)
        late = isinstance(error, TooSlow)
        return empty_row(self.setting, self.spec) | {"note": f"over {self.limit:g} s" if late else "failed"}

    def row(self) -> dict[str, Any]:
        """The figures so far."""
        row = empty_row(self.setting, self.spec) | {"peak_mb": round(self.peak / MB, 1),
                                                    "base_mb": round(self.base / MB, 1)}
        if self.planned is not None:
            row["planned_mb"] = round(self.planned, 1)
        if self.seconds:
            per_step = 1000 / self.spec.steps
            seconds = statistics.median(self.seconds)
            row |= {"ms_per_step": round(seconds * per_step, 4),
                    "plain_ms_per_step": round(statistics.median(self.plain_seconds) * per_step, 4),
                    "ms_min": round(min(self.seconds) * per_step, 4), "ms_max": round(max(self.seconds) * per_step, 4),
                    "compile_s": round(max(0.0, self.first_seconds - seconds), 2),
                    "others_cores": round(statistics.median(self.others), 2), "repetitions": len(self.seconds)}
        return row


def describe(setting: Setting) -> str:
    parts = [setting.library, setting.schedule, setting.hvp, "XLA" if setting.jit else None,
             None if setting.allocator == "default" else setting.allocator]
    return " ".join(part for part in parts if part)


def empty_row(setting: Setting, spec: Spec) -> dict[str, Any]:
    """A setting of which nothing was measured."""
    return {"student": spec.student, "batch": spec.batch, "steps": spec.steps, "library": setting.library,
            "schedule": setting.schedule, "hvp": setting.hvp, "jit": setting.jit, "allocator": setting.allocator,
            "ms_per_step": None, "plain_ms_per_step": None, "peak_mb": None, "compile_s": None, "repetitions": 0,
            "command": "python -m benchmarks.run"}


def disagreement(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> dict[str, float]:
    """For every result the norm of the difference over that of `other`; infinite where that is zero or not finite."""
    differences = {}
    for name, value in other.items():
        norm = float(np.linalg.norm(value))
        difference = float(np.linalg.norm(one[name] - value))
        differences[name] = difference / norm if norm and np.isfinite(norm) and np.isfinite(difference) else np.inf
    return differences


def write_work(spec: Spec, folder: pathlib.Path) -> pathlib.Path:
    path = folder / f"{spec.student}_{spec.batch}_{spec.steps}.npz"
    subprocess.run([sys.executable, "-m", "benchmarks.work", str(path), *map(str, spec)], cwd=ROOT, check=True,
                   stderr=subprocess.DEVNULL)
    return path


def start(setting: Setting, spec: Spec, work: pathlib.Path, limit: float) -> Running | None:
    """The setting's worker, set up; None if the library has no such setting."""
    try:
        return Running(setting, spec, work, limit)
    except Unsupported as error:
        print(f"  left out: {describe(setting)}: {error}", flush=True)
        return None


def check_agreement(results: dict[str, dict[str, np.ndarray]]) -> None:
    """Ends the program unless all settings found the same M, gradient and plain student."""
    (reference, expected), *rest = results.items()
    for name, result in rest:
        wrong = {k: v for k, v in disagreement(result, expected).items() if not v <= TOLERANCE}
        if wrong:
            sys.exit(f"nothing was recorded: {name} and {reference} disagree, relative to the norm: {wrong}; allowed "
                     f"is {TOLERANCE:g}. Either they do not do the same work, or one is wrong.")


def measure(spec: Spec, settings: list[Setting], repetitions: int, limit: float, wait: float) -> list[dict[str, Any]]:
    """All settings on one work: first calls one after the other, agreement, then repetitions in turn."""
    rows, running, results = [], [], {}
    with tempfile.TemporaryDirectory() as folder:
        work = write_work(spec, pathlib.Path(folder))
        try:
            for setting in settings:
                one = start(setting, spec, work, limit)
                if one is None:
                    continue
                try:
                    results[one.name] = one.first(wait)
                except (TooSlow, Failed) as error:
                    rows.append(one.failed(error))
                    continue
                running.append(one)
                print(f"  {one.name}: first call {one.first_seconds:.1f} s, peak {one.peak / MB:.0f} MB", flush=True)
            if results:
                check_agreement(results)
            for repetition in range(repetitions):
                for one in list(running):
                    if repetition >= SLOW_REPETITIONS and one.first_seconds >= SLOW_SECONDS:
                        continue
                    try:
                        one.wake()
                        one.repeat(wait)
                    except (TooSlow, Failed) as error:
                        rows.append(one.failed(error))
                        running.remove(one)
                print(f"  repetition {repetition + 1} of {repetitions}", flush=True)
            return rows + [one.row() for one in running]
        finally:
            for one in running:
                one.worker.close()


def predicted_mb(measured: list[tuple[int, float]], steps: int) -> float:
    """Memory at T = `steps`, on the line through the last two of the measured (T, MB)."""
    if len(measured) < 2:
        return 0.0
    (t0, m0), (t1, m1) = measured[-2:]
    return m1 + (m1 - m0) / (t1 - t0) * (steps - t1)


def sweep(settings: list[Setting], steps: tuple[int, ...], repetitions: int, limit: float,
          wait: float) -> list[dict[str, Any]]:
    """The MLP at several T, a new process for each; a T whose memory is foreseen to be too much is not run."""
    rows = []
    measured: dict[Setting, list[tuple[int, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for t in steps:
            spec = SPECS["mlp"]._replace(steps=t)
            work = write_work(spec, pathlib.Path(folder))
            print(f"T = {t}", flush=True)
            results = {}
            for setting in settings:
                known = measured.setdefault(setting, [])
                foreseen = predicted_mb(known, t)
                if foreseen > MEMORY_LIMIT_MB:
                    rows.append(empty_row(setting, spec) | {"predicted_mb": round(foreseen), "note": "not run"})
                    print(f"  {describe(setting)}: not run, {foreseen:.0f} MB foreseen", flush=True)
                    continue
                one = start(setting, spec, work, limit)
                if one is None:
                    continue
                try:
                    results[one.name] = one.first(wait)
                    for _ in range(repetitions):
                        one.repeat(wait)
                    rows.append(one.row())
                    known.append((t, rows[-1]["peak_mb"]))
                    print(f"  {one.name}: {rows[-1]['peak_mb']} MB, {rows[-1]['ms_per_step']} ms a step", flush=True)
                except (TooSlow, Failed) as error:
                    rows.append(one.failed(error))
                finally:
                    one.worker.close()
            if t == min(steps):  # over thousands of steps in float32, the last bits of a sum grow
                check_agreement(results)
    return rows


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description="The engine beside other libraries.")
    parser.add_argument("--only", choices=sorted(SPECS), help="one student")
    parser.add_argument("--libraries", default="", help="comma-separated; all by default")
    parser.add_argument("--memory", action="store_true", help="the MLP at T = 100 … 10,000 instead")
    parser.add_argument("--steps", default=",".join(map(str, MEMORY_STEPS)), help="the T of --memory")
    parser.add_argument("--repetitions", type=int, default=0, help="7 by default; 3 with --memory")
    parser.add_argument("--quick", action="store_true", help="2 repetitions; T to 1,000; nothing is recorded")
    parser.add_argument("--limit", type=float, default=900, help="seconds after which a call is given up")
    parser.add_argument("--wait", type=float, default=60, help="seconds to wait for a quiet machine before each timing")
    parser.add_argument("--output", default=str(ROOT / "docs" / "measured" / "engine.json"))
    chosen = parser.parse_args(argv)
    unknown = set(filter(None, chosen.libraries.split(","))) - set(MODULES)
    if unknown:
        parser.error(f"no library is called {sorted(unknown)}; there are {sorted(MODULES)}.")
    return chosen


def main() -> None:
    chosen = arguments()
    libraries = set(filter(None, chosen.libraries.split(","))) or set(MODULES)
    settings = [s for s in (MEMORY_SETTINGS if chosen.memory else SETTINGS) if s.library in libraries]
    rows: list[dict[str, Any]] = []
    try:
        if chosen.memory:
            steps = tuple(t for t in map(int, chosen.steps.split(",")) if not chosen.quick or t <= 1000)
            repetitions = chosen.repetitions or (1 if chosen.quick else 3)
            rows = sweep(settings, steps, repetitions, chosen.limit, chosen.wait)
        else:
            for student in [chosen.only] if chosen.only else list(SPECS):
                spec = SPECS[student]
                print(f"{student}, batch {spec.batch}, T = {spec.steps}", flush=True)
                repetitions = chosen.repetitions or (2 if chosen.quick else 7)
                rows += measure(spec, [s for s in settings if student in s.students], repetitions, chosen.limit,
                                0 if chosen.quick else chosen.wait)
    except Failed as error:
        sys.exit(f"{error}\nnothing was recorded.")
    for row in rows:
        row["command"] += (" --memory" if chosen.memory else "") \
            + (f" --repetitions {chosen.repetitions}" if chosen.repetitions else "")
        print(row)
    if not chosen.quick:
        from tf_l2t.training.measured import record  # imports TensorFlow, which is not to run beside the workers

        versions = {name: importlib.metadata.version(name) for name in PACKAGES}
        record(chosen.output, rows, key=KEY, versions=versions)


if __name__ == "__main__":
    main()
