"""Data, networks and the callback for tests of taught losses on Keras models."""

import keras
import numpy as np

import tf_l2t
from tests import tiny
from tf_l2t.data import ArrayPair
from tf_l2t.students.functional import building

STEPS = 24


def float32(pair: ArrayPair) -> ArrayPair:
    return ArrayPair(pair.x.astype(np.float32), pair.y)


TRAIN, DEV, OTHER = float32(tiny.arrays(24, 0)), float32(tiny.arrays(15, 1)), float32(tiny.arrays(12, 2))
WEIGHTS = np.linspace(0.0, 2.0, 24).astype("float32")  # of TRAIN


def sgd():
    return keras.optimizers.SGD(0.05, momentum=0.9)


def network(build=tiny.plain, dtype="float32"):
    with building(3, dtype):
        return build()


def teaching(teacher, **options):
    return tf_l2t.Teaching(teacher, **({"dev_data": DEV, "num_steps": STEPS, "refresh_every": 4,
                                        "dev_sample_size": 9} | options))


@keras.saving.register_keras_serializable(package="tests")
class BlankExamples(keras.layers.Layer):
    """Masks the examples that are zero altogether."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, x):
        return x

    def compute_mask(self, inputs, previous=None):
        return keras.ops.any(inputs != 0, axis=-1)


def blank_examples():
    """A mask [batch], which goes with the logits to the loss."""
    layers = keras.layers
    return keras.Sequential([keras.Input(tiny.IMAGE), layers.Flatten(), BlankExamples(), layers.Dense(3)])
