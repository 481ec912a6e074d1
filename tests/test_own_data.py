"""The recipe of docs/own_data.md, as it stands there, but for a quarter of the teacher's steps."""

import pathlib
import re

import keras

DOCUMENT = pathlib.Path(__file__).parent.parent / "docs" / "own_data.md"


def test_the_recipe_helps(tmp_path):
    code = "\n".join(re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), flags=re.DOTALL))
    code = code.replace("teacher_steps=60", "teacher_steps=15, verbose=0").replace("runs/", f"{tmp_path}/")
    keras.utils.set_random_seed(0)
    names = {}
    exec(compile(code, str(DOCUMENT), "exec"), names)
    rival = names["student_fn"]()
    rival.compile(names["sgd"](), keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    rival.fit(names["x_train"], names["y_train"], batch_size=50, epochs=5, verbose=0)
    assert names["student"].step == 350
    assert names["model"].loss.interval == 349 // 20  # Φ was set until the end
    taught, stock, plain = (1 - model.evaluate(names["x_test"], names["y_test"], verbose=0)[1]
                            for model in (names["student"], names["model"], rival))
    assert max(taught, stock) < 0.6 * plain, (taught, stock, plain)
