"""Kills trainings at random moments, damages what they kept, and sees whether they end as those that were left alone.

    python -m benchmarks.soak
    python -m benchmarks.soak --only train_teacher distill --kills 5 --minutes 0

Every training is a real command at a tiny size, on embedded data. It is ended by SIGKILL at a random moment, in the
middle of writing a state, or at its end, while it exports; or by SIGTERM, which it has to answer with exit code 75; in
between a newest state loses a bit, or its end, or a file, or the list of states does. The same command is given until
the training is through; then everything that its last states hold, and the weights of all that it has exported or
saved, have to be what they are after an uninterrupted training, to the bit. With --minutes a teacher is trained for as
long, and its resident memory watched. With --fuzz the tests of spoiled files, arrays and configs run with fifty times
as many examples. Rows {what, tried, lost} go to docs/measured/reliability.json.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from tf_l2t.training.measured import record

ROOT = pathlib.Path(__file__).parent.parent
MEASURED = ROOT / "docs" / "measured" / "reliability.json"
KEY = ("what",)
KINDS = ("SIGKILL at a random moment", "SIGKILL while a state is written", "SIGKILL at the end", "SIGTERM")
WARM_MINUTES = 10  # after which memory has to stay as it is
FUZZ_TESTS = ("tests/test_fuzz.py", "tests/test_fuzz_configs.py")
DIGITS = ("--config.data.name=mnist_5k", "--config.data.dev_size=40", "--config.data.test_size=50",
          "--config.data.train_size=200")


class Job(NamedTuple):
    """A training: its command, how the files are called that it writes at its end, a file without times among its
    results, if it has one, and the training that it begins with, by name and by the option that says where that is."""

    arguments: tuple[str, ...]
    ending: str
    result: str = ""
    begins: tuple[str, str] | None = None


SMALL_TRANSLATION = (
    "--config.data.name=libreoffice_help", "--config.data.path=", "--config.data.vocabulary=400",
    "--config.data.dev_size=20", "--config.data.test_size=25", "--config.student.options=(('units',8),('dropout',0.1))",
    "--config.training.num_steps=12", "--config.training.evaluate_every=2", "--config.training.dev_sample_size=10",
    "--config.training.batch_size=8", "--config.decoding.beam_size=2", "--config.decoding.longest=12")
SMALL_TEACHER = (
    "--config.teacher_training.num_steps=4", "--config.teacher_training.dev_size=8",
    "--config.teacher_training.validation_freq=2", "--config.features.sample_size=4")
JOBS = {
    "train_teacher": Job((
        "trainers.train_teacher", "--config", "configs/demo.py", "--config.training.num_steps=60",
        "--config.teacher_training.steps=12", "--config.teacher_training.validation_freq=3",
        "--config.teacher_training.curriculum=((20,4),)"), ".teacher-*"),
    "train_student": Job((
        "trainers.train_student", "--config", "configs/demo.py", "--config.training.num_steps=60",
        "--config.compare.evaluate_every=6"), "student.keras", "",
        ("train_teacher", "--config.compare.teacher={}/teacher")),
    "train_baseline": Job((
        "trainers.train_baseline", "--config", "configs/demo.py", "--config.training.num_steps=60",
        "--config.compare.evaluate_every=6"), "student.keras"),
    "train_student, translation": Job((
        "trainers.train_student", "--config", "configs/translation_lstm1.py", *SMALL_TRANSLATION), "last"),
    "train_teacher, translation": Job((
        "trainers.train_teacher", "--config", "configs/translation_lstm1.py", *SMALL_TRANSLATION, *SMALL_TEACHER,
        "--config.teacher_training.steps=8", "--config.teacher.loss=stable"),
        ".teacher-*", "", ("train_student, translation", "--config.training.start={}/best")),
    "distill": Job((
        "trainers.distill", "--config", "configs/distill_mnist.py", *DIGITS, "--config.method.name=prokt",
        "--config.student.name=resnet8", "--config.teacher.name=mlp", "--config.training.num_steps=12",
        "--config.training.evaluate_every=2"), "teacher.keras"),
    "compare": Job((
        "trainers.compare", "--config", "configs/demo.py", "--config.training.num_steps=40",
        "--config.data.dev_size=60", "--config.data.test_size=200", "--config.teacher_training.steps=4",
        "--config.teacher_training.validation_freq=2", "--config.compare.num_teachers=1", "--config.compare.seeds=2",
        "--config.compare.rows=('cross_entropy','taught','train_tuned')", "--config.compare.learning_rates=(0.03,0.1)",
        "--config.compare.selection_seeds=1", "--config.compare.num_folds=2", "--config.compare.tune_rates=(0.01,0.03)",
        "--config.compare.tune_steps=20"), "dev*/rows/train_tuned.json", "results.json"),
    "compare, distillation": Job((
        "trainers.compare", "--config", "configs/compare_distill_mnist.py", *DIGITS, "--config.teacher.name=mlp",
        "--config.student.name=mlp", "--config.compare.students=(('mlp',(('training.num_steps',8),)),)",
        "--config.compare.methods=(('none',(('method.name','none'),)),('kd',(('method.name','kd'),)),"
        "('prokt',(('method.name','prokt'),)))", "--config.compare.skipped=()", "--config.compare.tuned=()",
        "--config.compare.seeds=2", "--config.training.num_steps=8", "--config.training.evaluate_every=2"),
        "report.html"),
    "compare, translation": Job((
        "trainers.compare", "--config", "configs/compare_translation.py", *SMALL_TRANSLATION, *SMALL_TEACHER,
        "--config.training.num_steps=4", "--config.training.keep_every=1", "--config.compare.start=kept/2",
        "--config.compare.students=('lstm1',)", "--config.compare.losses=('mle','taught')",
        "--config.compare.loss_options=()", "--config.compare.num_steps=4", "--config.compare.evaluate_every=2",
        "--config.compare.seeds=2", "--config.teacher_training.steps=4"), "report.html"),
}


class Outcome(NamedTuple):
    """Of one training: how often it was ended, by kind, states that were damaged, and whether it came out the same."""

    ended: dict[str, int]
    damaged: int
    same: bool


def command(job: Job, workdir: pathlib.Path, extra: Sequence[str] = ()) -> list[str]:
    return [sys.executable, "-m", *job.arguments, *extra, "--verbose=0", "--workdir", str(workdir)]


def run_through(arguments: list[str]) -> float:
    """The seconds that an uninterrupted training takes."""
    started = time.monotonic()
    subprocess.run(arguments, cwd=ROOT, check=True, capture_output=True)
    return time.monotonic() - started


def disturb(arguments: list[str], workdir: pathlib.Path, expected: dict[str, Any], seconds: float, kills: int,
            rng: random.Random, ending: str, result: str = "") -> Outcome:
    """Runs a training, kills it up to `kills` times, and compares what it keeps with what is expected."""
    ended, damaged = dict.fromkeys(KINDS, 0), 0
    while True:
        kind = rng.choice(KINDS) if killed(ended) < kills else ""
        with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            if kind and _reached(process, kind, workdir, seconds, rng, ending):
                process.send_signal(signal.SIGTERM if kind == "SIGTERM" else signal.SIGKILL)
            assert process.stderr
            said = process.stderr.read().decode()
        if process.returncode == 0:
            return Outcome(ended, damaged, kept(workdir, result) == expected)
        allowed = (os.EX_TEMPFAIL, -signal.SIGTERM) if kind == "SIGTERM" else (-signal.SIGKILL,)
        if process.returncode not in allowed:
            raise RuntimeError(f"{arguments} ended with {process.returncode}: {said}")
        ended[kind] += 1
        if rng.random() < 1 / 3:
            damaged += damage(workdir, rng)


def killed(ended: dict[str, int]) -> int:
    """How often of all that a training was ended it was by SIGKILL."""
    return sum(count for kind, count in ended.items() if kind != "SIGTERM")


def _reached(process: subprocess.Popen[bytes], kind: str, workdir: pathlib.Path, seconds: float, rng: random.Random,
             ending: str) -> bool:
    """Waits for the moment of that kind; False if the training is through before."""
    began, moment, before = time.monotonic(), rng.uniform(0, seconds), _there(workdir, ending)
    here: Callable[[], bool] = {
        KINDS[1]: lambda: _unsealed(workdir) and rng.random() < 0.2,
        KINDS[2]: lambda: _there(workdir, ending) != before}.get(kind, lambda: time.monotonic() - began > moment)
    while process.poll() is None:
        if here():
            return True
        time.sleep(0.001)
    return False


def _there(workdir: pathlib.Path, ending: str) -> dict[str, int]:
    """The files of that name, and when each was written."""
    found = {}
    for file in workdir.glob(ending):
        with contextlib.suppress(OSError):  # it may go while it is looked at
            found[str(file)] = file.stat().st_mtime_ns
    return found


def _unsealed(workdir: pathlib.Path) -> bool:
    with contextlib.suppress(OSError):  # a file may go while it is looked at
        for file in workdir.rglob("state-*"):
            seal = file.with_name(f"{file.name.split('.')[0]}.json")
            if file.is_file() and file != seal and not seal.exists():
                return True
    return False


def damage(workdir: pathlib.Path, rng: random.Random) -> int:
    """Spoils one file of the newest state of the newest part of a training, or the list of its states; how many it has
    spoiled. Of a table's parts, one that is not through: nobody asks for the others' states again."""
    seals = sorted((seal for seal in workdir.rglob("state-*.json") if not _through(seal, workdir)),
                   key=lambda file: file.stat().st_mtime)
    if not seals:
        return 0
    file = rng.choice(sorted([*seals[-1].parent.glob(f"{seals[-1].stem}.*"), *seals[-1].parent.glob("checkpoint")]))
    content = bytearray(file.read_bytes())
    how = rng.choice(("flip", "cut", "remove"))
    if how == "remove" and file.suffix != ".json":
        file.unlink()
    elif how == "cut":
        file.write_bytes(content[:rng.randrange(len(content))])
    else:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        file.write_bytes(content)
    return 1


def _through(seal: pathlib.Path, workdir: pathlib.Path) -> bool:
    """Whether a state is of a part of a table that has its results."""
    part_of = [folder for folder in seal.parents if workdir in folder.parents]
    return any((folder / "results.json").exists() or
               ((folder / "teacher").is_dir() and folder.suffix != ".partial") for folder in part_of)


def kept(workdir: pathlib.Path, result: str = "") -> dict[str, Any]:
    """The bytes of every tensor of the last states, but for their records, which have times; those of the weights of
    exported teachers and saved networks; and those of `result`."""
    import h5py
    import tensorflow as tf

    found: dict[str, Any] = {result: (workdir / result).read_bytes()} if result else {}
    for exported in sorted(workdir.rglob("variables/variables.index")):
        reader = tf.train.load_checkpoint(str(exported.with_suffix("")))
        for name in reader.get_variable_to_shape_map():
            if not name.startswith("_CHECKPOINTABLE"):
                found[f"{exported.relative_to(workdir)}/{name}"] = np.asarray(reader.get_tensor(name)).tobytes()
    for saved in sorted(file for file in workdir.rglob("*.keras") if not file.name.startswith(".")):  # whole ones
        with zipfile.ZipFile(saved) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as weights:
            weights.visititems(lambda name, value, saved=saved: found.update(
                {f"{saved.relative_to(workdir)}/{name}": value[()].tobytes()} if isinstance(value, h5py.Dataset)
                else {}))
    for folder in sorted({seal.parent for seal in workdir.rglob("state-*.json")}):
        last = max(int(seal.stem.removeprefix("state-")) for seal in folder.glob("state-*.json"))
        reader = tf.train.load_checkpoint(str(folder / f"state-{last}"))
        for name in reader.get_variable_to_shape_map():
            if name.startswith("variables/"):
                found[f"{folder.relative_to(workdir)}-{last}/{name}"] = np.asarray(reader.get_tensor(name)).tobytes()
    return found


def memory(minutes: float, folder: pathlib.Path) -> tuple[float, float]:
    """Resident MB of a teacher's training after ten minutes, or a sixth of it, and their growth from then on, in %."""
    longer = ["--config.teacher_training.steps=100000", "--config.training.num_steps=600"]
    with subprocess.Popen(command(JOBS["train_teacher"], folder / "memory", longer), cwd=ROOT,
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        warm = min(60 * WARM_MINUTES, 10 * minutes)
        samples = [megabytes for second, megabytes in _resident(process, 60 * minutes) if second >= warm]
        if process.poll() is not None:
            raise RuntimeError(f"the teacher's training ended by itself, with {process.returncode}.")
        process.send_signal(signal.SIGTERM)
    if process.returncode != os.EX_TEMPFAIL:
        raise RuntimeError(f"told to end, the teacher's training ended with {process.returncode}.")
    third = max(1, len(samples) // 3)
    first, last = (float(np.median(megabytes)) for megabytes in (samples[:third], samples[-third:]))
    return first, 100 * (last / first - 1) * 3 / 2  # a steady growth has two thirds of it between these medians


def _resident(process: subprocess.Popen[bytes], seconds: float) -> Iterator[tuple[float, float]]:
    started = time.monotonic()
    while time.monotonic() - started < seconds and process.poll() is None:
        pages = int(pathlib.Path(f"/proc/{process.pid}/statm").read_text().split()[1])
        yield time.monotonic() - started, pages * os.sysconf("SC_PAGE_SIZE") / 1e6
        time.sleep(1)


def soak(name: str, kills: int, rng: random.Random, folder: pathlib.Path) -> list[dict[str, Any]]:
    """The rows of one training, disturbed until it was killed `kills` times."""
    job, extra = JOBS[name], []
    if job.begins:
        run_through(command(JOBS[job.begins[0]], folder / "before"))
        extra = [job.begins[1].format(folder / "before")]
    seconds = run_through(command(job, folder / "whole", extra))
    expected = kept(folder / "whole", job.result)
    ended, damaged, through, lost = dict.fromkeys(KINDS, 0), 0, 0, 0
    while killed(ended) < kills:
        shutil.rmtree(folder / "run", ignore_errors=True)
        outcome = disturb(command(job, folder / "run", extra), folder / "run", expected, seconds,
                          kills - killed(ended), rng, job.ending, job.result)
        ended = {kind: count + outcome.ended[kind] for kind, count in ended.items()}
        damaged, through, lost = damaged + outcome.damaged, through + 1, lost + (not outcome.same)
        print(f"{name}: {outcome}", flush=True)
    rows = [{"what": f"{name}: {kind}", "tried": count} for kind, count in ended.items()]
    rows += [{"what": f"{name}: states damaged", "tried": damaged}, {"what": f"{name}: trainings", "tried": through}]
    return [row | {"lost": lost} for row in rows]


def fuzz() -> list[dict[str, Any]]:
    """The rows of the fuzz tests: what hypothesis tried in each, and 1 for a test that failed."""
    done = subprocess.run([
        sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-o", "addopts=", "--hypothesis-profile=soak",
        "--hypothesis-show-statistics", "-rf", *FUZZ_TESTS], cwd=ROOT, capture_output=True, text=True, check=False)
    print(done.stdout[-5000:], flush=True)
    rows = fuzz_rows(done.stdout)
    if done.returncode not in (0, 1) or done.returncode != any(row["lost"] for row in rows) or not rows:
        raise RuntimeError(f"the fuzz tests ended with {done.returncode}, {len(rows)} of them with a count of inputs.")
    return rows


def fuzz_rows(said: str) -> list[dict[str, Any]]:
    """The rows of what pytest printed, with hypothesis' statistics."""
    rows = []
    for test, statistics in re.findall(r"^tests/\w+\.py::(\S.*):\n\n((?:  .*\n)+)", said, re.MULTILINE):
        tried = sum(int(count) for count in re.findall(r"(\d+) (?:passing|failing)", statistics))
        failed = f"::{test} " in said.partition("summary info")[2]
        rows.append({"what": f"fuzz: {test}", "tried": tried, "lost": int(failed)})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--kills", type=int, default=20, help="of every training, by SIGKILL; 0 for none")
    parser.add_argument("--minutes", type=float, default=60, help="of watching a teacher's memory; 0 for none")
    parser.add_argument("--fuzz", action=argparse.BooleanOptionalAction, default=True, help="many random inputs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--measured", type=pathlib.Path, default=MEASURED)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as made:
        folder = pathlib.Path(made)
        for name in options.only if options.kills else ():
            (folder / name).mkdir()
            rows += soak(name, options.kills, random.Random(f"{options.seed} {name}"), folder / name)
            record(options.measured, rows, KEY)
        if options.minutes:
            first, growth = memory(options.minutes, folder)
            rows.append({"what": "train_teacher: memory", "tried": 1, "lost": int(growth >= 2),
                         "minutes": options.minutes, "first_mb": round(first), "growth_percent": round(growth, 2)})
    if options.fuzz:
        rows += fuzz()
    for row in rows:
        print(row)
    record(options.measured, rows, KEY)
    if any(row["lost"] for row in rows):
        sys.exit("something was lost")


if __name__ == "__main__":
    main()
