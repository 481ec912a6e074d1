"""The soak: that it ends trainings, spoils states, and sees a training that comes out otherwise."""

import functools
import random
import subprocess
import sys
import time

import pytest
import tensorflow as tf

from benchmarks import disturb, faulty, soak
from benchmarks.tables import reliability_table
from tf_l2t.training.checkpoints import Checkpoints
from tf_l2t.training.workdir import read_sealed, write_sealed


@pytest.fixture
def counting(monkeypatch):
    for name, options in (("counting", ()), ("forgetful", ("--forgetful",))):
        monkeypatch.setitem(soak.JOBS, name, soak.Job(("tests.benchmarks.counting", *options), "ending"))


def test_a_training_that_goes_on_loses_nothing(counting, tmp_path):
    rows = soak.soak("counting", 4, random.Random(0), tmp_path)
    tried = {row["what"].removeprefix("counting: "): row["tried"] for row in rows}
    assert disturb.killed({kind: tried[kind] for kind in disturb.KINDS}) == 4 and tried["trainings"] >= 1
    assert all(row["lost"] == 0 for row in rows)
    assert disturb.kept(tmp_path / "whole")["checkpoints-20/variables/0/.ATTRIBUTES/VARIABLE_VALUE"] == \
        (20).to_bytes(8, "little")
    counts = " | ".join(str(tried[kind]) for kind in (*disturb.KINDS, "files damaged", "trainings"))
    more = [{"what": "fuzz: test_a", "tried": 1200, "lost": 0}, {"what": "fuzz: test_b[c: d]", "tried": 7, "lost": 1},
            {"what": "counting: faults in the numbers", "tried": 21, "lost": 1},
            {"what": "counting: memory", "tried": 1, "lost": 0, "minutes": 60, "teacher_steps": 2000, "rollbacks": 3,
             "first_mb": 1200, "growth_percent": -0.1}]
    table = reliability_table(rows + more)
    assert tried["bytes"] == 8 * tried["trainings"]
    assert f"| counting | {counts} | {tried['bytes']} | 0 |" in table and "| `test_b[c: d]` | 7 | 1 |" in table
    assert "| together | 1,207 | 1 |" in table and "1,200 MB, and -0.10 % from minute 10 to minute 60, in" in table
    assert "Faults in the numbers of counting: 21 injected, 20 counted." in table
    assert "minute 60, in 2,000 teacher steps and 3 rollbacks." in table


def test_a_training_that_comes_out_otherwise_is_seen(counting, tmp_path):
    rows = soak.soak("forgetful", 1, random.Random(0), tmp_path)
    assert all(row["lost"] >= 1 for row in rows) and 1 <= rows[-1]["lost"] <= rows[-1]["tried"] == 8


def test_bytes_are_compared():
    assert disturb.compared({"a": b"12", "b": b"3"}, {"a": b"12", "b": b"3"}) == (3, 0)
    assert disturb.compared({"a": b"1x", "c": b"45"}, {"a": b"12", "b": b"3"}) == (3, 4)
    assert disturb.compared({"a": b"123"}, {"a": b"12"}) == (2, 1)


TOLD = """
import pathlib, signal, sys, time
there = pathlib.Path(sys.argv[1])
if (there / "through").exists():
    sys.exit(0)
(there / "through").touch()
{}
(there / "listens").touch()
time.sleep(60)
"""


@pytest.mark.parametrize(("listens", "right"), [("signal.signal(15, lambda *_: sys.exit(75))", True), ("", True),
                                                ("signal.signal(15, lambda *_: sys.exit(3))", False),
                                                ("signal.signal(15, lambda *_: (signal.signal(15, signal.SIG_DFL), "
                                                 "signal.raise_signal(15)))", False)])
def test_sigterm_is_answered_as_soon_as_it_is_listened_to(listens, right, tmp_path, monkeypatch):
    """The first run is told to end, where it listens or where it does not yet, and the next one is through."""
    def reached(process, *_):
        while not (tmp_path / "listens").exists():
            time.sleep(0.01)
        (tmp_path / "listens").unlink()
        return True

    monkeypatch.setattr(disturb, "_reached", reached)
    monkeypatch.setattr(disturb, "killed", lambda ended: sum(ended.values()))
    call = functools.partial(disturb.disturb, [sys.executable, "-c", TOLD.format(listens), str(tmp_path)], tmp_path,
                             1.0, 1, random.Random(0), "none", ["SIGTERM"])
    if right:
        assert call().ended["SIGTERM"] == 1
    else:
        with pytest.raises(RuntimeError, match=r"ended with (3|-15)"):
            call()


def test_a_state_that_was_left_unsealed_is_not_one_in_the_making(tmp_path):
    (tmp_path / "state-1.index").write_text("left by a process that was killed")
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1.0)"]) as process:
        assert not disturb._reached(process, disturb.KINDS[2], tmp_path, 1.0, random.Random(0), "none")
    arguments = [sys.executable, "-c",
                 f"import time; time.sleep(0.5); open({str(tmp_path)!r} + '/state-2.index', 'w'); time.sleep(60)"]
    with subprocess.Popen(arguments) as process:
        assert disturb._reached(process, disturb.KINDS[2], tmp_path, 1.0, random.Random(0), "none")
        process.kill()


def test_a_kill_within_a_step_is_behind_two_states(tmp_path):
    arguments = [sys.executable, "-c", f"""
import pathlib, time
for number in range(4):
    time.sleep(0.4)
    pathlib.Path({str(tmp_path)!r}, f"state-{{number}}.json").write_text("")
time.sleep(60)"""]
    with subprocess.Popen(arguments) as process:
        assert disturb._reached(process, disturb.KINDS[1], tmp_path, 1.0, random.Random(0), "none")
        process.kill()
    assert 2 <= len([*tmp_path.glob("state-*.json")]) <= 3


def test_another_end_is_an_error(tmp_path):
    arguments = [sys.executable, "-c", "import sys; sys.exit('broken')"]
    with pytest.raises(RuntimeError, match="ended with 1: broken"):
        disturb.disturb(arguments, tmp_path, 0.1, 0, random.Random(0), "none")


def test_a_state_in_the_making_is_seen(tmp_path):
    states = Checkpoints(tmp_path / "checkpoints", [tf.Variable(1.0)], {})
    assert not disturb._unsealed(tmp_path)
    states.save(1, {})
    assert not disturb._unsealed(tmp_path)
    (tmp_path / "checkpoints/state-1.json").unlink()
    assert disturb._unsealed(tmp_path)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.filterwarnings("ignore:.*state-2.*:UserWarning")
def test_every_damage_is_found(tmp_path, seed):
    variable = tf.Variable(1.0)
    states = Checkpoints(tmp_path / "checkpoints", [variable], {})
    assert disturb.damage(tmp_path, random.Random(seed)) == 0  # nothing is there yet
    for number in (1, 2):
        variable.assign(number)
        states.save(number, {"number": number})
    listed = (tmp_path / "checkpoints" / "checkpoint").read_bytes()
    assert disturb.damage(tmp_path, random.Random(seed)) == 1
    of_list = (tmp_path / "checkpoints" / "checkpoint").read_bytes() if \
        (tmp_path / "checkpoints" / "checkpoint").exists() else b""
    newest = 1 if of_list == listed else 2  # the list is not what says which states there are
    assert states.restore() == {"number": newest} and float(variable) == newest


@pytest.mark.parametrize("place", ["dev60/rows/taught.json", "lstm1/seed0/mle-0.1/results.json"])
@pytest.mark.parametrize("seed", range(8))
def test_results_of_a_part_are_damaged_too(tmp_path, place, seed):
    values = {"losses": [0.25, 1e-05], "name": "taught"}
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / "results.json").write_text("of the whole")
    rng, spoiled = random.Random(seed), 0
    write_sealed(tmp_path / place, values)
    while not spoiled:  # there are no states, of which it would be otherwise
        spoiled = disturb.damage(tmp_path, rng)
    with pytest.warns(UserWarning, match="made again"):
        assert read_sealed(tmp_path / place) is None
    assert (tmp_path / "results.json").read_text() == "of the whole"


STATISTICS = """
tests/test_fuzz.py::test_arrays:

  - during generate phase (0.34 seconds):
    - Typical runtimes: ~ 0-3 ms, of which ~ 0-2 ms in data generation
    - 40 passing, 0 failing, and 9 invalid test cases

  - Stopped because settings.max_examples=40


tests/test_fuzz_configs.py::test_configs[table of distillation]:

  - during reuse phase (0.06 seconds):
    - 1 passing examples, 0 failing examples, 0 invalid examples
  - during generate phase (0.06 seconds):
    - 6 passing examples, 1 failing examples, 0 invalid examples


=========================== short test summary info ============================
FAILED tests/test_fuzz_configs.py::test_configs[table of distillation] - Type...
"""


def test_what_hypothesis_tried_is_read():
    assert soak.fuzz_rows(STATISTICS) == [
        {"what": "fuzz: test_arrays", "tried": 40, "lost": 0},
        {"what": "fuzz: test_configs[table of distillation]", "tried": 8, "lost": 1}]


def test_memory_is_read():
    samples = soak.resident([sys.executable, "-c", "x = bytearray(200_000_000); import time; time.sleep(2.5)"])
    assert len(samples) >= 3 and 200 < max(megabytes for _, megabytes in samples) < 300
    with pytest.raises(RuntimeError, match="ended with 1: broken"):
        soak.resident([sys.executable, "-c", "import sys; sys.exit('broken')"])


def test_growth_of_memory():
    first, growth = soak.grown([1000 + 0.1 * second for second in range(601)])  # 6 % in all, steadily
    assert first == pytest.approx(1010, abs=0.1) and growth == pytest.approx(6, abs=0.1)
    assert soak.grown([5.0]) == (5.0, 0.0)


def test_faults_of_the_hour():
    """One in twelve, of each kind, and three in a row, before which stands a step that was not validated."""
    faults = [step for step in range(960) if faulty.fault(step)]
    assert len(faults) == 80 + 6 and {faulty.fault(step) for step in faults[:3]} == set(faulty.KINDS)
    assert {250, 251, 252, 730, 731, 732} <= set(faults) and not {249, 253, 729, 733} & set(faults)
    assert all((step + 1) % 3 for step in (249, 729))  # see --config.teacher_training.validation_freq of the soak
