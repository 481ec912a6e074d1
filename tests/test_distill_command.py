"""`trainers.distill`: a teacher, students by several methods, and a run that was stopped, at a tiny size."""

import gc
import json
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework.func_graph import FuncGraph

from benchmarks import distillation_steps
from configs import compare_distill_mnist, compare_distill_text, distill_mnist, prokt_glue, prokt_images
from tests.event_files import hyperparameters, scalars
from tf_l2t.distillation import METHODS, DistillationTrainer, method
from tf_l2t.training import distillation_fit
from tf_l2t.training.measured import record
from trainers import command, distill_compare, distillation
from trainers.distill import dry_run, prepare_distillation
from trainers.distill_table import KEY, distillation_table
from trainers.distillation import optimizers

SMALL = {"data.name": "mnist_5k", "data.dev_size": 40, "data.test_size": 50, "data.train_size": 200,
         "student.name": "mlp", "student.hidden": 12, "teacher.name": "mlp", "teacher.hidden": 16,
         "training.num_steps": 8, "training.first_steps": 4, "training.evaluate_every": 2, "training.batch_size": 20,
         "training.decay": "drops:0.5"}


def config_of(**changes):
    """Fields are written with __ for a dot."""
    changes = SMALL | {name.replace("__", "."): value for name, value in changes.items()}
    return command.changed(distill_mnist.get_config(), changes.items())


def train(workdir, **changes):
    prepare_distillation(config_of(**changes), str(workdir), 0)()
    return {name: json.loads((workdir / f"{name}.json").read_text()) for name in ("history", "results", "manifest")}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("distill") / "teacher"
    return workdir, train(workdir, method__name="none", student__hidden=16, training__anchors=2)


def test_a_teacher_and_its_anchors(teacher):
    workdir, found = teacher
    assert [record["step"] for record in found["history"]] == [2, 4, 6, 8]
    assert sorted(path.name for path in (workdir / "anchors").iterdir()) == ["1.keras", "2.keras"]
    last, anchor = (keras.models.load_model(workdir / name) for name in ("student.keras", "anchors/2.keras"))
    for a, b in zip(last.weights, anchor.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    best = max(record["val_accuracy"] for record in found["history"])
    assert found["results"]["best"]["dev"] == pytest.approx(best, abs=1e-6)
    assert found["results"]["last"]["dev"] == pytest.approx(found["history"][-1]["val_accuracy"], abs=1e-6)
    dev, early = distillation.load_data(config_of()).splits.dev, keras.models.load_model(workdir / "anchors/1.keras")
    right = np.mean(np.argmax(early.predict(dev.x, verbose=0), axis=-1) == dev.y)
    assert right == pytest.approx(found["history"][1]["val_accuracy"], abs=1e-6)  # from the middle of the training
    assert right != pytest.approx(best, abs=1e-6)
    for part, name in (("train", "accuracy"), ("validation", "val_accuracy")):
        curve = scalars(workdir / "tensorboard" / part)["epoch_accuracy"]
        assert curve == pytest.approx(dict(enumerate(record[name] for record in found["history"])), rel=1e-5)


@pytest.mark.parametrize("name", ["kd", "rco", "crd", "prokt"])
def test_students(name, teacher, tmp_path):
    changes = {} if name == "prokt" else {"teacher__path": str(teacher[0])}
    options = (("num_negatives", 8),) if name == "crd" else ()
    found = train(tmp_path / "run", method__name=name, method__options=options, training__evaluate_every=4, **changes)
    kept = tmp_path / "run" / "teacher.keras"
    assert kept.is_file() == (name == "prokt")
    if name == "prokt":
        assert keras.models.load_model(kept).count_params() == keras.models.load_model(
            teacher[0] / "student.keras").count_params()
    assert len(found["history"]) == 2 and {"divergence", "teacher_accuracy"} <= set(found["history"][0])
    if name != "prokt":  # the teacher is the one that was trained, an anchor for as many looks as another
        config, files = config_of(**changes), ["student.keras"] * 2
        _, _, batches = distillation.planned(config, keras.models.load_model(teacher[0] / files[0]))
        files = ["anchors/1.keras", "anchors/2.keras"] if name == "rco" else files
        for look, (record, file) in enumerate(zip(found["history"], files, strict=True)):
            x, y, _ = (np.concatenate(part) for part in zip(
                *(batches(config.seed, step) for step in range(4 * look, 4 * look + 4)), strict=True))
            right = np.argmax(keras.models.load_model(teacher[0] / file).predict(x, verbose=0), axis=-1) == y
            assert record["teacher_accuracy"] == pytest.approx(right.mean(), abs=1e-6)
    assert 0 <= found["results"]["last"]["test"] <= 1 and found["results"]["ms_per_step"] > 0


@pytest.mark.parametrize("name", ["fitnet", "vid", "crd"])
def test_weights_of_a_loss_are_the_seeds(name):
    """As the student's: the same of a seed, whatever was drawn before, and others of another; CRD's draws, too."""
    image = {"student__name": "resnet", "teacher__name": "resnet",
             **{f"{part}__options": (("depth", 8), ("widths", (2, 2, 2, 2))) for part in ("student", "teacher")}}
    found = []
    for seed in (3, 3, 4):
        config = config_of(method__name=name, seed=seed, **image,
                           method__options=(("num_negatives", 8),) if name == "crd" else ())
        teacher = distillation.new_teachers(config, method(name))
        trainer, _, _ = distillation.planned(config, teacher)
        layers = trainer._connectors
        found.append([np.array(w) for layer in layers for w in layer.weights])
        if name == "crd":
            found[-1].append(layers[0]._negatives(tf.constant([1, 2])).numpy())
    for own, same, other in zip(*found, strict=True):
        np.testing.assert_array_equal(own, same)
        assert (own == other).all() == (len(np.unique(own)) == 1)  # constants alone are the same
    assert any((own != other).any() for own, other in zip(found[0], found[2], strict=True))


def test_a_run_that_was_stopped_goes_on(tmp_path, monkeypatch):
    """At the end of ProKT's first look of two: weights are those of a run that was not stopped."""
    whole = tmp_path / "whole"
    changes = {"method__name": "prokt", "training__evaluate_every": 4}
    train(whole, **changes)

    class Stopped(Exception):
        pass

    real = distillation_fit.write_json

    def write(path, value):
        real(path, value)
        if path.name == "history.json":
            raise Stopped

    monkeypatch.setattr(distillation_fit, "write_json", write)
    with pytest.raises(Stopped):
        train(tmp_path / "run", **changes)
    monkeypatch.undo()
    found = train(tmp_path / "run", **changes)
    assert [record["step"] for record in found["history"]] == [4, 8]
    for a, b in zip(*(keras.models.load_model(path / "student.keras").weights for path in (whole, tmp_path / "run")),
                    strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("changes", "match"), [
    ({"method.name": "kldiv"}, "'prokt'"),
    ({"method.name": "kd"}, "set config.teacher.path"),
    ({"method.name": "none", "teacher.path": "somewhere"}, "leave out config.teacher.path"),
    ({"method.name": "kd", "teacher.path": "nowhere"}, "'nowhere' holds no network"),
    ({"method.name": "rco", "teacher.path": "nowhere"}, "config.training.anchors=4"),
    ({"method.name": "prokt", "teacher.name": "gru"}, "config.teacher.name must be one of"),
    ({"method.name": "none", "training.optimizer": "lion"}, "'coupled_sgd' or 'adam'"),
    ({"method.name": "none", "training.decay": "fast"}, "decay must be one of"),
    ({"method.name": "none", "training.anchors": 5}, "anchors no more than looks"),
    ({"method.name": "rco", "teacher.path": "TEACHER", "training.evaluate_every": 3}, "epochs are no multiple"),
])
def test_bad_configs_are_refused_before_any_work(changes, match, tmp_path, teacher):
    changes = {name: str(teacher[0]) if value == "TEACHER" else value for name, value in changes.items()}
    config = command.changed(distill_mnist.get_config(), (SMALL | changes).items())
    with pytest.raises(ValueError, match=match):
        prepare_distillation(config, str(tmp_path / "run"), 0)
    assert not (tmp_path / "run").exists()


TABLE = {"compare.task": "digits", "compare.teacher": "mlp16", "compare.seeds": 2,
         "compare.students": (("small", ()),), "compare.tuned": (("tuned", ("rco", "prokt")),),
         "compare.methods": tuple((name, (("method.name", name),)) for name in ("none", "rco", "prokt")),
         "training.num_steps": 4, "training.evaluate_every": 1}


def compare(workdir, recorded, **changes):
    config = command.changed(distill_mnist.get_config(), (SMALL | TABLE | changes).items())
    distill_compare.prepare_comparison(config, str(workdir), 0, recorded.extend)()


def test_step_times_of_a_table(tmp_path):
    """They are put into the rows that the file has, of the method that was chosen, too, and change nothing else."""
    rows = [{"task": "digits", "teacher": "mlp16", "student": "small", "method": name, "ms_per_step": 1e6}
            for name in ("none", "rco", "prokt")]
    rows += [rows[1] | {"method": "tuned", "chosen": "rco"}, rows[0] | {"student": "other"},
             rows[0] | {"student": "mlp16", "method": "teacher"}]
    before = tmp_path / "distillation.json"
    record(before, rows, KEY)
    config = command.changed(distill_mnist.get_config(), (SMALL | TABLE).items())
    distillation_steps.prepare(config, str(before), 2)()
    found = json.loads(before.read_text())
    times = [row["ms_per_step"] for row in found["rows"]]
    assert all(0 < ms != 1e6 for ms in (*times[:3], times[5])) and times[3] == times[1] and times[4] == 1e6
    for new, old in zip(found["rows"], rows, strict=True):
        assert new.pop("ms_date", found["date"]) == found["date"]
        assert ("ms_command" in new) == (old["student"] != "other")
        new.pop("ms_command", None)
        assert new == old | {"ms_per_step": new["ms_per_step"], "date": found["date"]}
    with pytest.raises(ValueError, match=r"'digits', .'small by none', 'small by rco'"):
        distillation_steps.prepare(config, str(tmp_path / "none.json"), 2)


def test_a_table(tmp_path):
    """Rows are the runs', the report is there, and the command once more makes nothing again."""
    def graphs():
        gc.collect()
        return sum(isinstance(found, FuncGraph) for found in gc.get_objects())

    recorded, before = [], graphs()
    compare(tmp_path, recorded)
    assert not any(isinstance(o, DistillationTrainer) for o in gc.get_objects())  # the memory of a table stays flat
    assert graphs() == before
    tuned = recorded.pop()
    first = recorded.pop(0)
    assert (first["student"], first["method"], first["teacher"], first["seeds"]) == ("mlp16", "teacher", "mlp16", 1)
    alone = json.loads((tmp_path / "teacher" / "results.json").read_text())["last"]["test"]
    assert first["test_accuracy_mean"] == pytest.approx(100 * alone, abs=1e-4)
    assert [(row["method"], row["seeds"]) for row in recorded] == [
        (name, seeds) for seeds in (1, 2) for name in ("none", "rco", "prokt")]
    best = max(recorded[4:], key=lambda row: row["best_dev_accuracy_mean"])
    assert tuned == {**best, "method": "tuned", "chosen": best["method"]}
    accuracies = [json.loads((tmp_path / "small" / "rco" / f"seed{seed}" / "results.json").read_text())["last"]["test"]
                  for seed in (0, 1)]
    assert recorded[4]["test_accuracy_mean"] == pytest.approx(100 * np.mean(accuracies), abs=1e-4)
    assert recorded[4]["test_accuracy_std"] == pytest.approx(100 * np.std(accuracies, ddof=1), abs=1e-4)
    taught = [json.loads((tmp_path / "small" / "prokt" / f"seed{seed}" / "results.json").read_text())["teacher"]["test"]
              for seed in (0, 1)]
    assert recorded[5]["teacher_test_accuracy_mean"] == pytest.approx(100 * np.mean(taught), abs=1e-4)
    assert "teacher_test_accuracy_mean" not in recorded[4]
    table = (tmp_path / "table.md").read_text()
    said = distillation_table([first, *recorded[3:]], "digits").splitlines()
    assert said[:5] == table.splitlines()[:5]  # the teacher is no student
    assert said[-1].startswith(f"The teacher, mlp16: {100 * alone:.2f} after its last step")
    assert table.splitlines()[3].startswith(f"| rco | {recorded[4]['test_accuracy_mean']:.2f} ± ")
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"divergence_small.png", "teacher_small.png"}
    assert (tmp_path / "report.html").is_file()
    chosen, found = hyperparameters(tmp_path / "tensorboard" / "small" / "rco")
    assert chosen == {name: recorded[4][name] for name in ("teacher", "student", "method", "learning_rate")}
    assert found["test_accuracy"] == pytest.approx(recorded[4]["test_accuracy_mean"], rel=1e-6)
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.keras")}
    again = []
    compare(tmp_path, again)
    assert again == [first, *recorded, tuned]
    assert made == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.keras")}


def test_what_is_chosen_by():
    """The fewest that diverged, then dev; of rates and of methods alike."""
    config = command.changed(distill_mnist.get_config(), (SMALL | TABLE).items())
    rows = [{"student": "s", "method": "rco", "best_dev_accuracy_mean": 99.0, "diverged": 2},
            {"student": "s", "method": "prokt", "best_dev_accuracy_mean": 90.0}]
    assert [row["chosen"] for row in distill_compare.tuned_rows(config, rows)] == ["prokt"]


def test_a_student_may_be_as_the_teacher(tmp_path):
    """Self-distillation: the student's rows and the teacher's are told apart."""
    recorded = []
    compare(tmp_path, recorded, **{"compare.seeds": 1, "compare.tuned": (), "compare.students": (("mlp16", ()),),
                                   "compare.methods": (("none", (("method.name", "none"),)),)})
    assert [(row["student"], row["method"]) for row in recorded] == [("mlp16", "teacher"), ("mlp16", "none")]
    assert "| none | " in distillation_table(recorded, "digits")


def test_rates_are_chosen_on_dev(tmp_path):
    """Of every student and method for itself; the row says what the others gave, and the table which it is."""
    changes = {"compare.seeds": 1, "compare.methods": (("none", (("method.name", "none"),)),), "compare.tuned": (),
               "training.num_steps": 40, "training.evaluate_every": 10,
               "compare.students": (("small", (("compare.learning_rates", (1e-6, 0.05, 1e20)),)), ("one", ()))}
    recorded = []
    compare(tmp_path, recorded, **changes)
    small, one = recorded[1:]  # behind the teacher's
    results = {rate: json.loads((tmp_path / "small" / "none" / str(rate) / "seed0" / "results.json").read_text())
               for rate in (1e-6, 0.05)}
    best = max(results, key=lambda rate: results[rate]["best"]["dev"])
    assert small["learning_rate"] == best == 0.05  # at 1e-6 it learns nothing in forty steps
    assert small["test_accuracy_mean"] == pytest.approx(100 * results[best]["last"]["test"], abs=1e-4)
    assert [other["learning_rate"] for other in small["by_rate"]] == [1e-6, 0.05, 1e20]
    assert [other["test_accuracy_mean"] for other in small["by_rate"][:2]] == pytest.approx(
        [100 * result["last"]["test"] for result in results.values()], abs=1e-4)
    assert small["by_rate"][2] == {"learning_rate": 1e20, "seeds": 0, "diverged": 1}
    assert "by_rate" not in one and (tmp_path / "one" / "none" / "seed0" / "results.json").is_file()
    header, _, none, *_ = (tmp_path / "table.md").read_text().splitlines()
    assert header.split(" | ")[1:6] == ["small: last", "best on dev", "ms / step", "rate", "one: last"]
    assert none.split(" | ")[4] == "0.05"


def test_a_student_that_diverges_is_left_out_and_counted(tmp_path):
    hot = (("method.name", "none"), ("training.learning_rate", 1e20))
    one = {"compare.methods": (("none", (("method.name", "none"),)), ("hot", hot)), "compare.tuned": ()}
    recorded = []
    compare(tmp_path / "one", recorded, **one)
    assert {row["method"] for row in recorded} == {"teacher", "none"}
    assert "Diverged with every seed: small by hot." in (tmp_path / "one" / "report.html").read_text()
    assert "| hot |" not in (tmp_path / "one" / "table.md").read_text()
    rows = [{**recorded[-1], "seeds": 1, "diverged": 2}]
    assert distillation_table(rows, "digits").endswith("| 1 (2 diverged) |")


def test_a_table_of_a_given_teacher(teacher, tmp_path):
    """No other is trained; its run must have four anchors. It is known by its weights, and not by its file."""
    with pytest.raises(ValueError, match=r"a finished run of trainers.distill"):
        compare(tmp_path / "run", [], **{"teacher.path": str(teacher[0])})
    four = tmp_path / "four"
    train(four, method__name="none", student__hidden=16, training__anchors=4)
    methods = tuple((name, (("method.name", name),)) for name in ("none", "kd"))
    recorded = []
    changes = {"teacher.path": str(four), "compare.seeds": 1, "compare.methods": methods, "compare.tuned": ()}
    compare(tmp_path / "run", recorded, **changes)
    assert not (tmp_path / "run" / "teacher").exists() and [row["method"] for row in recorded] == ["none", "kd"]
    used = json.loads((tmp_path / "run" / "small" / "kd" / "seed0" / "manifest.json").read_text())
    assert used["config"]["teacher"]["path"] == str(four)
    network, results = keras.models.load_model(four / "student.keras"), tmp_path / "run/small/kd/seed0/results.json"
    before = (four / "student.keras").read_bytes()
    time.sleep(1.1)  # the date in the file has seconds
    network.save(four / "student.keras")
    assert (four / "student.keras").read_bytes() != before
    results.unlink()
    compare(tmp_path / "run", [], **changes)
    network.trainable_variables[-1].assign_add([0.001] * 10)
    network.save(four / "student.keras")
    results.unlink()
    with pytest.raises(ValueError, match="of another data"):
        compare(tmp_path / "run", [], **changes)


def test_a_teacher_that_is_finished_once_more_is_the_same(tmp_path):
    """Its results were damaged, and the students that have begun with it go on."""
    one = {"compare.methods": (("kd", (("method.name", "kd"),)),), "compare.seeds": 1, "compare.tuned": ()}
    compare(tmp_path / "run", [], **one)
    student = tmp_path / "run/small/kd/seed0/results.json"
    before = json.loads(student.read_text())
    for spoiled in (tmp_path / "run/teacher/results.json", student):
        spoiled.write_text(spoiled.read_text()[:-10])
    time.sleep(1.1)
    with pytest.warns(UserWarning, match="made again"):
        compare(tmp_path / "run", [], **one)
    after = json.loads(student.read_text())
    assert {**after, "ms_per_step": 0, "sha256": ""} == {**before, "ms_per_step": 0, "sha256": ""}


def test_rates_of_the_phase_before_do_not_fall():
    config = command.changed(distill_mnist.get_config(), [("training.first_learning_rate", 0.01)])
    before, main = (optimizers(config, 100, last)[0] for last in (False, True))
    rates = []
    for optimizer in (before, main):
        optimizer.build([keras.Variable([0.0])])
        rates.append([])
        for step in (0, 99):
            optimizer.iterations.assign(step)
            rates[-1].append(float(optimizer.learning_rate))
    np.testing.assert_allclose(rates, [[0.01, 0.01], [0.05, 0.05e-3]], rtol=1e-6)
    assert float(optimizers(distill_mnist.get_config(), 100, False)[0].learning_rate) == pytest.approx(0.05)


@pytest.mark.parametrize(("changes", "match"), [
    ({"compare.methods": ()}, "needs students, methods"),
    ({"compare.methods": (("a", (("method.name", "kldiv"),)),)}, "'prokt'"),
    ({"compare.methods": (("a", (("method.nme", "kd"),)),)}, "cannot be changed"),
    ({"compare.methods": (("a", (("method.name", "at"),)),)}, "compares all stages"),
    ({"compare.students": (("a", ()), ("a", ()))}, "twice"),
    ({"training.evaluate_every": 0}, "evaluate_every must be at least 1"),
    ({"training.evaluate_every": 3}, "2 epochs are no multiple"),
    ({"compare.learning_rates": (0.1, 0.1)}, "each named once"),
    ({"compare.students": (("a", (("compare.learning_rates", ("fast",)),)),)}, "a tuple of a number each"),
    ({"compare.changes": (("none", ()), ("none", ()))}, "twice"),
    ({"compare.methods": (("teacher", (("method.name", "none"),)),)}, "or calls one 'teacher'"),
    ({"compare.learning_rates": (0.0,)}, "must be positive"),
    ({"compare.changes": (("kd", ()),)}, r"changes names methods that are not compared: \['kd'\]"),
    ({"compare.changes": (("none", (("method.nme", "kd"),)),)}, "cannot be changed"),
    ({"compare.tuned": (("b", ("kd",)),)}, r"not compared: \['kd'\]"),
    ({"compare.skipped": (("none", "small"), ("small", "none"))}, r"not compared: \[\('none', 'small'\)\]"),
])
def test_bad_tables_are_refused_before_any_work(changes, match, tmp_path):
    with pytest.raises(ValueError, match=match):
        compare(tmp_path / "run", [], **changes)
    assert not (tmp_path / "run").exists()


def test_a_dry_run(teacher, capsys, tmp_path, monkeypatch):
    """Says what a run would be, phase by phase; a teacher that is not there yet is a new one; nothing is written."""
    monkeypatch.chdir(tmp_path)
    for changes in ({"method.name": "ab"}, {"method.name": "rco"}, {"method.name": "prokt"}):
        config = command.changed(distill_mnist.get_config(), (SMALL | {
            "student.name": "resnet", "student.options": (("depth", 8), ("widths", (2, 2, 2, 2))),
            "teacher.name": "resnet", "teacher.options": (("depth", 8), ("widths", (2, 2, 2, 2)))} | changes).items())
        dry_run(config, 1)
    said = capsys.readouterr().out
    assert "phase boundaries: 4 steps of" in said and said.count("phase main: 8 steps of") == 3
    assert "mnist_5k: 4910 train, 40 dev examples" in said and said.count("hours on this machine") == 3
    table = SMALL | TABLE | {"compare.methods": (("rco", (("method.name", "rco"),)),), "compare.tuned": ()}
    monkeypatch.setattr(distill_compare.distill, "dry_run", lambda config, steps: {"none": 1.5}.get(
        config.method.name, 0.75))  # hours
    distill_compare.dry_run(command.changed(distill_mnist.get_config(), table.items()), 1)
    said = capsys.readouterr().out
    assert "the teacher:" in said and "small by rco:" in said
    assert "predicted, with 2 seeds: 3.0 hours on this machine" in said  # 1.5 + 2 · 0.75
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="timed_steps"):
        dry_run(config, 0)


@pytest.mark.parametrize("pair", prokt_images.QUOTED)
def test_cells_of_the_papers_images(pair):
    """240 epochs of 703 batches; the student's rate; every method of the tables and its figure."""
    config = prokt_images.get_config(pair)
    assert config.training.num_steps == 240 * 703 and config.training.first_steps == 30 * 703
    assert config.training.learning_rate == (0.05 if pair.endswith("vgg8") else 0.01)
    assert len(config.compare.methods) == 17 and config.quoted.count(",") == 18
    for _, changes in config.compare.methods:
        assert command.changed(config, changes).method.name in METHODS


@pytest.mark.parametrize("pair", prokt_images.QUOTED)
def test_the_papers_pairs_fit_every_method(pair):
    """All networks of a pair, and all terms between them, are built, on images of CIFAR's size."""
    config = command.changed(prokt_images.get_config(pair), [
        ("data.name", "mnist_5k"), ("data.train_size", 100), ("data.dev_size", 40), ("data.like_cifar", True),
        ("data.recipe", "digits")])
    assert len(distill_compare.cells_of(config)) == 17


@pytest.mark.parametrize("cell", prokt_glue.QUOTED)
def test_cells_of_the_papers_texts(cell):
    config = prokt_glue.get_config(cell)
    task, student = cell.split("-")
    assert config.data.name == f"glue/{task}" and config.student.name == student.replace("6", "")
    epoch = (prokt_glue.TRAIN[task] - config.data.dev_size) // 32
    assert config.compare.learning_rates == {"bert6": (3e-5, 5e-5, 1e-4), "bilstm": (1e-3,)}[student]
    runs = {name: command.changed(config, changes) for name, changes in config.compare.methods}
    for name, run in runs.items():
        assert run.training.num_steps // epoch == (4 if name == "none" else 6)
    lams = {name: dict(run.method.options).get("lam", 0.3) for name, run in runs.items() if run.method.name == "prokt"}
    assert set(lams.values()) == {0.0, 0.1, 0.3, 0.4, 0.5, 0.7}
    assert ("PF " in config.quoted) == (student == "bert6")
    assert f"teacher {prokt_glue.TEACHERS[task]}, " in config.quoted
    (name, candidates), = config.compare.tuned
    assert name == "prokt_tuned" and set(candidates) == set(lams)


@pytest.mark.parametrize("module", [compare_distill_mnist, compare_distill_text])
def test_students_of_a_table_have_as_many_steps(module):
    """A phase before counts where the student learns in it; RCO's looks are a multiple of its anchors."""
    config = module.get_config()
    cells = [command.changed(config, changes) for _, changes in config.compare.methods]
    assert {distill_compare.student_steps(cell) for cell in cells} == {config.training.num_steps}
    assert {cell.training.num_steps for cell in cells} > {config.training.num_steps}


@pytest.mark.parametrize(("module", "student"), [(compare_distill_mnist, "resnet8"), (compare_distill_text, "bert2")])
def test_longer_tables(module, student):
    """The same networks, rates and methods for more steps, in eight looks; four anchors of two each."""
    short, longer = module.get_config(), module.get_config("longer")
    assert longer.training.num_steps > 2.9 * short.training.num_steps and longer.compare.task != short.compare.task
    assert longer.training.num_steps == 8 * longer.training.evaluate_every
    assert [name for name, _ in longer.compare.students] == [student]
    assert set(longer.compare.students) < set(short.compare.students)
    assert set(longer.compare.methods) < set(short.compare.methods)
    assert {"none", "prokt", "prokt_0"} < {name for name, _ in longer.compare.methods}


def test_unknown_cells():
    for module in (prokt_images, prokt_glue, compare_distill_mnist, compare_distill_text):
        with pytest.raises(ValueError, match="received 'a-b'"):
            module.get_config("a-b")
