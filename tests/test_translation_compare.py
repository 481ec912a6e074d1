"""`trainers.compare` of a translation config: Table 3 at a tiny size, in a process."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import tf_l2t
from configs import compare_translation
from tests.test_translation_commands import SMALL
from tf_l2t.translation import load_translator
from trainers import command
from trainers.translation_compare import prepare_comparison
from trainers.translation_table import translation_table

ROOT = pathlib.Path(__file__).parent.parent
TINY = SMALL | {
    "training.num_steps": 4, "training.keep_every": 1, "compare.start": "kept/2", "compare.students": ("lstm1",),
    "compare.losses": ("softmax_margin", "untaught", "taught"),
    "compare.loss_options": (("softmax_margin", (("num_candidates", 2),)),), "compare.learning_rates": (0.0, 0.1),
    "compare.num_steps": 2, "compare.evaluate_every": 1, "compare.seeds": 2, "teacher_training.steps": 1,
    "teacher_training.num_steps": 2, "teacher_training.dev_size": 8, "teacher_training.validation_freq": 0,
    "features.sample_size": 4}


def compare(folder, **changes):
    arguments = [f"--config.{field}={value}" for field, value in (TINY | changes).items()]
    return subprocess.run([sys.executable, "-m", "trainers.compare", "--config", "configs/compare_translation.py",
                           "--workdir", str(folder / "run"), "--measured", str(folder / "measured.json"),
                           "--verbose=0", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    done = compare(folder)
    assert done.returncode == 0, done.stderr
    return folder, done


def read(path):
    return json.loads(path.read_text())


def test_rows_are_the_runs(table):
    folder, done = table
    rows = read(folder / "measured.json")["rows"]
    assert [row["loss"] for row in rows] == ["start", "mle", "softmax_margin", "untaught", "taught"]
    for row in rows:
        rates = [] if row["loss"] == "start" else [0.0, 0.1]
        first = [read(folder / f"run/lstm1/seed0/{row['loss']}-{rate:g}/history.json") for rate in rates]
        best = [max(look["bleu"] for look in history) for history in first]
        if rates:  # the first of the best, by the first seed's dev
            assert row["learning_rate"] == rates[int(np.argmax(best))]
        name = row["loss"] if row["loss"] == "start" else f"{row['loss']}-{row['learning_rate']:g}"
        found = [read(folder / f"run/lstm1/seed{seed}/{name}/results.json") for seed in (0, 1)]
        for column, key in (("greedy", "best_greedy"), ("beam2", "best_beam2"), ("last_greedy", "last_greedy")):
            for prefix, kind in (("bleu", "detokenized"), ("tokenized_lower", "tokenized_lower")):
                scores = [result[key][kind]["score"] for result in found]
                assert row[f"{prefix}_{column}_mean"] == pytest.approx(np.mean(scores), abs=6e-4)
                assert row[f"{prefix}_{column}_std"] == pytest.approx(np.std(scores, ddof=1), abs=6e-4)
        assert row["tokens_per_second"] == max(result["tokens_per_second"] for result in found)
        assert row["seeds"] == 2 and row["student"] == "lstm1" and row["data"] == "libreoffice_help"
    markdown = translation_table(rows, "libreoffice_help")
    assert markdown in done.stdout and (folder / "run" / "table.md").read_text() == markdown + "\n"
    assert len(markdown.splitlines()) == 7 and "Quoted, not measured here" in (folder / "run/report.html").read_text()


def test_every_loss_begins_where_the_config_says(table):
    """At rate 0 a student stays what it was: here the middle of the start's training."""
    folder, _ = table
    for loss in ("mle", "softmax_margin", "untaught", "taught"):
        found, start = (load_translator(folder / f"run/lstm1/seed0/{name}").model.trainable_weights
                        for name in (f"{loss}-0/last", "start/kept/2"))
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


def test_what_is_there_is_not_made_again(table):
    folder, _ = table
    before = {path: path.stat().st_mtime_ns for path in (folder / "run/lstm1").rglob("*.keras")}
    done = compare(folder)
    assert done.returncode == 0, done.stderr
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "run/lstm1").rglob("*.keras")} and before
    assert len(read(folder / "measured.json")["rows"]) == 5


@pytest.mark.parametrize(("change", "match"), [
    ({"compare.seeds": 0}, "config.compare needs"),
    ({"compare.students": ("gru",)}, "gru"),
    ({"compare.losses": ("mle", "hinge")}, "hinge"),
    ({"compare.start": "kept/3"}, "multiple of .* received 'kept/3', 1, 2"),
    ({"compare.start": "kept/6"}, "received 'kept/6'"),
    ({"compare.start": "first"}, '"best", "last", or "kept/STEP"'),
    ({"teacher.loss": "hinge"}, "hinge"),
    ({"teacher_training.objective": "hinge"}, "log_greedy_expected_bleu"),
])
def test_bad_configs_are_refused_before_any_work(change, match, tmp_path):
    config = command.changed(compare_translation.get_config(), (TINY | change).items())
    with pytest.raises(ValueError, match=match):
        prepare_comparison(config, str(tmp_path / "run"), 0, print)
    assert not (tmp_path / "run").exists()


def test_no_figures_yet():
    assert translation_table([{"data": "other"}], "de-en") == "No figures yet."
