"""The report's page, and the pictures of any teacher."""

import base64
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_l2t
from configs import base
from tf_l2t import data, plotting
from tf_l2t.report import Section, html_table, write_html
from tf_l2t.students import FunctionalStudent
from tf_l2t.teachers import AttentionTeacher
from trainers import classes, compare_report


def test_a_page_needs_no_other_file(tmp_path):
    picture = plotting.plot_curves({"a < b": [(0, 1.0), (1, 2.0)], "none": []}, tmp_path / "p.png", "x", "y")
    content = picture.read_bytes()
    page = write_html(tmp_path / "r.html", "A & B", [Section("one", "| a | b |\n|---|---|\n| <1> | 2 |", ["x < y"],
                                                             {"caption": picture})], "field: <value>").read_text()
    picture.unlink()
    assert "A &amp; B" in page and "<td>&lt;1&gt;</td><td>2</td>" in page and "x &lt; y" in page
    assert "field: &lt;value&gt;" in page
    inside, = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert base64.b64decode(inside) == content and not re.search(r'(src|href)="(?!data:)', page)
    assert list(tmp_path.iterdir()) == [tmp_path / "r.html"]


def test_html_table():
    assert html_table("| a | b |\n|---|---|\n| 1 | – |") == (
        "<table><tr><th>a</th><th>b</th></tr>\n<tr><td>1</td><td>–</td></tr>\n</table>")


def test_a_diagonal_is_drawn_as_a_matrix(tmp_path):
    diagonal = np.array([0.5, -0.2, 0.1])
    one, other = (plotting.plot_coefficients({"Φ": phi}, tmp_path / f"{i}.png").read_bytes()
                  for i, phi in enumerate((diagonal, np.diag(diagonal))))
    np.testing.assert_array_equal(tf.io.decode_png(one), tf.io.decode_png(other))


def _figure(pairs, epochs, tmp_path):
    """The pictures of a teacher on small digits with names, and the coefficients that were drawn."""
    config = base.get_config()
    config.data.dev_size, config.training.num_steps, config.training.batch_size = 60, 40, 35
    config.features.refresh_every = 1
    config.compare.pairs, config.compare.epochs = pairs, epochs
    digits = data.embedded_digits()
    splits = data.from_arrays(*(digits.take(np.arange(first, 5000, 25)) for first in (0, 1, 2)))
    splits = splits._replace(class_names=tuple("abcdefghij"))
    student = FunctionalStudent(lambda: keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten(),
                                                          keras.layers.Dense(10)]))
    teacher = AttentionTeacher(10, 13, num_keys=4, loss="stable")
    teacher.values.assign(np.random.default_rng(0).normal(0, 0.1, teacher.values.shape))
    return config, splits, student, teacher, tmp_path / "figures"


def test_figure_4_is_of_the_named_classes_and_epochs(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(plotting, "plot_pairs", lambda values, rows, columns, path: drawn.update(
        values=values, rows=rows, columns=columns))
    config, splits, student, teacher, folder = _figure((("c", "d"), (0, "j")), (1, 4, 7), tmp_path)
    compare_report.draw_coefficients(config, splits, student, teacher, (0.05,), folder)
    assert drawn["rows"] == ["1", "4", "7"]
    assert drawn["columns"] == ["Φ(c, d)", "Φ(d, c)", "Φ(a, j)", "Φ(j, a)"]
    # 200 digits in batches of 35: the epochs end in the steps 5, 22 and 39; Φ of a student trained by Keras `fit`.
    for row, step in enumerate((5, 22, 39)):
        network = student.new_model(compare_report.REPORT_SEED)
        model = tf_l2t.TaughtStudent(network, teacher, splits.dev, 40, refresh_every=1)
        model.compile(keras.optimizers.SGD(keras.optimizers.schedules.PolynomialDecay(0.05, 40, 0.0), momentum=0.9))
        batches = data.batch_dataset(data.array_batches(*splits.train, 35), compare_report.REPORT_SEED, step + 1)
        model.fit(batches, verbose=0)
        phi = np.asarray(model.coefficients)
        np.testing.assert_allclose(drawn["values"][row], [phi[2, 3], phi[3, 2], phi[0, 9], phi[9, 0]], rtol=1e-3)


def test_figure_4_is_written(tmp_path):
    pictures = [compare_report.draw_coefficients(*_figure(((0, 1),), epochs, tmp_path)[:4], (), tmp_path / str(i))
                for i, epochs in enumerate(((), (2, 3)))]
    for made in pictures:
        assert [path.name for path in made.values()] == ["coefficients.png", "pairs.png"]
        assert all(path.stat().st_size > 3000 for path in made.values())


@pytest.mark.parametrize(("pairs", "epochs", "message"), [
    ((("a", "k"),), (), r"names \['k'\]"), (((0, 10),), (), r"names \[10\]"), ((), (3, 2), "must rise"),
    ((), (1, 8), "7 epochs; received"), ((), (0,), "must rise")])
def test_classes_and_epochs_that_are_not_there(pairs, epochs, message, tmp_path):
    config, splits, *_ = _figure(pairs, epochs, tmp_path)
    with pytest.raises(ValueError, match=message):
        classes.class_pairs(config, splits)
        compare_report.epoch_steps(config, splits)
