"""`trainers.train_teacher` in two processes, as on two machines."""

import pathlib
import subprocess
import sys

import numpy as np

import tf_l2t
from tests.clusters import environments
from tests.commands import run_module, start_module
from tests.test_trainers import SMALL

ROOT = pathlib.Path(__file__).parent.parent


def run(folder, *more, first=()):
    """Exit codes and outputs of two processes, the first one run by a command; `more` are arguments of their own. Each
    has a work directory of its own."""
    processes = []
    for index, env in enumerate(environments()):
        arguments = ["--config", "configs/demo.py", *SMALL, "--verbose=0",
                     "--config.teacher_training.strategy=multi_worker", "--config.teacher_training.rollouts=2",
                     "--workdir", str(folder / f"run{index}"), *(more[index] if more else ())]
        processes.append(start_module("trainers.train_teacher", *arguments, env=env) if index or not first else
                         subprocess.Popen([*first, sys.executable, "-m", "trainers.train_teacher", *arguments],
                                          cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    outs = [process.communicate(timeout=300) for process in processes]
    return [process.returncode for process in processes], outs


def test_two_processes_train_one_teacher(tmp_path):
    """The first writes it, the other nothing; it is the teacher of one process to rounding."""
    codes, outs = run(tmp_path)
    assert codes == [0, 0], outs
    assert not (tmp_path / "run1").exists() and f"teacher: {tmp_path / 'run0' / 'teacher'}" in outs[0][0]
    alone = run_module("trainers.train_teacher", "--config", "configs/demo.py", *SMALL, "--verbose=0",
                       "--config.teacher_training.rollouts=2", "--workdir", str(tmp_path / "alone"))
    assert alone.returncode == 0, alone.stderr
    teachers = [tf_l2t.load_teacher(tmp_path / name / "teacher") for name in ("run0", "alone")]
    for a, b in zip(*(teacher.theta for teacher in teachers), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_what_one_process_refuses_all_do(tmp_path):
    """With exit code 2: a scheduler that starts them again would do so for ever."""
    for index in range(2):
        bad = [["--config.training.batch_size=9999"] if number == index else [] for number in range(2)]
        codes, outs = run(tmp_path, *bad)
        assert codes == [2, 2], outs
        assert "batch_size must be at most the 4740 train examples" in outs[index][1]
        assert "error: another process of this cluster refuses to begin; its message says why." in outs[1 - index][1]
        assert not any(tmp_path.iterdir())


def test_what_the_first_cannot_keep_ends_all(tmp_path):
    """Files of 12 KB at most, as on a full disk; the other one, which writes nothing, does not wait for its return."""
    codes, outs = run(tmp_path, first=("bash", "-c", 'ulimit -f 12; exec "$@"', "bash"))
    assert codes == [2, 2], outs
    assert "state 0 could not be written" in outs[0][1] and "Traceback" not in outs[0][1] + outs[1][1]
    assert "another process of this cluster cannot keep its state; its message says why." in outs[1][1]
