import concurrent.futures
import errno
import fcntl
import json
import os
import shutil
import stat
import subprocess
import sys

import pytest

from tf_l2t.files import write_whole
from tf_l2t.training import workdir
from tf_l2t.training.measured import (
    KEY,
    ablation_table,
    amend,
    error_table,
    fill_tables,
    groups,
    ratio_table,
    ratios,
    record,
    summary_table,
)
from tf_l2t.training.workdir import (
    check_resumable,
    check_workdir,
    create_workdir,
    read_sealed,
    resume_workdir,
    write_json,
    write_sealed,
)


def test_results_that_are_damaged_are_seen(tmp_path):
    file, values = tmp_path / "results.json", {"a": [1, 0.1, None], "ü": {"b": True}}
    assert read_sealed(file) is None
    write_sealed(file, values | {"c": (1, 2)})
    assert read_sealed(file) == values | {"c": [1, 2]}
    whole = file.read_text()
    for damaged in (whole.replace("0.1", "0.2"), whole[:-5], "[]", "", whole.replace("true", "1"),
                    whole.replace("sha256", "sha257"), '{"a": 1}'):
        assert damaged != whole
        file.write_text(damaged)
        with pytest.warns(UserWarning, match="what it says is made again"):
            assert read_sealed(file) is None


def test_a_file_system_without_locks_is_refused(tmp_path, monkeypatch):
    def unlockable(descriptor, how):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(workdir.fcntl, "flock", unlockable)
    with pytest.raises(ValueError, match=r"a file system without locks \(No locks available\)"):
        create_workdir(tmp_path / "run", "c", {}, {})


def test_what_is_locked_is_a_file_that_may_be_written_to(tmp_path, monkeypatch):
    """NFS locks directories, and files that are only read, on each machine by itself, and says that they are locked."""
    locked = []
    monkeypatch.setattr(workdir.fcntl, "flock", lambda descriptor, how: locked.append(
        (stat.S_ISREG(os.fstat(descriptor).st_mode), fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE)))
    create_workdir(tmp_path / "run", "c", {}, {})
    assert locked == [(True, os.O_RDWR)]


def test_a_run_gets_a_manifest(tmp_path):
    path = create_workdir(tmp_path / "a" / "b", "python -m x", {"seed": 1}, {"train": 5})
    manifest = json.loads((path / "manifest.json").read_text())
    assert (manifest["command"], manifest["config"], manifest["data"]) == ("python -m x", {"seed": 1}, {"train": 5})
    assert {"python", "tensorflow", "keras", "numpy", "tf_l2t"} == set(manifest["versions"])
    assert "cores" in manifest["machine"]


def test_a_directory_in_use_is_never_touched(tmp_path):
    create_workdir(tmp_path / "run", "c", {}, {})
    before = (tmp_path / "run" / "manifest.json").read_bytes()
    with pytest.raises(ValueError, match="another run"):
        create_workdir(tmp_path / "run", "d", {}, {})
    assert (tmp_path / "run" / "manifest.json").read_bytes() == before
    with pytest.raises(ValueError, match="other files"):
        check_workdir(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        check_workdir(tmp_path / "file")
    with pytest.raises(ValueError, match="new directory"):
        check_workdir("")
    (tmp_path / "empty").mkdir()
    assert check_workdir(tmp_path / "empty").is_dir()
    assert check_workdir(tmp_path / "new") == tmp_path / "new"
    assert not (tmp_path / "new").exists()


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path, written = tmp_path / "best.keras", []

    def write(file):
        written.append(file)
        file.write_text("new")

    def full(file):
        write(file)
        raise OSError(28, "No space left on device")

    path.write_text("old")
    with pytest.raises(OSError, match="No space"):
        write_whole(path, full)
    assert path.read_text() == "old" and [*tmp_path.iterdir()] == [path]
    write_whole(path, write)
    assert path.read_text() == "new" and [*tmp_path.iterdir()] == [path]
    assert all(file.parent == tmp_path and file.suffix == ".keras" and file != path for file in written)


def test_a_run_goes_on_only_as_it_began(tmp_path):
    config, data = {"rows": ["a"], "rate": 0.1}, {"train": 5}
    path = resume_workdir(tmp_path / "run", "c", config, data)
    before = (path / "manifest.json").read_bytes()
    (path / "result.txt").write_text("done")
    assert resume_workdir(path, "the same, typed otherwise", config | {"rows": ("a",)}, data) == path
    assert (path / "manifest.json").read_bytes() == before
    for other, what in (((config | {"rate": 0.2}, data), "config"), ((config, {"train": 6}), "data")):
        with pytest.raises(ValueError, match=f"of another {what}"):
            resume_workdir(path, "c", *other)
    with pytest.raises(ValueError, match="another run"):
        create_workdir(path, "c", config, data)
    (path / "manifest.json").write_bytes(before.replace(b" cores", b"0 cores"))
    with pytest.warns(UserWarning, match="not end with the same bits"):
        check_resumable(path, config, data)
    (path / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        check_resumable(path, config, data)
    with pytest.raises(ValueError, match="other files"):
        check_resumable(tmp_path, config, data)


def test_a_directory_is_used_by_one_process_at_a_time(tmp_path):
    code = ("import sys; from tf_l2t.training.workdir import resume_workdir\n"
            "try: resume_workdir(sys.argv[1], 'c', {}, {}); print('begun', flush=True)\n"
            "except ValueError as error: print(error, flush=True)\n"
            "sys.stdin.read()")

    def start():
        process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "run")], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, text=True)
        return process, process.stdout.readline()

    first, said = start()
    assert said == "begun\n"
    with pytest.raises(ValueError, match="another process works"):
        resume_workdir(tmp_path / "run", "c", {}, {})
    first.kill()  # not even a clean end
    first.wait()
    second, said = start()
    assert said == "begun\n"
    second.communicate("")
    assert resume_workdir(tmp_path / "run", "c", {}, {}) == resume_workdir(tmp_path / "run", "c", {}, {})
    shutil.rmtree(tmp_path / "run")  # another directory of the same name is another one
    resume_workdir(tmp_path / "run", "c", {}, {})
    third, said = start()
    third.communicate("")
    assert "another process works" in said


def row(loss, mean, setting="clean", dev_size=500):
    return {"setting": setting, "dev_size": dev_size, "student": "mlp", "loss": loss, "test_error_mean": mean,
            "test_error_std": 0.5, "learning_rate": 0.1, "tune_rate": None, "seeds": 3,
            "command": "python -m trainers.compare"}


def test_rows_replace_their_predecessors(tmp_path):
    path = tmp_path / "m.json"
    record(path, [row("taught", 2.0), row("cross_entropy", 3.0)])
    record(path, [row("taught", 1.5), row("taught", 9.0, "shifted40"), row("taught", 8.0, "shifted40", 1000)])
    stored = json.loads(path.read_text())
    assert [(r["setting"], r["loss"], r["test_error_mean"]) for r in stored["rows"]] == [
        ("clean", "cross_entropy", 3.0), ("clean", "taught", 1.5), ("shifted40", "taught", 9.0),
        ("shifted40", "taught", 8.0)]
    assert {"date", "machine", "versions", "rows"} == set(stored)
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(ValueError, match="no file of measured figures"):
        record(tmp_path / "other.json", [row("taught", 1.0)])


def test_rows_recorded_at_the_same_time_are_all_kept(tmp_path):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: record(tmp_path / "m.json", [row(f"loss{i}", i)]), range(40)))
    assert len(json.loads((tmp_path / "m.json").read_text())["rows"]) == 40


def test_rows_are_amended_with_their_dates(tmp_path):
    file = tmp_path / "m.json"
    record(file, [row("a", 1.0), row("b", 2.0)])
    stored = json.loads(file.read_text())
    stored["rows"][0]["date"] = stored["date"] = "2026-01-01"
    file.write_text(json.dumps(stored))
    key = {name: stored["rows"][0][name] for name in KEY}
    amend(file, [key | {"seeds": 7, "new": [1]}, key | {"loss": "none"}])
    stored["rows"][0] |= {"seeds": 7, "new": [1]}
    assert json.loads(file.read_text()) == stored
    with pytest.raises(FileNotFoundError):
        amend(tmp_path / "none.json", [key])
    file.write_text("{")
    with pytest.raises(ValueError, match="no file of measured figures"):
        amend(file, [key])


def test_a_table_of_one_setting_and_the_summary():
    rows = [{**row(loss, mean, "shifted40"), "date": "2026-01-01"} for loss, mean in (
        ("cross_entropy", 20.0), ("focal", 18.0), ("train_tuned", 6.0), ("gold_correction", 5.5), ("taught", 5.2),
        ("taught_tuned", 4.9), ("oracle_forward", 4.5), ("oracle_clean", 3.5))]
    rows[4] |= {"teachers": 5, "worst_teacher": 2, "worst_teacher_error": 5.71, "variant": {"m": 3}}
    rows.append({**row("cross_entropy", 2.0, "clean", 10_000), "date": "2026-01-01"})
    table = error_table(rows, "shifted40")
    assert "| clean |" not in table and "| taught, m 3 | 0.1 | 5.20 ± 0.50 | – | 5.71 (number 2) | 5 × 3 |" in table
    assert error_table(rows, "uniform40") == "No figures yet."
    shifted, clean = summary_table(rows).splitlines()[2:]
    assert shifted == ("| shifted40 | 500 | mlp | 20.00 ± 0.50 | 18.00 ± 0.50 (focal) | 5.20 ± 0.50 | "
                       "5.50 ± 0.50 (gold_correction) | 4.90 ± 0.50 | 4.50 ± 0.50 | 3.50 ± 0.50 |")
    assert clean == "| clean | 10000 | mlp | 2.00 ± 0.50 | – | – | – | – | – | – |"
    assert "| keys: 1 | 0.1 | 3.00 ± 0.50 | – |" in ablation_table([{**row("taught", 3.0), "ablation": "keys: 1"}])


def test_tables_are_filled_in_place(tmp_path):
    record(tmp_path / "mnist.json", [row("taught", 1.5)])
    filled = fill_tables("a\n<!-- measured: mnist -->\nold\n<!-- end -->\nb", tmp_path)
    table = error_table(json.loads((tmp_path / "mnist.json").read_text())["rows"])
    assert filled == f"a\n<!-- measured: mnist -->\n{table}\n<!-- end -->\nb"
    assert "1.50 ± 0.50" in filled and fill_tables(filled, tmp_path) == filled
    with pytest.raises(ValueError, match="'none'"):
        fill_tables("<!-- measured: none -->\n<!-- end -->", tmp_path)


def test_ratios_by_hand():
    names = {"cross_entropy": 8.0, "focal": 6.0, "dev_only": 5.0, "oracle_forward": 4.0, "oracle_clean": 1.0,
             "taught": 3.0, "taught_tuned": 2.0}
    rows = [{"setting": "s", "dev_size": 5, "student": "mlp", "loss": loss, "test_error_mean": value}
            for loss, value in names.items()]
    group, = groups(rows)
    assert ratios(group) == (3 / 8, 3 / 6, 2 / 5, 2 / 4)
    assert ratios(groups(rows[1:2])[0]) == (None,) * 4
    assert ratio_table(rows).splitlines()[2] == "| s | 5 | mlp | 0.375 | 0.500 | 0.400 | 0.500 |"
