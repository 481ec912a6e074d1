"""The benchmarks of translation, at a tiny size: that they measure what their rows say."""

import pathlib
import time

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import objectives, translation
from benchmarks.memory import repeated
from benchmarks.tables import objectives_table, teacher_step_table, translation_fit_table
from tf_l2t.students import TRANSLATORS, AttentionLSTM, previous_tokens
from tf_l2t.training import translation_objectives
from tf_l2t.training.measured import read, record
from tf_l2t.training.translation_objectives import OBJECTIVES
from tf_l2t.translation import (
    BOS,
    Decoding,
    Subwords,
    TextTranslator,
    embedded_help,
    encode_pairs,
    split_text,
    write_splits,
)


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(translation, "VOCABULARY", 400)
    monkeypatch.setattr(translation, "LONGEST", 20)
    monkeypatch.setattr(translation, "FIT_STEPS", 2)
    monkeypatch.setattr(translation, "DEV", 6)
    monkeypatch.setitem(TRANSLATORS, "lstm1", lambda size: AttentionLSTM(size, units=8))


def test_spearman():
    """By hand, ties with the mean of their ranks: 1 − 6 Σ d² / (n (n² − 1)) without ties."""
    assert objectives.spearman([1, 2, 3, 4], [10, 30, 20, 40]) == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert objectives.spearman([3, 2, 1], [1, 5, 9]) == pytest.approx(-1)
    assert objectives.spearman([1, 1, 2], [1, 2, 3]) == pytest.approx(
        np.corrcoef([1.5, 1.5, 3], [1, 2, 3])[0, 1])


def test_table_of_objectives(tmp_path):
    rows = [{"data": "de-en", "run": "runs/a", "model": str(i), "dev_pairs": 500, "max_length": 50, "bleu": bleu,
             "n_best_bleu": a, "log_likelihood": b, "command": "python -m benchmarks.objectives runs/a"}
            for i, (bleu, a, b) in enumerate([(10.0, 9.0, 1.0), (28.5, 5.0, 4.0), (30.0, 3.0, 2.0), (31.2, 1.0, 3.0)])]
    record(tmp_path / "objectives.json", rows, objectives.KEY)
    lines = objectives_table(read(tmp_path / "objectives.json")).splitlines()
    # 1 - 6 Σd² / n(n² - 1): Σd² is 6 of all four, 6 of the last three; and the order turned round
    assert lines[2:5] == ["| `log_likelihood` | 0.400 | -0.500 |", "| `n_best_bleu` | -1.000 | -1.000 |", ""]
    assert "4 translators of greedy BLEU 10.0 to 31.2, 3 of them within 3 of the best; 500 dev pairs." in lines
    assert "| -1.000 | – |" in objectives_table(rows[:3])  # two say nothing
    assert lines[-1] == "    python -m benchmarks.objectives runs/a"


def test_rows_of_objectives(tmp_path, monkeypatch):
    """The same model of two runs, and on other dev pairs, are rows of their own, with the command as it was given."""
    monkeypatch.setattr(objectives, "measure", lambda path, dev, length: dict.fromkeys(("bleu", "log_likelihood"),
                                                                                float(path == runs[0])))
    write_splits(split_text(embedded_help().take(range(20)), 6, 6), tmp_path / "text")
    runs = [str(tmp_path / run / "kept" / "9") for run in ("a", "b")]
    for size in (2, 4):
        monkeypatch.setattr("sys.argv", ["objectives.py", *runs, f"--data={tmp_path / 'text'}", f"--dev_size={size}",
                                         f"--output={tmp_path / 'objectives.json'}"])
        objectives.main()
    rows = read(tmp_path / "objectives.json")
    assert [(row["run"], row["model"], row["dev_pairs"]) for row in rows] == [
        (str(pathlib.Path(run).parent), "9", size) for size in (2, 4) for run in runs]
    assert all(f"{runs[0]} {runs[1]} --data=" in row["command"] for row in rows)


def test_objectives_of_a_saved_translator(tmp_path, monkeypatch):
    kept = {name: OBJECTIVES[name] for name in ("log_likelihood", "log_sharp_expected_bleu")}
    monkeypatch.setattr(translation_objectives, "OBJECTIVES", kept)
    text = split_text(embedded_help(), 12, 12, 0)
    subwords = Subwords.train((*text.train.source, *text.train.target), 400)
    model = AttentionLSTM(400, units=8)
    TextTranslator(model, subwords, Decoding(longest=40)).save(tmp_path)
    found = objectives.measure(str(tmp_path), text.dev, 12)
    assert set(found) == {"bleu", *kept}
    encoded = encode_pairs(subwords, text.dev, 12, too_long="truncate")
    logits = model((encoded.source, previous_tokens(tf.constant(encoded.target), BOS)))
    log_probs = tf.gather(tf.nn.log_softmax(logits), encoded.target, batch_dims=2)
    real = encoded.target != 0
    assert found["log_likelihood"] == pytest.approx(float(tf.reduce_sum(tf.where(real, log_probs, 0))) / real.sum(),
                                                    rel=1e-5)


def test_rows_of_cost(tiny, monkeypatch):
    row = translation.measure_fit("lstm1", 1)
    assert (row["what"], row["steps"], row["repetitions"]) == ("fit", 2, 1)
    assert row["ms_per_step"] > 0 and row["keras_ms_per_step"] > 0 and row["tokens_per_second"] > 0
    row = translation.measure_decoding("lstm1")
    assert min(row["beam1_positions_per_second"], row["beam5_positions_per_second"]) > 0
    repeated, found = translation.repeated, []
    monkeypatch.setattr(translation, "repeated", lambda call, times: found.append(repeated(call, times)) or found[-1])
    row = translation.measure_teacher_step("lstm1", 3)
    ((first, second), peak_mb), = found
    assert row["steps"] == 3 and row["seconds"] == round(second, 1) and row["peak_mb"] == peak_mb
    assert row["compile_s"] == round(first - second, 1) > 0
    assert {*translation.KEY} <= set(row)


def test_rows_of_cost_keep_their_command(tmp_path, monkeypatch):
    for what in ("fit", "decoding"):
        monkeypatch.setattr(translation, f"measure_{what}", lambda name, *_, what=what: {
            "student": name, "what": what, "steps": 0})
    arguments = ["--students", "lstm2", "--steps", "--output", str(tmp_path / "cost.json")]
    monkeypatch.setattr("sys.argv", ["translation.py", *arguments])
    translation.main()
    rows = read(tmp_path / "cost.json")
    assert [(row["student"], row["what"]) for row in rows] == [("lstm2", "fit"), ("lstm2", "decoding")]
    assert all(row["command"].endswith(" ".join(arguments)) for row in rows)


def test_the_most_memory_of_calls():
    seconds, peak_mb = repeated(lambda: (np.ones(25_000_000), time.sleep(0.1)), 2)  # 200 MB, one after the other
    assert len(seconds) == 2 and min(seconds) >= 0.1 and 150 < peak_mb < 390


def test_tables_of_cost():
    steps = {"student": "lstm1", "what": "teacher_step"}
    rows = [{**steps, "steps": 200, "seconds": 50.0, "compile_s": 9.0, "peak_mb": 1500},
            {**steps, "steps": 50, "seconds": 10.0, "compile_s": 8.5, "peak_mb": 900},
            {"student": "lstm1", "what": "fit", "steps": 60, "ms_per_step": 210.0, "keras_ms_per_step": 200.0,
             "tokens_per_second": 2500},
            {"student": "lstm1", "what": "decoding", "steps": 0, "beam1_positions_per_second": 9000,
             "beam5_positions_per_second": 3000}]
    rows = [{**row, "command": f"python {row['what'][0]}"} for row in rows]
    assert translation_fit_table(rows).splitlines()[2] == "| lstm1 | 210 | 200 | 1.05 | 2,500 | 9,000 | 3,000 |"
    assert teacher_step_table(rows).splitlines()[2:4] == ["| lstm1 | 50 | 10.0 | 0.20 | 8.5 | 900 |",
                                                         "| lstm1 | 200 | 50.0 | 0.25 | 9.0 | 1,500 |"]
    assert translation_fit_table(rows).splitlines()[3:] == ["", "    python d", "    python f"]
    assert teacher_step_table(rows).splitlines()[4:] == ["", "    python t"]
