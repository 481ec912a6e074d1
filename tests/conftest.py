import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import pytest


@pytest.fixture(autouse=True)
def _seeded():
    """Keras draws the order of `fit`'s batches, and the seeds that a layer was not given, from global state."""
    import keras

    keras.utils.set_random_seed(0)
