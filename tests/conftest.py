import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import hypothesis
import pytest
import tensorflow as tf

from tests.graphs import made_cheaply
from tf_l2t.garbage import graphs_gone_afterwards
from tf_l2t.hypergradient import compiling, unroll

made_cheaply()

CHOOSING, SUITS_XLA = (compiling, unroll), compiling.suits_xla

# Two devices of one processor, for the strategies of `tf.distribute`; everything else is on the first.
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0],
                                           [tf.config.LogicalDeviceConfiguration()] * 2)

INPUT_MS = 180_000  # of one input; what takes longer hangs, and a small training on a busy machine takes half a minute

# The same examples every time in `make test`, many more and other ones in `make soak`; none is kept on the disk.
for name, examples in (("default", 40), ("soak", 2000)):
    hypothesis.settings.register_profile(
        name, max_examples=examples, deadline=INPUT_MS, database=None, derandomize=name == "default",
        suppress_health_check=list(hypothesis.HealthCheck))
hypothesis.settings.load_profile("default")


@pytest.fixture(autouse=True, scope="module")
def _graphs_gone():
    """Two processes with the graphs of all tests would need all of a machine's memory."""
    with graphs_gone_afterwards():
        yield


@pytest.fixture(autouse=True, scope="module")
def _without_xla():
    """XLA takes half a minute to compile what then runs for a second: where it has the choice, the engine leaves it.

    Tests that ask for `jit=True` or the fixture `xla` have it, and processes of their own.
    """
    with pytest.MonkeyPatch.context() as patch:
        for module in CHOOSING:
            patch.setattr(module, "suits_xla", lambda problem, step: False)
        yield


@pytest.fixture
def xla(monkeypatch):
    """The engine's own choice."""
    for module in CHOOSING:
        monkeypatch.setattr(module, "suits_xla", SUITS_XLA)


@pytest.fixture(autouse=True)
def _seeded():
    """Keras draws the order of `fit`'s batches, and the seeds that a layer was not given, from global state."""
    import keras

    keras.utils.set_random_seed(0)
