"""The report's page, and the pictures of any teacher."""

import base64
import re

import numpy as np
import tensorflow as tf

from tf_l2t import plotting
from tf_l2t.report import Section, html_table, write_html


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
