"""The tutorials of docs/tutorials/, as they stand there, and that they show what they say."""

import contextlib
import io
import pathlib
import re

import keras
import numpy as np
import pytest

DOCUMENTS = pathlib.Path(__file__).parent.parent / "docs" / "tutorials"


def run(name, tmp_path):
    """What the names of a tutorial's code are bound to after it has run."""
    code = "\n".join(re.findall(r"```python\n(.*?)```", (DOCUMENTS / f"{name}.md").read_text(), flags=re.DOTALL))
    names = {"__name__": f"tutorial_{name}"}
    keras.utils.set_random_seed(0)
    with contextlib.redirect_stdout(io.StringIO()):  # progress bars
        exec(compile(code.replace("runs/", f"{tmp_path}/"), name, "exec"), names)
    return names


def imbalanced(names):
    assert names["counts"].tolist() == sorted(names["counts"], reverse=True) and names["counts"][0] == 337
    assert names["counts"][-1] == 3
    assert names["errors"]["taught"] < 0.8 * names["errors"]["plain"]


def another_student(names):
    assert names["errors"]["taught"] < 0.6 * names["errors"]["plain"]


def translation(names):
    assert np.isfinite(names["history"].history["objective"]).all()
    assert names["taught"].step == 20 and len(set(names["found"])) > 1


def prokt(names):
    found = names["accuracies"]
    assert found["teacher"] > 0.88 and all(found[name] > 0.75 for name in ("none", "kd", "prokt"))


def new_parts(names):
    assert names["report"].passed
    history = names["history"].history
    assert max(history["val_objective"]) > names["history"].params["initial_val_objective"]
    log_prob, logits = np.log([0.2, 0.5, 0.3]), np.log([[0.2, 0.5, 0.3]])
    for label in range(3):  # both forms of the loss are one, where Φ is diagonal
        phi = np.diag([0.01, 0.05, -0.02])
        np.testing.assert_allclose(names["margin_of_target"](log_prob[label], phi[label, label]),
                                   names["margin_loss"](np.array([label]), logits, phi)[0], rtol=1e-12)


CHECKS = [imbalanced, another_student, translation, prokt, new_parts]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_tutorial(check, tmp_path):
    check(run(check.__name__, tmp_path))


def test_every_tutorial_is_tested():
    assert {path.stem for path in DOCUMENTS.glob("*.md")} == {check.__name__ for check in CHECKS}
