"""How commands end, whatever their work does."""

import os
import signal

import pytest

from tests.commands import run_code

SCRIPT = """
import os, signal, sys, time
import tensorflow as tf
from trainers import command

def work():
    {}

sys.argv = ["x", "--config=configs/demo.py", "--workdir=x"]
command.main(lambda config, workdir: work)
"""


def run(work):
    done = run_code(SCRIPT.format(work))
    return done.returncode, done.stderr.splitlines()


@pytest.mark.parametrize(("reason", "code"), [
    ("No space left on device", 2), ("Read-only file system", 2), ("rain", 1)])
def test_tensorflow_s_errors_of_a_full_disk_are_one_sentence(reason, code):
    """Those of a disk, such as event files and exports raise; others keep their traceback."""
    found, lines = run(f"raise tf.errors.ResourceExhaustedError(None, None, '/x/events.v2; {reason}')")
    said = [line for line in lines if line.startswith("error:")]
    assert found == code
    assert said == ([f"error: something cannot be written: /x/events.v2; {reason}"] if code == 2 else [])
    assert any("Traceback" in line for line in lines) == (code == 1)


def test_sigterm_outside_of_a_training_says_so_too():
    code, lines = run("os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)")
    assert code == os.EX_TEMPFAIL == 75
    assert lines[-1] == "told to end (SIGTERM); what is kept is kept, and the same command goes on."


def test_a_second_sigterm_ends_it_at_once():
    tell = "os.kill(os.getpid(), signal.SIGTERM)"
    assert run(f"try:\n        {tell}\n    finally:\n        {tell}")[0] == -signal.SIGTERM
