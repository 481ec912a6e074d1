"""The commands, as processes, at a tiny size."""

import html
import json
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_l2t
from configs import demo
from tests import tiny
from tests.commands import ROOT, run_module
from tests.event_files import events, hyperparameters, tags
from tf_l2t.data import CIFAR10_CLASSES, CIFAR100_CLASSES, ArrayPair, Splits
from tf_l2t.hypergradient import initial_state, rollout
from tf_l2t.objectives import accuracy
from tf_l2t.students import FunctionalStudent
from tf_l2t.teachers import TEACHERS, StaticTeacher
from tf_l2t.training import classification_problem, inner_optimizer
from tf_l2t.training.comparison import REPORT_SEED
from tf_l2t.training.results import RowResult
from trainers import command, teacher_plan, train_teacher
from trainers.compare_report import Part, followed, write_hparams

SMALL = ["--config.training.num_steps=12", "--config.data.dev_size=60", "--config.data.test_size=200",
         "--config.teacher_training.steps=2", "--config.teacher_training.validation_freq=1",
         "--config.compare.learning_rates=(0.03,0.1)", "--config.compare.tune_rates=(0.01,)",
         "--config.compare.tune_steps=5", "--config.compare.seeds=2", "--config.compare.selection_seeds=1",
         "--config.compare.num_folds=2", "--config.teacher_training.xla=False"]
WITH_XLA = "--config.teacher_training.xla=True"  # as configs have it; behind SMALL


def run(name, workdir, *arguments, config="configs/demo.py"):
    return run_module(f"trainers.{name}", "--config", config, "--workdir", str(workdir), *arguments)


@pytest.fixture(scope="module")
def teacher_run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "teacher"
    done = run("train_teacher", workdir, *SMALL, WITH_XLA)
    assert done.returncode == 0, done.stderr
    return workdir, done


def test_train_teacher(teacher_run):
    workdir, done = teacher_run
    assert "teacher:" in done.stdout and "teacher_curve.png" in done.stdout
    manifest = json.loads((workdir / "manifest.json").read_text())
    assert manifest["config"]["training"]["num_steps"] == 12
    assert manifest["data"]["noise_fraction"] == 0.4 and len(manifest["data"]["fingerprint"]) == 64
    assert manifest["command"].startswith("python -m trainers.train_teacher --config configs/demo.py")
    history = json.loads((workdir / "history.json").read_text())
    assert len(history["objective"]) == 2 and len(history["val_accuracy"]) == 2
    assert tf_l2t.load_teacher(workdir / "teacher").training["data"]["noise_fraction"] == 0.4
    shown = tags(workdir / "tensorboard")
    assert {"config", "coefficients/start", "coefficients/pairs_by_step", "adjoint/norm_by_step",
            "teacher/val_accuracy", "coefficients_of_pairs/Φ(4, 9)", "coefficients_of_pairs/Φ(9, 4)"} <= set(shown)
    (graph,) = [event.graph_def for event in events(workdir / "tensorboard") if event.graph_def]
    assert "Softmax" in {node.op for node in tf.compat.v1.GraphDef.FromString(graph).node}
    assert tf.io.decode_png((workdir / "figures" / "teacher_curve.png").read_bytes()).numpy().std() > 0


def test_compare(teacher_run, tmp_path):
    measured = tmp_path / "measured.json"
    done = run("compare", tmp_path / "table", *SMALL, f"--config.compare.teacher={teacher_run[0] / 'teacher'}",
               "--config.compare.setting=shifted40", "--measured", str(measured))
    assert done.returncode == 0, done.stderr
    assert "| taught loss, then tuned on dev |" in done.stdout
    table = (tmp_path / "table" / "table.md").read_text()
    assert all(line in done.stdout for line in table.splitlines() if line.startswith("|"))
    results = json.loads((tmp_path / "table" / "results.json").read_text())["60"]
    assert [r["row"] for r in results] == ["cross_entropy", "dev_only", "train_tuned", "taught", "taught_tuned"]
    for name in ("errors.png", "coefficients.png", "pairs.png"):
        assert tf.io.decode_png((tmp_path / "table" / "figures" / "dev60" / name).read_bytes()).numpy().std() > 0
    rows = json.loads(measured.read_text())["rows"]
    assert [(row["loss"], row["dev_size"]) for row in rows] == [(r["row"], 60) for r in results]
    assert rows[0]["test_error_mean"] == pytest.approx(100 * (1 - np.mean(results[0]["test_accuracy"])), abs=1e-3)


def test_the_table_is_tensorboards_of_hyperparameters(tmp_path):
    """Read back: of every row what dev chose, and the mean test error."""
    results = [RowResult("cross_entropy", "cross entropy", 0.1, {}, None, [0.9, 0.8], None, 0, []),
               RowResult("train_tuned", "tuned", 0.03, {"q": 0.7}, 0.01, [0.95, 0.95], None, 0, [])]
    write_hparams(tmp_path, Part(60, results, [], None, None, None, None))
    for result, error in zip(results, (15.0, 5.0), strict=True):
        chosen, found = hyperparameters(tmp_path / "dev60" / result.row)
        assert found == {"test_error": pytest.approx(error, rel=1e-5)}
        assert chosen["row"] == result.row and chosen["learning_rate"] == result.learning_rate
        assert ("tune_rate" in chosen) == (result.tune_rate is not None)


def test_a_whole_table_is_run_resumed_and_reported(tmp_path):
    workdir, measured = tmp_path / "table", tmp_path / "measured.json"
    arguments = [*SMALL, "--config.compare.num_teachers=1", "--config.compare.dev_sizes=(60,80)", "--verbose=2",
                 "--config.compare.rows=('cross_entropy','taught')", "--config.compare.evaluate_every=6",
                 "--measured", str(measured)]
    done = run("compare", workdir, *arguments)
    assert done.returncode == 0, done.stderr
    results = json.loads((workdir / "results.json").read_text())
    assert [r["teachers"] for r in results["80"]] == [0, 1]
    for size in (60, 80):
        teacher = tf_l2t.load_teacher(workdir / f"dev{size}" / "teachers" / "0" / "teacher")
        assert teacher.training["data"]["dev"] == size
    assert [row["dev_size"] for row in json.loads(measured.read_text())["rows"]] == [60, 60, 80, 80]
    page = html.unescape((workdir / "report.html").read_text())
    assert page.count("<h2>Dev set of") == 2 and '"num_teachers": 1' in page
    pictures = re.findall(r'src="([^"]+)"', page)  # errors, curves, figure 3, Φ, figure 4; each part of the page itself
    assert len(pictures) == 10 and all(p.startswith("data:image/png;base64,") for p in pictures)
    assert all(f"| {r['label']} |" in (workdir / "table.md").read_text() for r in results["60"])
    # Stopped in the middle: a teacher half trained, a row that is damaged.
    kept = (workdir / "dev60" / "teachers" / "0" / "teacher" / "tf_l2t.json").read_bytes()
    (workdir / "dev80" / "teachers" / "0").rename(workdir / "dev80" / "teachers" / "0.partial")
    row = workdir / "dev80" / "rows" / "taught.json"
    row.write_text(row.read_text().replace('"learning_rate": 0', '"learning_rate": 1'))
    again = run("compare", workdir, *arguments)
    assert again.returncode == 0 and "what it says is made again" in again.stderr, again.stderr
    told = [json.loads(line) for line in again.stdout.splitlines()]  # nothing else
    assert [line for line in told if {"teacher", "done"} & set(line)] == [
        {"teacher": 0, "dev size": 80}, {"row": "taught", "done": 2, "total": 2}]
    assert [line["rows"] for line in told if "rows" in line] == [*results.values()]
    assert told[-1] == {"report": str(workdir / "report.html")}
    assert json.loads((workdir / "results.json").read_text()) == results
    assert (workdir / "dev60" / "teachers" / "0" / "teacher" / "tf_l2t.json").read_bytes() == kept
    other = run("compare", workdir, *arguments, "--config.compare.seeds=3")
    assert other.returncode == 2 and "of another config" in other.stderr
    (workdir / "dev60" / "teachers" / "0" / "teacher" / "tf_l2t.json").write_text("{")
    damaged = run("compare", workdir, *arguments)  # seen behind the checks, as the rows begin
    assert damaged.returncode == 2 and "Traceback" not in damaged.stderr
    assert re.search(r"^error: .*tf_l2t\.json is damaged", damaged.stderr, re.MULTILINE)


def test_ablate(tmp_path):
    config = tmp_path / "two.py"
    config.write_text(
        "from configs import demo\n\n\ndef get_config():\n    config = demo.get_config()\n"
        "    config.compare.num_teachers = 1\n    config.compare.rows = ('taught',)\n"
        "    config.ablation = (('as it is', ()), ('keys: 1', (('teacher.num_keys', 1),)))\n    return config\n")
    measured = tmp_path / "ablation.json"
    done = run("ablate", tmp_path / "run", *SMALL, "--verbose=0", "--measured", str(measured), config=str(config))
    assert done.returncode == 0, done.stderr
    rows = json.loads(measured.read_text())["rows"]
    assert [row["ablation"] for row in rows] == ["as it is", "keys: 1"]
    keys = [tf_l2t.load_teacher(tmp_path / "run" / f"variant{i}" / "teachers" / "0" / "teacher").num_keys
            for i in range(2)]
    assert keys == [10, 1]
    assert "| keys: 1 |" in done.stdout and "| keys: 1 |" in (tmp_path / "run" / "table.md").read_text()
    config.write_text(config.read_text().replace("'teacher.num_keys', 1", "'teacher.wings', 2"))
    wrong = run("ablate", tmp_path / "wrong", *SMALL, config=str(config))
    assert wrong.returncode == 2 and "wings" in wrong.stderr and not (tmp_path / "wrong").exists()
    none = run("ablate", tmp_path / "wrong", *SMALL)
    assert none.returncode == 2 and "names no variant" in none.stderr


def test_a_full_disk_ends_a_command_with_a_sentence_and_it_goes_on(tmp_path):
    """Files may have as many bytes as a manifest, and not as a state."""
    arguments = [sys.executable, "-m", "trainers.train_baseline", "--config=configs/demo.py", *SMALL, "--verbose=0",
                 "--workdir", str(tmp_path / "run"), "--config.compare.evaluate_every=4"]
    options = {"cwd": ROOT, "capture_output": True, "text": True, "check": False}
    full = subprocess.run(["bash", "-c", 'ulimit -f 20; exec "$@"', "bash", *arguments], **options)
    assert full.returncode == 2 and "Traceback" not in full.stderr
    assert re.search(r"^error: state 0 could not be written to .*run/checkpoints", full.stderr, re.MULTILINE)
    assert subprocess.run(arguments, **options).returncode == 0 and (tmp_path / "run" / "student.keras").is_file()


def test_a_teacher_of_another_class_takes_its_options(monkeypatch):
    class Lifted(StaticTeacher):
        def __init__(self, num_classes, num_features, lift=0.0, loss="stable", **options):
            super().__init__(num_classes, num_features, loss, **options)
            self.lift = lift

    monkeypatch.setitem(TEACHERS, "lifted", Lifted)
    config = command.changed(demo.get_config(), [("teacher.name", "lifted"), ("teacher.options", (("lift", 0.5),))])
    made = train_teacher.planned(config).teacher
    assert isinstance(made, Lifted) and (made.lift, made.loss) == (0.5, "mixture")
    with pytest.raises(ValueError, match=r"teacher 'lifted' takes \['lift'\], and its seed as .*; received \['drop'\]"):
        train_teacher.planned(command.changed(config, [("teacher.options", (("drop", 0.5),))]))
    config = command.changed(demo.get_config(), [("teacher.options", (("num_keys", "many"),))])
    with pytest.raises(ValueError, match=r"the teacher 'attention' cannot be made of .*'num_keys': 'many'"):
        train_teacher.planned(config)


@pytest.mark.parametrize("name", ["train_student", "train_baseline"])
def test_students(name, teacher_run, tmp_path):
    (tmp_path / "log").mkdir()
    done = run(name, tmp_path / "run", *SMALL, "--verbose=0", f"--log_dir={tmp_path / 'log'}",
               "--config.compare.evaluate_every=4",
               f"--config.compare.teacher={teacher_run[0] / 'teacher'}")
    assert done.returncode == 0, done.stderr
    assert "this fit makes" not in done.stderr  # a stretch of the whole, which is as long as it should be
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    (log,) = (file.read_text() for file in (tmp_path / "log").iterdir() if not file.is_symlink())
    assert re.search(r"^I.* command\.py:\d+\] python -m trainers\." + name, log, re.MULTILINE)
    assert re.search(r"^I.* pace\.py:\d+\] step 12, .*loss", log, re.MULTILINE) and "] test accuracy " in log
    assert "step" not in done.stdout and done.stdout.startswith("test accuracy ")
    network = keras.models.load_model(tmp_path / "run" / "student.keras")
    splits = tf_l2t.data.mnist_5k(60, 200)
    predicted = np.argmax(network.predict(splits.test.x, verbose=0), axis=1)
    assert results["test_accuracy"] == pytest.approx(np.mean(predicted == splits.test.y), abs=1e-6)
    best = keras.models.load_model(tmp_path / "run" / "best.keras")
    for part, expected in (("test", splits.test), ("dev", splits.dev)):
        right = np.mean(np.argmax(best.predict(expected.x, verbose=0), axis=1) == expected.y)
        assert results[f"best_{part}_accuracy"] == pytest.approx(right, abs=1e-6)
    looks = [record["val_accuracy"] for record in json.loads((tmp_path / "run" / "history.json").read_text())]
    assert len(looks) == 3 and results["best_dev_accuracy"] == pytest.approx(max(looks), abs=1e-6)
    assert list((tmp_path / "run" / "tensorboard").rglob("events*"))
    (tmp_path / "run" / "best.keras").write_bytes(b"PK no network")  # what it holds stands in the states, too
    again = run(name, tmp_path / "run", *SMALL, "--verbose=0", "--config.compare.evaluate_every=4",
                f"--config.compare.teacher={teacher_run[0] / 'teacher'}")
    assert again.returncode == 0, again.stderr
    for a, b in zip(keras.models.load_model(tmp_path / "run" / "best.keras").weights, best.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    if name == "train_student":
        other = tf_l2t.load_teacher(teacher_run[0] / "teacher")
        other.theta[0].assign(other.theta[0] + 1)
        tf_l2t.export_teacher(other, tmp_path / "other")
        manifest = (tmp_path / "run" / "manifest.json")
        said = json.loads(manifest.read_text())
        said["config"]["compare"]["teacher"] = str(tmp_path / "other")  # as if the other one had taken its place
        manifest.write_text(json.dumps(said))
        refused = run(name, tmp_path / "run", *SMALL, "--config.compare.evaluate_every=4",
                      f"--config.compare.teacher={tmp_path / 'other'}")
        assert refused.returncode == 2 and "holds another run, of another data" in refused.stderr


def test_what_is_drawn_is_the_teacher_of_the_run_s_status():
    """In stretches, as time left is told, as in one."""
    config = command.changed(demo.get_config(), [("training.num_steps", 45), ("data.dev_size", 60)])
    splits, teacher = command.load_splits(config), tf_l2t.pretrained_teacher("noisy_digits")
    student, at = FunctionalStudent(command.student_fn(config, splits)), [0, 19, 20, 41, 44]
    found = followed(config, splits, student, teacher, (0.05,), at)
    problem = classification_problem(
        student, splits.train, splits.dev, loss=teacher.per_example, objective=accuracy, num_steps=45, batch_size=50,
        optimizer=inner_optimizer(command.student_optimizer(config, 0.05)), refresh_every=20, dev_sample_size=500)
    whole = rollout(problem, teacher)(initial_state(problem, *student.init(REPORT_SEED)), REPORT_SEED)
    assert config.features.refresh_every == 20 and config.training.batch_size == 50
    for phi, step in zip(found, at, strict=True):
        np.testing.assert_allclose(phi, teacher(whole.features[step]), rtol=1e-5)  # two compiled programs
    np.testing.assert_array_equal(found[0], found[1])
    assert np.abs(found[2] - found[1]).max() > 1e-3


def test_draw_coefficients(teacher_run, tmp_path):
    teacher = f"--config.compare.teacher={teacher_run[0] / 'teacher'}"
    done = run("draw_coefficients", tmp_path / "run", *SMALL, teacher, "--config.compare.epochs=(0.05,0.1)")
    assert done.returncode == 0, done.stderr
    for name in ("coefficients.png", "pairs.png"):
        assert tf.io.decode_png((tmp_path / "run" / "figures" / name).read_bytes()).numpy().std() > 0
    late = run("draw_coefficients", tmp_path / "late", *SMALL, teacher, "--config.compare.epochs=(20,40)")
    assert late.returncode == 2 and "lie within the run" in late.stderr and not (tmp_path / "late").exists()


BAD = {
    "unknown field": (["--config.training.lr=1"], "configs/base.py"),
    "wrong type": (["--config.training.num_steps=many"], "num_steps=many"),
    "unknown student": (["--config.student.name=transformer"], "'densenet_bc', "),
    "unknown data": (["--config.data.name=svhn"], "'cifar10' or 'cifar100'"),
    "no such data": (["--config.data.name=cifar10", "--config.data.path=/nowhere"], "Give an archive"),
    "recipe": (["--config.data.recipe=mine"], "recipe must be one of"),
    "small images": (["--config.student.name=resnet8"], "at least 32 x 32"),
    "student's options": (["--config.student.options=(('depth',10),)"], "received ['activation', 'depth', 'hidden']"),
    "no quick variant": (["--config.quick"], "no quick variant"),
    "cell": (["--config=configs/table2.py:resnet8-svhn"], "the cells of Table 2 are"),
    "noise": (["--config.data.noise_fraction=2.0"], "[0, 1]"),
    "kind of noise": (["--config.data.noise=salt"], "'shift', 'uniform'"),
    "long tail": (["--config.data.long_tail=1e5"], "long tail"),
    "split": (["--config.data.dev_size=6000"], "Every part needs"),
    "decay": (["--config.teacher_training.decay=step"], "decay must be one of"),
    "extra argument": (["extra"], "unexpected arguments"),
    "mode": (["--config.teacher_training.hvp=x"], "forward_over_reverse"),
    "steps": (["--config.teacher_training.steps=0"], "number of steps must be at least 1"),
    "batch": (["--config.training.batch_size=9999"], "3500 train examples"),
    "memory": (["--config.teacher_training.memory_budget=20MB"], "needs at least"),
    "memory in a dry run": (["--config.teacher_training.memory_budget=20MB", "--dry_run"], "needs at least"),
    "pairs of classes": (["--config.compare.pairs=((4,10),)"], "names [10]; there are classes 0 … 9"),
    "profile": (["--config.teacher_training.profile=(3,2)"], "received (3, 2)"),
    "verbose": (["--verbose=3"], "verbose"),
    "log": (["--log_dir=/nowhere"], "--log_dir must be a directory that can be written to; received '/nowhere'"),
    "timed steps": (["--dry_run", "--timed_steps=1"], "must be 0 or at least 2; received 1"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_harms_nothing(case, tmp_path):
    arguments, message = BAD[case]
    done = run("train_teacher", tmp_path / "run", *arguments)
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_xla_is_left_out_where_the_config_says_so():
    for xla, jit in ((True, "auto"), (False, False)):
        config = demo.get_config()
        config.teacher_training.xla = xla
        made = tf_l2t.TeacherTrainer(tiny.plain, tiny.teacher(), num_steps=4, batch_size=6,
                                     student_optimizer=keras.optimizers.SGD(0.1))
        teacher_plan.compile_trainer(made, config, num_dev=60, steps=2)
        assert made._options.engine["jit"] == jit


def test_bad_directories(teacher_run, tmp_path):
    teacher = f"--config.compare.teacher={teacher_run[0] / 'teacher'}"
    (tmp_path / "file").write_text("")
    (tmp_path / "text.json").write_text("[]")
    new = tmp_path / "run"
    cases = [
        ("train_teacher", teacher_run[0], [*SMALL, WITH_XLA, "--config.seed=1"], "another run, of another config"),
        ("train_baseline", tmp_path / "file" / "run", SMALL, "cannot be written: Not a directory"),
        ("compare", new, [f"--config.compare.teacher={tmp_path / 'none'}"], "no directory"),
        ("compare", new, ["--config=configs/none.py"], "configs/none.py"),
        ("compare", new, [*SMALL, "--config.data.split_seed=1", teacher], "another split"),
        ("train_student", new, [*SMALL, "--config.data.split_seed=1", teacher], "another split"),
        ("compare", new, ["--measured", str(tmp_path / "text.json"), "--config.compare.setting=x"],
         "no file of measured figures"),
        ("compare", new, [], "exported teacher")]
    for name, workdir, arguments, message in cases:
        done = run(name, workdir, *arguments)
        assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.py")), ids=lambda p: p.stem)
def test_every_config_has_the_fields_of_the_base(path):
    import importlib

    if path.stem == "__init__":
        return
    from configs import base, distill_base, distill_text_base, translation_base
    from trainers.command import plain

    def fields(config):
        return {key: fields(value) if isinstance(value, dict) else type(value) for key, value in config.items()}

    module = importlib.import_module(f"configs.{path.stem}")
    config = module.get_config()
    bases = {"translation": translation_base, "distillation": distill_base, "text_distillation": distill_text_base}
    of_task = bases.get(config.get("task"), base)
    assert fields(plain(config)) == fields(plain(of_task.get_config()))
    assert module.__doc__


def test_the_papers_numbers():
    from configs import mnist_lenet, mnist_mlp

    mlp, lenet = mnist_mlp.get_config(), mnist_lenet.get_config()
    assert (mlp.training.batch_size, lenet.training.batch_size) == (20, 500)
    for config in (mlp, lenet):
        assert (config.training.learning_rate, config.training.momentum) == (0.01, 0.9)
        outer = config.teacher_training
        assert (outer.steps, outer.learning_rate, outer.epsilon, config.teacher.num_keys) == (60, 1e-4, 1e-8, 10)


def test_table_2():
    from configs import table2

    assert len(table2.QUOTED) == 8  # 3 ResNets by 2 data sets, WRN and DenseNet on one
    for cell, (entropy, _, margin, taught) in table2.QUOTED.items():
        assert taught < margin < entropy
        for suffix in ("", "-paper"):
            config = table2.get_config(cell + suffix)
            training, outer = config.training, config.teacher_training
            assert (training.momentum, outer.steps) == (0.9, 100)
            assert training.batch_size == (16 if "densenet" in cell else 128)
            assert training.learning_rate == pytest.approx(0.1 * training.batch_size / 128)
            assert config.student.name in tf_l2t.students.STUDENTS and str(taught) in config.quoted
            # 40 and 60 of 80 epochs of 45,000 images
            assert training.decay == "drops:0.5,0.75" and training.num_steps == 80 * 45_000 // training.batch_size
    cells = [table2.get_config(cell + suffix) for cell in table2.QUOTED for suffix in ("", "-paper")]
    assert len({(config.compare.setting, config.student.name) for config in cells}) == 16  # their figures
    config = table2.get_config("resnet8-cifar10-paper")
    assert (config.teacher.loss, config.teacher_training.learning_rate) == ("paper", 1e-4)


@pytest.mark.parametrize("cell", ["resnet32-cifar100", "wrn_40_10-cifar10"])
def test_large_cells_of_table_2_can_be_planned(cell):
    """Within their budgets, at their own batch and horizon; from graphs alone, no step is run. (`--dry_run` of
    densenet_bc_190_40 does the same, in minutes.)"""
    from configs import table2
    from trainers import image_teacher

    config = table2.get_config(cell)
    classes = int(config.data.name.removeprefix("cifar"))
    images = ArrayPair(np.zeros((2_000, 32, 32, 3), np.float32), np.arange(2_000, dtype=np.int32) % classes)
    names = {10: CIFAR10_CLASSES, 100: CIFAR100_CLASSES}[classes]
    splits = Splits(images, images, images, classes, config.data.name, {}, class_names=names)
    plan = image_teacher.plan(config, splits)
    choice = plan.stages[-1][0].plan(plan.train, plan.dev)
    assert choice.peak_bytes < 1e9 * float(config.teacher_training.memory_budget.removesuffix("GB"))
    assert choice.plan.num_segments * choice.plan.segment_length >= 80 * 45_000 // config.training.batch_size // 5


def test_a_dry_run_writes_nothing(tmp_path):
    done = run_module("trainers.train_teacher", "--config=configs/table2.py:resnet8-cifar10", "--dry_run",
                      "--config.quick", "--config.teacher_training.truncate=15")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "data: mnist_5k, 3,500 train, 500 dev, 1,000 test, 10 classes"
    assert "taught 10.82" in done.stdout and "60 steps, of which 15 are swept back" in done.stdout  # typed, over 20
    assert "timing a student, forward and back, steps 8" in lines
    assert lines[-1].startswith("predicted: ") and lines[-1].endswith(" in total")
    none = run_module("trainers.train_teacher", "--config=configs/demo.py")
    assert none.returncode == 2 and "--workdir must name a new directory" in none.stderr


@pytest.mark.parametrize("validation_freq", [1, 5])
def test_divergence_is_one_sentence_too(validation_freq, tmp_path):
    done = run("train_teacher", tmp_path / "run", *SMALL, "--config.training.learning_rate=1e30",
               "--config.teacher_training.steps=5", f"--config.teacher_training.validation_freq={validation_freq}")
    assert done.returncode == 2 and "Lower the student's" in done.stderr and "Traceback" not in done.stderr
    assert tf_l2t.load_teacher(tmp_path / "run" / "teacher").num_classes == 10
    assert json.loads((tmp_path / "run" / "history.json").read_text())["dropped"] == [1, 2, 3]
