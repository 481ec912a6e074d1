"""Memory that is freed at once."""

import gc
import pathlib
import subprocess
import sys
import weakref

import keras
import numpy as np
import pytest
from matplotlib.figure import Figure

from tf_l2t import plotting
from tf_l2t.garbage import gone_afterwards, graphs_gone_afterwards


class Circle:
    def __init__(self):
        self.itself = self


@pytest.fixture(params=[True, False], ids=["enabled", "disabled"], autouse=True)
def _collector(request):
    """Python's own search, which is found as it was left."""
    gc.collect()
    if not request.param:
        gc.disable()
    try:
        yield
        assert gc.isenabled() == request.param
    finally:
        gc.enable()


def test_a_circle_that_was_made_inside_is_gone_and_older_ones_wait():
    older = Circle()
    gc.collect()  # the two of it are no longer young
    old, kept = weakref.ref(older), None
    del older
    with gone_afterwards():
        found = [weakref.ref(Circle()) for _ in range(2000)]  # more than after which Python looks for them
        kept = Circle()
        assert all(ref() for ref in found)
    assert not any(ref() for ref in found) and kept is not None and old() is not None


def test_as_a_decorator_and_after_an_error():
    refs = []

    @gone_afterwards()
    def fails():
        made = Circle()
        refs.append(weakref.ref(made))
        if len(refs) == 2:
            raise ValueError("no")
        return 1

    assert fails() == 1 and refs[0]() is None
    with pytest.raises(ValueError, match="no"):
        fails()
    assert fails() == 1 and refs[2]() is None


def test_pictures_leave_no_figures_behind(monkeypatch):
    refs = []

    def figure(*args, **options):
        made = Figure(*args, **options)
        refs.append(weakref.ref(made))
        return made

    monkeypatch.setattr(plotting, "Figure", figure)
    plotting.coefficient_image(np.eye(3))
    plotting.coefficient_image(np.full((3, 3), np.nan))  # of a student that diverged
    plotting.curve_image({"": np.arange(1, 4.0)}, "step", "value")
    assert len(refs) == 3 and not any(ref() for ref in refs)


def graphs():
    gc.collect()
    return sum(type(found).__name__ == "FuncGraph" for found in gc.get_objects())


def fit():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("adam", "mse")
    model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)
    return model


def test_fitted_models_leave_no_graphs_behind():
    """By themselves they do, as is shown first: TensorFlow registers the gradient in the optimizer's step for good."""
    fit()  # what TensorFlow and Keras make once
    before = graphs()
    fit()
    assert graphs() > before
    before = graphs()
    with graphs_gone_afterwards():
        fit()
    with pytest.raises(ValueError, match="no"), graphs_gone_afterwards():
        fit()
        raise ValueError("no")
    assert graphs() == before


RESIDENT = """
import sys
import keras, numpy as np
from tf_l2t.garbage import graphs_gone_afterwards

def resident():
    (line,) = (line for line in open("/proc/self/status") if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024

for number in range(15):
    if number == 5:
        before = resident()
    with graphs_gone_afterwards():
        model = keras.Sequential([keras.Input((8,)), *(keras.layers.Dense(8) for _ in range(9))])
        model.compile("adam", "mse", jit_compile=False)
        model.fit(np.ones((8, 8)), np.ones((8, 8)), batch_size=4, verbose=0)
        del model
print(resident() - before)
"""


@pytest.mark.parametrize("_collector", [True], indirect=True)
@pytest.mark.skipif(not pathlib.Path("/proc/self/status").exists(), reason="Linux tells a process' memory there")
def test_the_memory_of_models_that_are_gone_is_used_again():
    """MB of ten models behind the first five: 17 where TensorFlow keeps what it has prepared to run their graphs."""
    done = subprocess.run([sys.executable, "-c", RESIDENT], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 5


def test_a_model_that_is_kept_is_trained_on():
    def swish():
        inputs = keras.Input((3,))
        model = keras.Model(inputs, keras.layers.Dense(2, activation="silu", kernel_initializer="ones")(inputs))
        model.compile(keras.optimizers.SGD(0.1), "mse")
        return model

    x, y = np.ones((4, 3)), np.zeros((4, 2))
    with graphs_gone_afterwards():
        model = swish()
        model.fit(x, y, verbose=0)
    model.fit(x, y, verbose=0)
    other = swish()
    other.fit(x, y, epochs=2, verbose=0)
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
