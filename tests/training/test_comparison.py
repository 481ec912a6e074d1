import os
import signal

import numpy as np
import pytest
import tensorflow as tf

import tf_l2t
from tests import tiny
from tf_l2t.data import ArrayPair, corrupt_labels, from_arrays
from tf_l2t.hypergradient import initial_state, rollout, sgd
from tf_l2t.losses import cross_entropy
from tf_l2t.objectives import accuracy
from tf_l2t.students import FunctionalStudent
from tf_l2t.training import TerminatedError, classification_problem, under_way
from tf_l2t.training.comparison import REPORT_SEED, Comparison
from tf_l2t.training.results import RowResult, markdown_table, mean_std, verdicts
from tf_l2t.training.rows import ROWS, WAYS
from tf_l2t.training.student_runs import StudentRuns, Weights, folds
from tf_l2t.training.under_way import UnderWay


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


def compare(*teachers, log=lambda line: None, splits=SPLITS, **options):
    options = {"num_steps": 40, "batch_size": 10, "momentum": 0.9, "decay": "linear", "learning_rates": (0.0003, 0.02),
               "tune_rates": (0.01,), "tune_steps": 5, "seeds": 2, "selection_seeds": 1, "num_folds": 2,
               "evaluate_every": 5} | options
    return Comparison(splits, STUDENT, teachers, log=log, **options)


def test_every_row():
    lines, heard = [], []
    rows = [*WAYS, "train_tuned", "gold_correction_tuned", "taught_tuned"]
    splits = SPLITS._replace(true_y=SPLITS.train.y)
    made = compare(tiny.teacher(), tiny.teacher(seed=1), log=lines.append, splits=splits,
                   progress=lambda *steps: heard.append(steps))
    results = made.run(rows)
    assert heard[-1] == (made.steps_of(rows), 0) and heard == sorted(heard)
    assert [r.row for r in results] == rows
    for result in results:
        row = ROWS[result.row]
        assert len(result.test_accuracy) == (4 if row.taught else 2) and result.teachers == (2 if row.taught else 0)
        assert (result.tune_rate is not None) == row.tuned
        assert (result.best_test_accuracy is None) == row.sees_dev == (not result.curve)
    by_name = {r.row: r for r in results}
    for name in ("cross_entropy", "dev_only", "train_dev", "taught", "gold_correction"):
        assert by_name[name].learning_rate == 0.02  # at 0.0003 forty steps teach nothing: dev chooses the other
        assert np.mean(by_name[name].test_accuracy) > 0.5  # chance is a third
    assert by_name["large_margin"].variant["margin"] in (2, 3, 4)
    # A row's students are those of the report seeds at the chosen rate.
    made = [runs(num_steps=40, evaluate_every=5)(REPORT_SEED + i, 0.02) for i in range(2)]
    expected = [STUDENT.accuracy(*run.last, *SPLITS.test) for run in made]
    np.testing.assert_allclose(results[0].test_accuracy, expected)
    np.testing.assert_allclose([v for _, v in results[0].curve], np.mean([[v for _, v in r.curve] for r in made], 0))
    assert [step for step, _ in results[0].curve] == [5, 10, 15, 20, 25, 30, 35, 40]
    table = markdown_table(results)
    assert len(table.splitlines()) == 2 + len(rows)
    assert "{:.2f} ± {:.2f}".format(*mean_std([100 * (1 - v) for v in expected])) in table
    assert any("chosen 0.02" in line for line in lines)


def test_taught_rows_report_every_teacher_by_itself():
    first, second = tiny.teacher(), tiny.teacher(seed=1)
    second.values.assign(-second.values)  # teaches the opposite
    both = compare(first, second, learning_rates=(0.02,)).run(["taught"])[0]
    alone = [compare(t, learning_rates=(0.02,)).run(["taught"])[0] for t in (first, second)]
    assert both.test_accuracy == alone[0].test_accuracy + alone[1].test_accuracy
    assert both.worst_teacher == (1, pytest.approx(np.mean(alone[1].errors)))
    assert alone[1].worst_teacher[1] > alone[0].worst_teacher[1] + 20


def test_the_untaught_row_is_the_loss_from_which_teachers_start():
    new = tf_l2t.teachers.AttentionTeacher(3, 6, loss="soft", num_keys=2, class_counts=[7, 2, 1])
    moved = tf_l2t.teachers.AttentionTeacher(**new.get_config())
    moved.values.assign(moved.values + 0.02 * tf.random.stateless_normal(moved.values.shape, [1, 2]))
    untaught, taught, plain = compare(moved, learning_rates=(0.02,)).run(["untaught", "taught", "cross_entropy"])
    started = compare(new, learning_rates=(0.02,)).run(["taught"])[0]
    assert untaught.teachers == 0 and untaught.test_accuracy == started.test_accuracy
    assert untaught.test_accuracy not in (taught.test_accuracy, plain.test_accuracy)
    with pytest.raises(ValueError, match=r"untaught.*need an exported teacher"):
        compare().check_rows(["untaught"])


def test_gold_correction_uses_the_noise_that_dev_shows():
    """With train labels moved to the next class throughout, the estimate is that move, and correction undoes it."""
    wrong = SPLITS._replace(train=SPLITS.train._replace(y=(SPLITS.train.y + 1) % 3))
    made = Comparison(wrong, STUDENT, num_steps=60, batch_size=10, momentum=0.9, decay="linear",
                      learning_rates=(0.02,), tune_rates=(0.01,), tune_steps=5, seeds=2, selection_seeds=1, num_folds=2,
                      log=lambda line: None)
    plain, gold = made.run(["cross_entropy", "gold_correction"])
    assert np.mean(plain.test_accuracy) < 0.3 and np.mean(gold.test_accuracy) > 0.6


def test_the_oracle_of_the_true_labels_is_cross_entropy_before_the_labels_were_made_wrong():
    wrong = corrupt_labels(SPLITS, "shift", 1.0)
    made, clean = compare(splits=wrong).run(["oracle_clean", "train_dev"]), compare().run(["train_dev"])
    assert made[0].test_accuracy == clean[0].test_accuracy != made[1].test_accuracy
    with pytest.raises(ValueError, match="not made wrong"):
        compare().check_rows(["oracle_clean"])


def test_cross_validated_rows_are_not_judged_on_what_they_were_trained_on(monkeypatch):
    seen = []
    made = compare(learning_rates=(0.02,))
    runs_of = made._runs

    def watched(way, variant, clean, held_out):
        seen.append((clean.y.size, {row.tobytes() for row in clean.x} & {row.tobytes() for row in held_out.x}))
        return runs_of(way, variant, clean, held_out)

    monkeypatch.setattr(made, "_runs", watched)
    made.run(["train_dev_tuned"])
    folds_seen = [overlap for size, overlap in seen if size < SPLITS.dev.size]
    assert len(folds_seen) == 4 and not any(folds_seen)  # two folds to choose the rate, two to choose the tuning's


def test_test_labels_choose_nothing():
    """Other test labels change the reported accuracies and nothing else."""
    rows = ["gold_correction", "train_tuned", "taught_tuned"]
    spoiled = SPLITS._replace(test=SPLITS.test._replace(y=(SPLITS.test.y + 1) % 3))
    first, second = (compare(tiny.teacher(), splits=splits).run(rows) for splits in (SPLITS, spoiled))
    for one, other in zip(first, second, strict=True):
        assert one._replace(test_accuracy=[], best_test_accuracy=None) == \
            other._replace(test_accuracy=[], best_test_accuracy=None)
        assert one.test_accuracy != other.test_accuracy


class Stopped(Exception):
    pass


def stop_after(monkeypatch, number):
    """Students beyond the first `number` are not trained; returns (seed, rate, started) of those that are."""
    trained = []
    original = StudentRuns.__call__

    def call(self, seed, learning_rate, start=None, looks=None):
        if len(trained) == number:
            raise Stopped
        trained.append((seed, learning_rate, start is not None))
        return original(self, seed, learning_rate, start, looks)

    monkeypatch.setattr(StudentRuns, "__call__", call)
    return trained


def test_a_comparison_goes_on_with_the_next_student(tmp_path, monkeypatch):
    """Stopped anywhere, it ends with the same results, and no student that was kept is trained again: only those from
    which the next one starts."""
    rows = ["train_tuned", "train_dev_tuned", "taught"]
    teachers = tiny.teacher(), tiny.teacher(seed=1)
    with monkeypatch.context() as patch:
        whole = stop_after(patch, None)
        expected = compare(*teachers).run(rows)
    assert len(whole) == (2 + 2 + 1 + 2 + 2) + (4 + 2 + 2 + 2 + 2) + (2 + 4)
    for number in (5, 12, 21):
        folder = tmp_path / f"at{number}"
        with monkeypatch.context() as patch:
            done = stop_after(patch, number)
            with pytest.raises(Stopped):
                compare(*teachers, states_dir=folder).run(rows)
        with monkeypatch.context() as patch:
            left, heard = stop_after(patch, None), []
            again = compare(*teachers, states_dir=folder, progress=lambda *steps: heard.append(steps))  # noqa: B023
            assert again.run(rows) == expected
        steps, kept = heard[-1]
        assert steps == again.steps_of(rows) and 0 < kept < 40 * number
        assert len(done) == number and len(left) - (len(whole) - number) in (0, 1)


@pytest.mark.parametrize(("how", "row", "number"), [
    ("told", "cross_entropy", 3), ("killed", "cross_entropy", 17), ("told", "meta_weight_net", 5)])
def test_a_student_that_is_under_way_goes_on_at_its_look(tmp_path, monkeypatch, how, row, number):
    """Of those that choose and those that are reported; of a loss with a memory; behind a SIGTERM, or any stop where a
    look was kept. The results are those of a table that was left alone."""
    expected = compare().run([row])
    looks, restored, look, restore = [], [], UnderWay.look, UnderWay.restore

    def stops(self, values, record):
        looks.append(record["step"])
        if len(looks) == number and how == "told":
            os.kill(os.getpid(), signal.SIGTERM)
        look(self, values, record)
        if len(looks) == number:
            raise Stopped

    def tells(self, values):
        found = restore(self, values)
        restored.append(found[1] and found[1]["step"])
        return found

    monkeypatch.setattr(under_way, "SECONDS", 30 if how == "told" else -1)
    with monkeypatch.context() as patch:
        patch.setattr(UnderWay, "look", stops)
        with pytest.raises(TerminatedError if how == "told" else Stopped):
            compare(states_dir=tmp_path).run([row])
    with pytest.raises(ValueError, match="states of another training"):
        compare(states_dir=tmp_path, num_steps=30).run([row])
    (tmp_path / row / "under_way" / "state-99_temp").mkdir()  # as TensorFlow leaves it where it is killed
    monkeypatch.setattr(UnderWay, "restore", tells)
    assert compare(states_dir=tmp_path).run([row]) == expected
    assert restored[0] == looks[-1] and not any(restored[1:]) and len(restored) > 1
    assert not list((tmp_path / row / "under_way").glob("state-*"))


def test_told_to_end_a_student_is_kept_first(tmp_path, monkeypatch):
    """SIGTERM before its last look: it is kept, and the next process begins with the one after it."""
    original = StudentRuns.__call__

    def told(self, *arguments):
        run = original(self, *arguments)
        os.kill(os.getpid(), signal.SIGTERM)
        return run

    monkeypatch.setattr(StudentRuns, "__call__", told)
    with pytest.raises(TerminatedError, match="everything so far is kept"):
        compare(states_dir=tmp_path).run(["cross_entropy"])
    monkeypatch.undo()
    left = stop_after(monkeypatch, None)
    compare(states_dir=tmp_path).run(["cross_entropy"])
    assert len(left) == 2 + 2 - 1


def test_kept_students_that_are_damaged_are_trained_again(tmp_path, monkeypatch):
    folder = tmp_path / "students"
    expected = compare(states_dir=folder).run(["cross_entropy"])
    data = next((folder / "cross_entropy" / "reported").glob("state-1.data*"))
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 4
    data.write_bytes(content)
    trained = stop_after(monkeypatch, 1)
    with pytest.warns(UserWarning, match=r"state-1.json.*what it holds is made again"):
        assert compare(states_dir=folder).run(["cross_entropy"]) == expected
    assert trained == [(REPORT_SEED + 1, expected[0].learning_rate, False)]
    assert compare(states_dir=folder).run(["cross_entropy"]) == expected  # nothing is trained: one more would stop it
    for options in ({"num_steps": 30}, {"seeds": 3}, {"splits": SPLITS._replace(dev=SPLITS.dev.take(np.arange(20)))}):
        with pytest.raises(ValueError, match="states of another training"):
            compare(states_dir=folder, **options).run(["cross_entropy"])


def test_verdicts_say_what_the_rows_say():
    rows = {"cross_entropy": 0.6, "focal": 0.7, "train_tuned": 0.9, "oracle_forward": 0.98, "oracle_clean": 0.99,
            "taught": 0.8, "taught_tuned": 0.95}
    results = [RowResult(row, ROWS[row].label, 0.1, {}, None, [value], None, 2 * ROWS[row].taught, [])
               for row, value in rows.items()]
    results[-2] = results[-2]._replace(test_accuracy=[0.9, 0.7])
    results[-1] = results[-1]._replace(test_accuracy=[0.95, 0.95])
    said = verdicts(results)
    of = "taught loss: 20.00 % test error,"
    assert f"{of} 0.50 times that of cross entropy (cross entropy, 40.00 %)." in said
    assert f"{of} 0.67 times that of the best fixed loss on train (focal loss, 30.00 %)." in said
    assert any("5.00 % test error, 0.50 times that of the best rival that sees dev" in s for s in said)
    assert any("2.50 times that of the oracle of the true noise" in s for s in said)
    assert any("5.00 times that of the oracle of the true labels" in s for s in said)
    assert "taught loss: the worst of 2 teachers is number 1, 30.00 %." in said
    assert verdicts(results[:2]) == []


def test_students_that_diverge_are_counted():
    result = compare(learning_rates=(3e38,)).run_row("cross_entropy")
    assert result.diverged == len(result.test_accuracy) > 0
    said = f"Students that diverged: cross entropy, {result.diverged} of {result.diverged}."
    assert said in verdicts([result]) and said not in verdicts([result._replace(diverged=0)])


def test_a_teacher_of_another_split_is_refused():
    teacher = tiny.teacher()
    teacher.note_training({"data": {"source": "arrays", "split_seed": 4}})
    with pytest.raises(ValueError, match="another split"):
        compare(teacher)
    teacher.note_training({"teacher_steps": 3})
    with pytest.warns(UserWarning, match="does not say on which data it was trained"):
        compare(teacher)


def test_unequal_teachers_are_refused():
    with pytest.raises(ValueError, match="one class"):
        compare(tiny.teacher(), tiny.teacher("paper"))
    with pytest.raises(ValueError, match="the same options"):
        compare(*(tf_l2t.teachers.AttentionTeacher(3, 6, ignored=ignored) for ignored in ([], [2])))
    compare(*(tf_l2t.teachers.AttentionTeacher(3, 6, seed=seed) for seed in (0, 1)))


def test_mean_std():
    assert mean_std([1.0, 3.0]) == pytest.approx((2.0, 2 ** 0.5))
    assert mean_std([5.0]) == (5.0, 0.0)


def test_bad_comparisons():
    with pytest.raises(ValueError, match="no row is called"):
        compare().run(["hinge"])
    with pytest.raises(ValueError, match="exported teacher"):
        compare().run(["taught"])
    for rows in ([], ["focal", "focal"]):
        with pytest.raises(ValueError, match="none twice"):
            compare().run(rows)
    rare = SPLITS._replace(train=SPLITS.train.take(np.flatnonzero(SPLITS.train.y != 1)))
    with pytest.raises(ValueError, match="'logit_adjustment' does not go with"):
        compare(splits=rare).check_rows(["cross_entropy", "logit_adjustment"])
    with pytest.raises(ValueError, match="a value each"):
        compare(learning_rates=())
    for options in ({"num_steps": 0}, {"tune_steps": 0}, {"decay": "step"}, {"num_folds": 1}, {"batch_size": 99},
                    {"refresh_every": 0}):
        with pytest.raises(ValueError, match="received"):
            compare(**options)
