"""Kills trainings at random moments, damages what they kept, and sees whether they end as those that were left alone.

    python -m benchmarks.soak
    python -m benchmarks.soak --only train_teacher distill --kills 5 --minutes 0

Every training is a real command at a tiny size, on embedded data. It is ended by SIGKILL at a random moment, within a
step, in the middle of writing a state, or at its end, while it exports; or by SIGTERM, which it has to answer with exit
code 75 as soon as it listens; in between a newest state loses a bit, or its end, or a file, or the list of states does.
The same command is given until the training is through; then everything that its last states hold, and the weights of
all that it has exported or saved, have to be what they are after an uninterrupted training, byte for byte. With
--minutes a teacher whose rollouts fail now and then (benchmarks/faulty.py) is trained for about as long, twice side by
side: one is left alone, and its resident memory watched; the other is disturbed as above, and has to end as the first.
With --fuzz the tests of spoiled files, arrays and configs run with fifty times as many examples. Rows {what, tried,
lost} go to docs/measured/reliability.json.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks import faulty
from benchmarks.disturb import KINDS, ROOT, Outcome, compared, disturb, kept, killed, run_through
from tf_l2t.files import partial_name
from tf_l2t.training.measured import record

MEASURED = ROOT / "docs" / "measured" / "reliability.json"
KEY = ("what",)
HOUR = "train_teacher, an hour"
FUZZ_HOURS = 6  # of which they take less than two
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
DEMO_TEACHER = ("--config", "configs/demo.py", "--config.teacher_training.validation_freq=3")
JOBS = {
    "train_teacher": Job((
        "trainers.train_teacher", *DEMO_TEACHER, "--config.training.num_steps=60",
        "--config.teacher_training.steps=12", "--config.teacher_training.curriculum=((20,4),)"), ".teacher-*"),
    "train_student": Job((
        "trainers.train_student", "--config", "configs/demo.py", "--config.training.num_steps=60",
        "--config.compare.evaluate_every=6"), partial_name("student.keras"), "",
        ("train_teacher", "--config.compare.teacher={}/teacher")),
    "train_baseline": Job((
        "trainers.train_baseline", "--config", "configs/demo.py", "--config.training.num_steps=60",
        "--config.compare.evaluate_every=6"), partial_name("student.keras")),
    "train_student, translation": Job((
        "trainers.train_student", "--config", "configs/translation_lstm1.py", *SMALL_TRANSLATION), "last"),
    "train_teacher, translation": Job((
        "trainers.train_teacher", "--config", "configs/translation_lstm1.py", *SMALL_TRANSLATION, *SMALL_TEACHER,
        "--config.teacher_training.steps=8", "--config.teacher.loss=stable"),
        ".teacher-*", "", ("train_student, translation", "--config.training.start={}/best")),
    "distill": Job((
        "trainers.distill", "--config", "configs/distill_mnist.py", *DIGITS, "--config.method.name=prokt",
        "--config.student.name=resnet8", "--config.teacher.name=mlp", "--config.training.num_steps=12",
        "--config.training.evaluate_every=2"), partial_name("student.keras")),
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
        "--config.training.num_steps=4", "--config.training.stop_at=2",
        "--config.compare.students=('lstm1',)", "--config.compare.losses=('mle','taught')",
        "--config.compare.loss_options=()", "--config.compare.num_steps=4", "--config.compare.evaluate_every=2",
        "--config.compare.seeds=2", "--config.teacher_training.steps=4"), "report.html"),
}


def command(job: Job, workdir: pathlib.Path, extra: Sequence[str] = ()) -> list[str]:
    return [sys.executable, "-m", *job.arguments, *extra, "--verbose=0", "--workdir", str(workdir)]


def hour(minutes: float, kills: int, rng: random.Random, folder: pathlib.Path) -> list[dict[str, Any]]:
    """The rows of a longer training with faults in its numbers, one left alone and one disturbed."""
    job = Job(("benchmarks.faulty", *DEMO_TEACHER, "--config.training.num_steps=300"), ".teacher-*")
    alone, disturbed = folder / "alone", folder / "disturbed"
    with concurrent.futures.ThreadPoolExecutor() as pool:
        short, longer = (max(pool.map(run_through, (
            command(job, folder / f"{steps}-{number}", [f"--config.teacher_training.steps={steps}"])
            for number in range(2)))) for steps in (6, 30))
        steps = max(30, round(60 * minutes * 24 / max(longer - short, 1e-9)))
        extra = [f"--config.teacher_training.steps={steps}"]
        print(f"{HOUR}: {steps} teacher steps of {(longer - short) / 24:.2f} s", flush=True)
        watched = pool.submit(resident, command(job, alone, extra))
        outcome = disturb(command(job, disturbed, extra), disturbed, 2 * 60 * minutes / max(kills, 1), kills, rng,
                          job.ending, [kind for kind in KINDS if kind != KINDS[3]])
        samples = watched.result()
    history = json.loads((alone / "history.json").read_text())
    faults, told = sum(bool(faulty.fault(step)) for step in range(steps)), int(history["dropped"][-1])
    first, growth = grown([megabytes for second, megabytes in samples
                           if second >= min(60 * WARM_MINUTES, samples[-1][0] / 6)])
    rows = outcome_rows(HOUR, [outcome], [compared(kept(disturbed), kept(alone))])
    return [*rows, {"what": f"{HOUR}: faults in the numbers", "tried": faults, "lost": abs(faults - told)},
            {"what": f"{HOUR}: memory", "tried": 1, "lost": int(growth >= 2), "minutes": round(samples[-1][0] / 60),
             "teacher_steps": steps, "rollbacks": int(history["rollbacks"][-1]), "first_mb": round(first),
             "growth_percent": round(growth, 2)}]


def grown(megabytes: Sequence[float]) -> tuple[float, float]:
    """Where resident memory begins, and how much it grows from first to last, in %: a steady growth has two thirds of
    it between the medians of the first and the last third."""
    third = max(1, len(megabytes) // 3)
    first, last = (float(np.median(part)) for part in (megabytes[:third], megabytes[-third:]))
    return first, 100 * (last / first - 1) * 3 / 2


def resident(arguments: list[str]) -> list[tuple[float, float]]:
    """Runs a command to its end; its resident MB, every second."""
    with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process, \
            concurrent.futures.ThreadPoolExecutor() as pool:
        assert process.stderr
        said = pool.submit(process.stderr.read)
        samples = list(_resident(process))
    if process.returncode:
        raise RuntimeError(f"{arguments} ended with {process.returncode}: {said.result().decode()[-2000:]}")
    return samples


def _resident(process: subprocess.Popen[bytes]) -> Iterator[tuple[float, float]]:
    started = time.monotonic()
    while process.poll() is None:
        pages = int(pathlib.Path(f"/proc/{process.pid}/statm").read_text().split()[1])
        if pages:  # none are left of a process that has ended and was not waited for
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
    outcomes: list[Outcome] = []
    ends: list[tuple[int, int]] = []
    done = 0
    while done < kills:
        shutil.rmtree(folder / "run", ignore_errors=True)
        outcome = disturb(command(job, folder / "run", extra), folder / "run", seconds, kills - done, rng, job.ending,
                          before=tried_of(outcomes))
        ends.append(compared(kept(folder / "run", job.result), expected))
        outcomes, done = [*outcomes, outcome], done + killed(outcome.ended)
        print(f"{name}: {outcome}, {'ANOTHER' if ends[-1][1] else 'the same'} end", flush=True)
    return outcome_rows(name, outcomes, ends)


def tried_of(outcomes: Sequence[Outcome]) -> dict[str, int]:
    return {kind: sum(outcome.ended[kind] for outcome in outcomes) for kind in KINDS}


def outcome_rows(name: str, outcomes: Sequence[Outcome], ends: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
    """The rows of trainings that were disturbed; of each end, the bytes that were compared and those that differ."""
    tried = tried_of(outcomes)
    tried |= {"files damaged": sum(outcome.damaged for outcome in outcomes), "trainings": len(outcomes)}
    lost = sum(differing > 0 for _, differing in ends)
    return [*({"what": f"{name}: {what}", "tried": count, "lost": lost} for what, count in tried.items()),
            {"what": f"{name}: bytes", "tried": sum(count for count, _ in ends),
             "lost": sum(differing for _, differing in ends)}]


def fuzz() -> list[dict[str, Any]]:
    """The rows of the fuzz tests: what hypothesis tried in each, and 1 for a test that failed."""
    try:
        done = subprocess.run([
            sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-o", "addopts=", "--hypothesis-profile=soak",
            "--hypothesis-show-statistics", "-rf", *FUZZ_TESTS], cwd=ROOT, capture_output=True, text=True, check=False,
            timeout=3600 * FUZZ_HOURS)
    except subprocess.TimeoutExpired:  # one of the inputs is waited for
        return [{"what": "fuzz: all within their time", "tried": 1, "lost": 1}]
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
    parser.add_argument("--only", nargs="*", choices=JOBS, default=list(JOBS), help="these short trainings; or none")
    parser.add_argument("--kills", type=int, default=20, help="of every training, by SIGKILL")
    parser.add_argument("--minutes", type=float, default=60, help="of the longer training; 0 for none")
    parser.add_argument("--fuzz", action=argparse.BooleanOptionalAction, default=True, help="many random inputs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--measured", type=pathlib.Path, default=MEASURED)
    options = parser.parse_args()
    if options.kills < 1:
        parser.error("--kills must be at least 1; --only without names leaves out the short trainings.")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as made:
        folder = pathlib.Path(made)
        for name in options.only:
            (folder / name).mkdir()
            rows += soak(name, options.kills, random.Random(f"{options.seed} {name}"), folder / name)
            record(options.measured, rows, KEY)
        if options.minutes:
            rows += hour(options.minutes, options.kills, random.Random(f"{options.seed} {HOUR}"), folder)
    if options.fuzz:
        rows += fuzz()
    for row in rows:
        print(row)
    record(options.measured, rows, KEY)
    if any(row["lost"] for row in rows):
        sys.exit("something was lost")


if __name__ == "__main__":
    main()
