"""The benchmark's own parts; the libraries it compares with are not needed."""

import subprocess
import sys

import numpy as np
import pytest

from benchmarks import first_call, fit, memory, plot, tables, work
from benchmarks.peers import __doc__ as peers_doc
from benchmarks.run import SETTINGS, SPECS, check_agreement, disagreement, empty_row, predicted_mb
from benchmarks.workers import Failed, Worker


def row(library="tf_l2t", schedule="store_all", ms=2.0, steps=200, peak=100.0, **more):
    return {"student": "mlp", "batch": 20, "steps": steps, "library": library, "schedule": schedule, "hvp": None,
            "jit": library == "jax", "allocator": "default", "ms_per_step": ms, "plain_ms_per_step": 1.0,
            "peak_mb": peak, "compile_s": 0.5, "repetitions": 7, "command": "python -m benchmarks.run", **more}


@pytest.mark.parametrize("student", ["mlp", "lenet"])
def test_the_arrays_are_drawn_alike_every_time(student):
    spec = work.Spec(student, 4, 6)
    one, other = work.drawn(spec, 100), work.drawn(spec, 100)
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name])
    assert one["batches"].shape == (6, 4) and one["batches"].max() < 100
    assert one["features"].shape == (6, work.NUM_FEATURES) and 0 <= one["features"].min() <= one["features"].max() <= 1
    assert not np.allclose(one["values"], one["values"].transpose(1, 0, 2))


def test_the_work_is_read_as_written(tmp_path):
    spec = work.Spec("mlp", 3, 5)
    work.write(tmp_path / "work.npz", spec)
    read = work.read(tmp_path / "work.npz")
    assert read.student == "mlp" and read.steps == 5 and read.x_dev.shape == (work.DEV_SIZE, 28, 28, 1)
    assert read.x_train.dtype == np.float32 and [p.shape for p in read.params] == [(784, 500), (500,), (500, 10), (10,)]


@pytest.mark.parametrize("polled", [False, True])
def test_the_peak_of_a_child_process_is_seen_from_outside(polled, monkeypatch):
    code = ("import sys\nprint(flush=True)\nsys.stdin.readline()\nblock = b'x' * (200 * 2**20)\n"
            "import time; time.sleep(0.05)\ndel block\nprint(flush=True)\nsys.stdin.readline()")
    if polled:
        def refused(*_):
            raise PermissionError

        monkeypatch.setattr("pathlib.Path.write_text", refused)
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True) as child:
        child.stdout.readline()
        base = memory.resident(child.pid)
        with memory.Peak(child.pid) as peak:
            child.stdin.write("\n")
            child.stdin.flush()
            child.stdout.readline()
        assert memory.resident(child.pid) - base < 20 * 2**20
        child.stdin.close()
    assert not (polled and peak.exact)
    assert peak.peak - base == pytest.approx(200 * 2**20, rel=0.1)


def test_times_are_divided_by_every_peers_fastest():
    rows = [row(ms=1.5), row("jax", ms=3.0), row("jax", "every_k", ms=2.0), row("torchopt", ms=None, note="too slow"),
            row(steps=100)]
    text = tables.TABLES["engine mlp"](rows)
    first, second, *_ = text.splitlines()[2:]
    assert first == "| tf_l2t, store_all | 1.00 | 1.50 | 1.50 | 0.75 | – | – | 100 | 0.5 |"
    assert second.startswith("| JAX, every_k") and "| JAX, store_all | 1.00 | 3.00 | 3.00 | 1.50 |" in text
    assert "too slow" in text and text.endswith("    python -m benchmarks.run")
    assert len(text.splitlines()) == 2 + 4 + 2


def test_memory_is_tabled_against_steps():
    rows = [row(steps=100, peak=100.0, planned_mb=80.0), row(steps=300, peak=300.0, planned_mb=330.0),
            row(steps=1000, ms=None, peak=None, predicted_mb=1000, note="not run"), row(steps=200)]
    line = tables.TABLES["engine memory"](rows).splitlines()[2]
    assert line == "| tf_l2t, store_all | 100 | 300 | (1,000) | – | – | 1.00 | 24,576 | 0.80 … 1.10 |"
    assert predicted_mb([(100, 100.0), (300, 300.0)], 1000) == pytest.approx(1000)
    assert predicted_mb([(100, 100.0)], 1000) == 0


def test_the_picture_is_drawn(tmp_path):
    plot.draw([row(steps=100), row(steps=300, peak=300.0), row("jax", steps=100)], tmp_path / "engine.png")
    assert (tmp_path / "engine.png").stat().st_size > 1000


def test_libraries_that_disagree_are_not_timed():
    good = {"objective": np.array(0.5), "values": np.ones(3)}
    check_agreement({"one": good, "other": {**good, "values": np.ones(3) * 1.0005}})
    with pytest.raises(SystemExit, match="third and one disagree"):
        check_agreement({"one": good, "third": {**good, "values": np.ones(3) * 1.01}})
    assert disagreement({"values": np.ones(3)}, {"values": np.zeros(3)}) == {"values": np.inf}
    assert disagreement({"values": np.full(3, np.nan)}, {"values": np.ones(3)}) == {"values": np.inf}


def test_settings_are_told_apart_by_the_key():
    rows = [empty_row(setting, SPECS[student]) for setting in SETTINGS for student in setting.students]
    assert len({tuple(r[k] for k in tables.KEY) for r in rows}) == len(rows)
    assert {*tables.KEY, *tables.FIGURES} <= set(rows[0])


def test_the_engines_program_serves(tmp_path):
    assert peers_doc
    work.write(tmp_path / "work.npz", work.Spec("mlp", 4, 3))
    setup = {"work": str(tmp_path / "work.npz"), "schedule": "every_k", "jit": False}
    worker = Worker("benchmarks.tf_l2t_run")
    try:
        with pytest.raises(Failed, match="hvp must be"):
            worker.ask("setup", **setup, hvp="nothing")
        worker.ask("setup", **setup, hvp="reverse_over_reverse")
        assert worker.ask("gradient", path=str(tmp_path / "g.npz"))["seconds"] > 0
        assert worker.ask("plain", path=str(tmp_path / "p.npz"))["seconds"] > 0
        with np.load(tmp_path / "g.npz") as result:
            assert 0 < result["objective"] < 1 and result["values"].shape == (10, 10, 10)
            assert np.linalg.norm(result["keys"]) > 0
        with pytest.raises(Failed):
            worker.ask("nothing")
    finally:
        worker.close()


def test_fit_table_divides_the_taught_time_by_that_of_cross_entropy():
    common = {"student": "mlp", "batch": 20, "jit": False}
    rows = [{**common, "loss": "cross_entropy", "ms_per_step": 2.0}, {**common, "loss": "taught", "ms_per_step": 2.1}]
    assert "| mlp | 20 | False | 2.00 | 2.10 | 1.05 |" in tables.fit_table(rows)


def test_fit_is_measured_for_both_losses():
    cross_entropy, taught = fit.measure("mlp", 1000, 1, False, 1)
    assert (cross_entropy["loss"], taught["loss"]) == ("cross_entropy", "taught")
    assert min(cross_entropy["ms_per_step"], taught["ms_per_step"]) > 0


def test_first_call_row_and_table():
    row = first_call.measure("lenet", "forward_over_reverse")
    assert row["weights"] == 431_080 and not row["jit"]
    assert 0 < row["seconds"] < row["compile_s"] and 30 < row["predicted_mb"] < 2 * row["peak_mb"] + 100
    table = tables.first_call_table([row | {"preflight_s": 2.04, "compile_s": 1.06, "seconds": 0.13, "peak_mb": 1_093,
                                            "predicted_mb": 80}])
    assert "| lenet | 431,080 | 8 | forward_over_reverse | no | 2.0 | 1.1 | 0.13 | 1,093 | 80 |" in table


def test_a_step_of_prokt_and_its_parts(monkeypatch):
    """The row's sum and ratio are of its own figures."""
    from benchmarks import distillation
    from tf_l2t.students import mlp

    monkeypatch.setattr(distillation, "network", lambda name: mlp(input_shape=(32, 32, 3), hidden=int(name)))
    row = distillation.measure("4", "3", 2)
    parts = sum(row[f"{part}_ms"] for part in ("teacher", "student", "teacher_forward", "student_forward"))
    assert min(row[f"{part}_ms"] for part in ("prokt", "teacher", "student", "teacher_forward")) > 0
    assert abs(row["parts_ms"] - parts) < 0.03 and abs(row["ratio"] - row["prokt_ms"] / row["parts_ms"]) < 0.02
