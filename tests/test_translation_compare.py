"""`trainers.compare` of a translation config: Table 3 at a tiny size, in a process."""

import itertools
import json
import shutil
from unittest import mock

import numpy as np
import pytest

import tf_l2t
from configs import compare_translation, translation_transformer_adam
from tests.commands import run_module
from tests.event_files import hyperparameters
from tests.test_translation_commands import SMALL
from tf_l2t.training import StudentDivergedError, TeacherDivergedError, pace
from tf_l2t.translation import load_translator
from trainers import command, translation, translation_teacher
from trainers.digests import teacher_digest, translator_digest
from trainers.translation_compare import (
    Progress,
    StudentTable,
    check_losses,
    measured_row,
    of_student,
    prepare_comparison,
    steps_of,
)
from trainers.translation_table import translation_table
from trainers.translator_fit import compiled, prepare_translator

TINY = SMALL | {
    "training.num_steps": 4, "training.stop_at": 2, "compare.start": "last", "compare.students": ("lstm1",),
    "compare.losses": ("untaught", "taught"), "compare.more_losses": (), "compare.loss_options": (),
    "compare.learning_rates": (0.0, 0.1), "compare.num_steps": 2, "compare.evaluate_every": 1, "compare.seeds": 2,
    "teacher_training.steps": 1, "teacher_training.num_steps": 2, "teacher_training.dev_size": 8,
    "teacher_training.validation_freq": 0, "features.sample_size": 4}


def compare(folder, **changes):
    arguments = [f"--config.{field}={value}" for field, value in (TINY | changes).items()]
    return run_module("trainers.compare", "--config", "configs/compare_translation.py", "--workdir",
                      str(folder / "run"), "--measured", str(folder / "measured.json"), "--verbose=0", *arguments)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    done = compare(folder)
    assert done.returncode == 0, done.stderr
    return folder, done


def read(path):
    return json.loads(path.read_text())


def test_every_training_is_told_as_it_begins(table, tmp_path, capsys):
    """Of 9 runs of 2 steps, 2 starts stopped at 2, and a teacher's 2 steps, each taken for 4, a run of the second seed
    is lost."""
    folder = tmp_path / "lstm1"
    shutil.copytree(table[0] / "run/lstm1", folder)
    for lost in ("seed1/mle-0.1", "seed1/mle-0"):
        shutil.rmtree(folder / lost, ignore_errors=True)
    config = command.changed(compare_translation.get_config(), TINY.items())
    assert steps_of(config) == 2 * 2 + 3 * 3 * 2 + 2 * 4
    list(StudentTable(config, folder, 2).run())
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if '"total"' in line]
    assert [(line["seed"], line["steps_done"], line["total"]) for line in lines] == [(1, 8, 30)]
    assert lines[0]["run"].startswith("mle-") and "seconds_left" not in lines[0]  # none has been made
    assert "begin with new weights" not in table[1].stderr  # the table's teacher has a start


def test_the_time_left_is_that_of_the_steps_that_are_not_there(capsys, monkeypatch):
    clock = itertools.count(0, 30)
    monkeypatch.setattr(pace.time, "perf_counter", lambda: next(clock))
    progress = Progress(100, 2)
    progress.ended(40, made=False)
    progress.ended(20)
    progress.begins({"run": "mle"})  # 20 steps took 30 seconds
    assert json.loads(capsys.readouterr().out) == {"run": "mle", "steps_done": 60, "total": 100, "seconds_left": 60.0}


def test_rows_are_the_runs(table):
    folder, done = table
    rows = read(folder / "measured.json")["rows"]
    assert [row["loss"] for row in rows] == ["start", "mle", "untaught", "taught"]
    for row in rows:
        start = row["loss"] == "start"
        rates = [] if start else [0.0, 0.1]
        first = [read(folder / f"run/lstm1/seed0/{row['loss']}-{rate:g}/history.json") for rate in rates]
        best = [max(look["bleu"] for look in history) for history in first]
        if rates:  # the first of the best, by the first seed's dev
            assert row["learning_rate"] == rates[int(np.argmax(best))]
        name = "start" if start else f"{row['loss']}-{row['learning_rate']:g}"
        weights = "last" if start else "best"
        found = [read(folder / f"run/lstm1/seed{seed}/{name}/results.json") for seed in (0, 1)]
        for column, key in (("greedy", f"{weights}_greedy"), ("beam2", f"{weights}_beam2"),
                            ("last_greedy", "last_greedy")):
            for prefix, kind in (("bleu", "detokenized"), ("tokenized_lower", "tokenized_lower")):
                scores = [result[key][kind]["score"] for result in found]
                assert row[f"{prefix}_{column}_mean"] == pytest.approx(np.mean(scores), abs=6e-4)
                assert row[f"{prefix}_{column}_std"] == pytest.approx(np.std(scores, ddof=1), abs=6e-4)
        assert row["tokens_per_second"] == (0 if start else max(result["tokens_per_second"] for result in found))
        assert row["seeds"] == 2 and row["student"] == "lstm1" and row["data"] == "libreoffice_help"
        chosen, scores = hyperparameters(folder / "run/tensorboard/lstm1" / row["loss"])
        assert chosen == {name: row[name] for name in ("student", "loss", "learning_rate")}
        assert scores["bleu_greedy"] == pytest.approx(row["bleu_greedy_mean"], rel=1e-5)
    markdown = translation_table(rows, "libreoffice_help")
    assert markdown in done.stdout and (folder / "run" / "table.md").read_text() == markdown + "\n"
    assert len(markdown.splitlines()) == 6 and "Quoted, not measured here" in (folder / "run/report.html").read_text()


def test_the_start_is_what_losses_begin_with(table, tmp_path):
    """Its row is of its last weights, or of its best."""
    config = command.changed(compare_translation.get_config(), TINY.items())
    start = shutil.copytree(table[0] / "run/lstm1/seed0/start", tmp_path / "start")
    history, results = read(start / "history.json"), read(start / "results.json")
    (start / "history.json").write_text(json.dumps([{"bleu": 7.0}, {**history[0], "bleu": 3.0}]))
    for number, name in enumerate(("last_greedy", "last_beam2", "best_greedy", "best_beam2")):
        results[name]["detokenized"]["score"] = float(number)
    (start / "results.json").write_text(json.dumps(results | {"dev_bleu": 7.0}))
    for weights, dev, greedy, beam in (("last", 3.0, 0.0, 1.0), ("best", 7.0, 2.0, 3.0)):
        found = StudentTable(config, tmp_path, 0)._result("start", 0.1, [start], weights)
        bleus = {name: kinds["detokenized"] for name, kinds in found.bleus.items()}
        assert found.dev_bleu == [dev] and bleus == {"greedy": [greedy], "beam2": [beam], "last_greedy": [0.0]}


def test_a_start_is_stopped_where_a_longer_run_would_go_on(table, tmp_path):
    """Its rate falls over all of that run's steps."""
    start = table[0] / "run/lstm1/seed1/start"
    config = command.changed(compare_translation.get_config(), [
        *TINY.items(), ("seed", 1), ("training.stop_at", 0), ("training.keep_every", 1)])
    assert config.training.decay == "linear"
    prepare_translator(config, str(tmp_path / "run"), 0)()
    looks = [[look["step"] for look in read(path / "history.json")] for path in (start, tmp_path / "run")]
    assert looks == [[2], [2, 4]]
    stopped, passed = (load_translator(path).model.weights for path in (start / "last", tmp_path / "run/kept/2"))
    for a, b in zip(stopped, passed, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)  # of two processes, maybe on other numbers of cores


def test_every_loss_begins_where_the_config_says(table):
    """At rate 0 a student stays what it was."""
    folder, _ = table
    for loss in ("mle", "untaught", "taught"):
        found, start = (load_translator(folder / f"run/lstm1/seed0/{name}").model.trainable_weights
                        for name in (f"{loss}-0/last", "start/last"))
        moved = load_translator(folder / f"run/lstm1/seed0/{loss}-0.1/last").model.trainable_weights
        for a, b in zip(found, start, strict=True):
            np.testing.assert_array_equal(a, b)
        assert any(np.any(a.numpy() != b.numpy()) for a, b in zip(moved, start, strict=True))


def test_the_untaught_loss_is_that_of_a_new_teacher(table):
    folder, _ = table
    new, trained = (tf_l2t.load_teacher(folder / f"run/lstm1/{name}") for name in ("untaught", "teacher/teacher"))
    # Five equal values by weights that sum to 1: to float32's rounding.
    np.testing.assert_allclose(new(np.zeros(3, np.float32)), np.full(400, new.form.start), rtol=5e-7)
    assert new.form == trained.form
    assert np.abs(trained(np.zeros(3, np.float32)) - new.form.start).max() > 1e-4
    assert new.training["data"]["subwords"] == trained.training["data"]["subwords"]


def test_the_status_is_of_the_same_dev_pairs_in_training_and_in_use(table):
    folder, _ = table
    config = command.changed(compare_translation.get_config(), [
        *TINY.items(), ("training.loss", "taught"), ("training.teacher", str(folder / "run/lstm1/untaught"))])
    text, plan = translation.load_text(config), translation_teacher.plan(config)
    subwords = translation.train_subwords(config, text)
    model = compiled(config, translation.new_student(config, 400), subwords, text, plan.train)
    assert plan.dev.size <= 8 < text.dev.size
    for used, trained in zip(model._samples[1], (plan.dev.source, plan.dev.target), strict=True):
        np.testing.assert_array_equal(used, trained[:4])
    with mock.patch("trainers.translator_fit.logging.warning") as warning:  # of other pairs it is said
        for size in (config.teacher_training.dev_size, 6):
            other = command.changed(config, [("training.teacher", str(folder / "run/lstm1/teacher/teacher")),
                                             ("teacher_training.dev_size", size)])
            assert not warning.called
            compiled(other, translation.new_student(other, 400), subwords, text, plan.train)
    assert "status of this student" in warning.call_args.args[0] and warning.call_args.args[2] == "dev"


def test_a_manifest_knows_the_start_and_the_teacher(table):
    folder, _ = table
    found = {}
    for loss, teacher in (("mle", None), ("untaught", "untaught"), ("taught", "teacher/teacher")):
        data = read(folder / f"run/lstm1/seed0/{loss}-0.1/manifest.json")["data"]
        assert data["start"] == translator_digest(load_translator(folder / "run/lstm1/seed0/start/last"))
        assert data.get("teacher") == (teacher and teacher_digest(tf_l2t.load_teacher(folder / "run/lstm1" / teacher)))
        found[loss] = data.get("teacher")
    assert len(set(found.values())) == 3
    assert "start" not in read(folder / "run/lstm1/seed0/start/manifest.json")["data"]


def test_students_that_diverge_are_left_out_and_counted(table, tmp_path, monkeypatch):
    """A rate of the first seed, another seed, and all of a loss; they are not made again."""
    folder = shutil.copytree(table[0] / "run/lstm1", tmp_path / "lstm1")
    config = command.changed(compare_translation.get_config(), TINY.items())
    whole = StudentTable._run

    def run(self, seed, name, changes):
        if (seed, name) in ((0, "mle-0.1"), (1, "untaught-0.1"), (1, "untaught-0")) or name.startswith("taught"):
            (folder / f"seed{seed}" / name / "results.json").unlink()
            raise StudentDivergedError("a loss is not finite")
        return whole(self, seed, name, changes)

    with monkeypatch.context() as patched:
        patched.setattr(StudentTable, "_run", run)
        found = {result.loss: result for result in StudentTable(config, folder, 0).run()}
    assert {result.loss: result for result in StudentTable(config, folder, 0).run()} == found
    assert set(found) == {"start", "mle", "untaught"} and found["mle"].learning_rate == 0.0
    assert [(r.diverged, len(r.dev_bleu)) for r in found.values()] == [(0, 2), (0, 2), (1, 1)]
    row = measured_row("x", found["untaught"], config.decoding.beam_size)
    alone = translation_table([row], "x")
    assert (row["seeds"], row["diverged"]) == (1, 1) and "| 1 (1 diverged) |" in alone and "±" not in alone
    assert "| –, 5, 1,006 |" in translation_table([row | {"tokens_per_second": 0, "greedy_tokens_per_second": 5,
                                                          f"beam{row['beam_size']}_tokens_per_second": 1006}], "x")


@pytest.mark.parametrize("what", ["start", "teacher"])
def test_a_finished_run_of_another_beginning_is_refused(table, what):
    folder = table[0] / "run/lstm1"
    of_table = StudentTable(command.changed(compare_translation.get_config(), TINY.items()), folder, 0)
    made, manifest = folder / "seed0/taught-0.1", folder / "seed0/taught-0.1/manifest.json"
    assert of_table._from_start(0, "taught", 0.1) == made
    whole = manifest.read_text()
    manifest.write_text(whole.replace(read(manifest)["data"][what], "0" * 64))
    with pytest.raises(ValueError, match=f"began with another {what} than"):
        of_table._from_start(0, "taught", 0.1)
    manifest.write_text(whole)


def test_a_teacher_that_was_stopped_is_trained_on_and_one_that_diverged_counts(tmp_path, monkeypatch):
    ends, before = iter([KeyboardInterrupt(), TeacherDivergedError("no number")]), []

    def fit(path):
        before.append(path.is_dir())
        (path / "teacher").mkdir(parents=True, exist_ok=True)
        raise next(ends)

    monkeypatch.setattr("trainers.translation_compare.fitting", lambda config, plan: fit)
    monkeypatch.setattr(translation_teacher, "plan", lambda config: None)
    table = StudentTable(command.changed(compare_translation.get_config(), TINY.items()), tmp_path, 0)
    with pytest.raises(KeyboardInterrupt):
        table._teacher()
    for _ in range(2):  # the second time it is there
        assert table._teacher() == tmp_path / "teacher" / "teacher" and table._teacher().is_dir()
    assert before == [False, True]


def test_what_is_there_is_not_made_again(table):
    folder, _ = table
    before = {path: path.stat().st_mtime_ns for path in (folder / "run/lstm1").rglob("*.keras")}
    done = compare(folder)
    assert done.returncode == 0, done.stderr
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "run/lstm1").rglob("*.keras")} and before
    assert len(read(folder / "measured.json")["rows"]) == 4


@pytest.mark.parametrize(("change", "match"), [
    ({"compare.seeds": 0}, "config.compare needs"),
    ({"compare.students": ("gru",)}, "gru"),
    ({"compare.start": "first"}, '"best" or "last"; received .first'),
    ({"training.stop_at": 5}, "stop_at is one of .* received 5, 4"),
    ({"training.stop_at": -1}, "received -1, 4"),
    ({"teacher.loss": "hinge"}, "hinge"),
    ({"teacher_training.judge": "hinge"}, "judge.*hinge"),
    ({"compare.losses": ("mle", "hinge")}, "hinge"),
    ({"compare.losses": ("softmax_margin",), "compare.loss_options": (("softmax_margin", (("size", 2),)),)},
     "num_candidates.*size"),
    ({"compare.loss_options": (("soft_margin", (("num_candidates", 2),)),)}, "softmax_margin.*soft_margin"),
    ({"compare.loss_options": (("mle", (("smoothing", 2),)),)}, "smoothing"),
    ({"compare.losses": ("actor_critic",)}, "critic_steps=1000, 2 steps"),
    ({"compare.optimizer": "lbfgs"}, "'sgd' or 'adam'.*lbfgs"),
    ({"compare.decay": "step"}, "decay.*step"),
    ({"compare.evaluate_every": 0}, "evaluate_every"),
    ({"training.evaluate_every": 0, "compare.start": "best"}, "evaluate_every"),
    ({"teacher_training.objective": "hinge"}, "log_greedy_expected_bleu"),
    ({"compare.changes": (("gru", ()),)}, "changes are of students.*gru"),
    ({"compare.more_losses": (("gru", ("mle",)),)}, "more_losses are of students.*gru"),
    ({"compare.more_losses": (("lstm1", ("mle", "hinge")),)}, "hinge"),
    ({"compare.more_losses": (("lstm1", ("risk",)), ("lstm1", ("mrt",)))}, "more_losses names a student twice"),
    ({"compare.more_losses": (("lstm1", (1,)),)}, "a tuple of a name each; received .* 1"),
    ({"compare.changes": (("lstm1", (("training.loss_options", (1,)),)),)}, "loss_options must be a tuple"),
    ({"compare.changes": (("lstm1", (("training.rate", 1),)),)}, "rate"),
])
def test_bad_configs_are_refused_before_any_work(change, match, tmp_path):
    config = command.changed(compare_translation.get_config(), (TINY | change).items())
    with pytest.raises(ValueError, match=match):
        prepare_comparison(config, str(tmp_path / "run"), 0, print)
    assert not (tmp_path / "run").exists()


def test_the_table_as_it_is_passes_the_checks():
    """With its own losses, options and numbers of steps."""
    config = command.changed(compare_translation.get_config(), [
        ("data.name", "libreoffice_help"), ("data.vocabulary", 400), ("student.options", (("units", 4),)),
        ("compare.losses", (*compare_translation.get_config().compare.losses, "risk", "sequence_nll"))])
    options = dict(config.compare.loss_options)
    assert {"actor_critic", "mrt", "softmax_margin"} <= set(options)
    assert dict(options["actor_critic"])["critic_steps"] < config.compare.num_steps == 1000
    whole = of_student(config, "lstm1")
    assert whole.compare.losses == ("mle", "untaught", "taught", "risk", "sequence_nll", "reinforce", "mrt",
                                    "actor_critic", "softmax_margin")  # each once
    assert of_student(config, "lstm2").compare.losses == whole.compare.losses[:5]
    check_losses(whole)
    transformer, usual = of_student(config, "transformer"), translation_transformer_adam.get_config()
    assert all(transformer.training[name] == usual.training[name] for name in usual.training if name != "stop_at")
    assert transformer.student == usual.student


def test_no_figures_yet():
    assert translation_table([{"data": "other"}], "de-en") == "No figures yet."
