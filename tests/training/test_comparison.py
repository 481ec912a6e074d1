import numpy as np
import pytest
import tensorflow as tf

from tests import tiny
from tf_l2t.data import ArrayPair, from_arrays
from tf_l2t.hypergradient import initial_state, rollout, sgd
from tf_l2t.losses import cross_entropy
from tf_l2t.objectives import accuracy
from tf_l2t.students import FunctionalStudent
from tf_l2t.training import classification_problem
from tf_l2t.training.comparison import REPORT_SEED, ROWS, Comparison, RowResult, markdown_table, mean_std, verdicts
from tf_l2t.training.student_runs import StudentRuns, Weights, folds


def float32(pair):
    return ArrayPair(pair.x.astype(np.float32), pair.y)


SPLITS = from_arrays(*(tuple(float32(tiny.arrays(n, seed, separation=1.0))) for n, seed in ((60, 0), (30, 1), (45, 2))))
STUDENT = FunctionalStudent(tiny.plain)


def runs(**options):
    options = {"num_steps": 20, "batch_size": 10, "momentum": 0.9, "evaluate_every": 6} | options
    return StudentRuns(STUDENT, SPLITS.train, SPLITS.dev, loss=lambda labels, logits, _: cross_entropy(labels, logits),
                       coefficients_fn=None, **options)


def test_a_run_in_stretches_is_the_engines_run():
    run = runs()(4, 0.1)
    problem = classification_problem(STUDENT, SPLITS.train, SPLITS.dev,
                                     loss=lambda labels, logits, _: cross_entropy(labels, logits), objective=accuracy,
                                     optimizer=sgd(lambda step: 0.1 * (1 - tf.cast(step, tf.float32) / 20), 0.9),
                                     num_steps=20, batch_size=10)
    whole = rollout(problem, lambda _: tf.zeros(()))(initial_state(problem, *STUDENT.init(4)), 4).final_state
    for a, b in zip(run.last.params, whole.params, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert run.dev_accuracy == STUDENT.accuracy(*run.last, *SPLITS.dev)
    assert run.best_dev_accuracy == STUDENT.accuracy(*run.best, *SPLITS.dev) >= run.dev_accuracy


def test_another_rate_and_start_need_no_other_runs():
    train = runs(evaluate_every=0)
    slow, fast = train(4, 0.001), train(4, 0.1)
    assert not np.array_equal(slow.last.params[0], fast.last.params[0])
    np.testing.assert_array_equal(train(4, 0.001).last.params[0], slow.last.params[0])
    still = train(9, 0.0, start=Weights(*slow.last))
    np.testing.assert_array_equal(still.last.params[0], slow.last.params[0])
    with pytest.raises(ValueError, match="decay"):
        runs(decay="step")


def test_folds_partition():
    data = ArrayPair(np.arange(23.0)[:, None], np.arange(23))
    parts = folds(data, 5)
    held = np.concatenate([h.y for _, h in parts])
    assert [h.size for _, h in parts] == [4] * 5 and len(set(held)) == 20
    for kept, held_out in parts:
        assert kept.size == 16 and not set(kept.y) & set(held_out.y)
    for count in (1, 24):
        with pytest.raises(ValueError, match="folds"):
            folds(data, count)


def compare(teacher, log=lambda line: None, **options):
    options = {"num_steps": 40, "batch_size": 10, "momentum": 0.9, "decay": "linear", "learning_rates": (0.0003, 0.02),
               "tune_rates": (0.01,), "tune_steps": 5, "seeds": 2, "selection_seeds": 1, "num_folds": 2,
               "evaluate_every": 5} | options
    return Comparison(SPLITS, STUDENT, teacher, log=log, **options)


def test_every_row():
    lines = []
    results = compare(tiny.teacher(), lines.append).run(list(ROWS))
    assert [r.row for r in results] == list(ROWS)
    for result in results:
        assert len(result.test_accuracy) == 2
        assert result.learning_rate == 0.02  # at 0.0003 forty steps teach nothing: dev chooses the other
        row = ROWS[result.row]
        assert (result.tune_rate is not None) == row.tuned
        assert (result.best_test_accuracy is not None) == (row.data == "train" and not row.tuned)
        assert np.mean(result.test_accuracy) > 0.5  # chance is a third
    # A row's students are those of the report seeds at the chosen rate.
    expected = [STUDENT.accuracy(*runs(num_steps=40, evaluate_every=5)(REPORT_SEED + i, 0.02).last, *SPLITS.test)
                for i in range(2)]
    np.testing.assert_allclose(results[0].test_accuracy, expected)
    table = markdown_table(results)
    assert len(table.splitlines()) == 2 + len(ROWS)
    assert "{:.2f} ± {:.2f}".format(*(100 * v for v in mean_std(expected))) in table
    assert any("chosen 0.02" in line for line in lines)


def test_test_labels_choose_nothing():
    """Other test labels change the reported accuracies and nothing else."""
    first = compare(tiny.teacher()).run(["train_tuned"])[0]
    spoiled = SPLITS._replace(test=SPLITS.test._replace(y=(SPLITS.test.y + 1) % 3))
    other = compare(tiny.teacher())
    other._splits = spoiled
    second = other.run(["train_tuned"])[0]
    assert (first.learning_rate, first.tune_rate) == (second.learning_rate, second.tune_rate)
    assert first.test_accuracy != second.test_accuracy


def test_verdicts_say_what_the_rows_say():
    rows = {"cross_entropy": 0.6, "train_tuned": 0.9, "taught": 0.8, "taught_tuned": 0.95}
    results = [RowResult(row, ROWS[row].label, 0.1, None, [value], None) for row, value in rows.items()]
    assert [s.split(": ")[-1] for s in verdicts(results)] == ["a factor of 2.00.", "5.00 against 10.00 % test error."]
    assert "tuned beats" in verdicts(results)[1]
    worse = [r._replace(test_accuracy=[0.85]) if r.row == "taught_tuned" else r for r in results]
    assert "does not beat" in verdicts(worse)[1]
    assert verdicts(results[:2]) == []


def test_a_teacher_of_another_split_is_refused():
    teacher = tiny.teacher()
    teacher.note_training({"data": {"source": "arrays", "split_seed": 4}})
    with pytest.raises(ValueError, match="another split"):
        compare(teacher)


def test_mean_std():
    assert mean_std([1.0, 3.0]) == pytest.approx((2.0, 2 ** 0.5))
    assert mean_std([5.0]) == (5.0, 0.0)


def test_bad_comparisons():
    with pytest.raises(ValueError, match="no row is called"):
        compare(None).run(["focal"])
    with pytest.raises(ValueError, match="exported teacher"):
        compare(None).run(["taught"])
    with pytest.raises(ValueError, match="a value each"):
        compare(None, learning_rates=())
    for options in ({"num_steps": 0}, {"tune_steps": 0}, {"decay": "step"}, {"num_folds": 1}, {"batch_size": 99},
                    {"refresh_every": 0}):
        with pytest.raises(ValueError, match="received"):
            compare(None, **options)
