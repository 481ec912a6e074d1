"""Small float64 students and data with which gradients can be checked against differences."""

import keras
import numpy as np
import tensorflow as tf

from tf_l2t.data import ArrayPair
from tf_l2t.hypergradient import initial_state, sgd
from tf_l2t.losses import taught_form
from tf_l2t.objectives import log_likelihood
from tf_l2t.students import FunctionalStudent
from tf_l2t.teachers import AttentionTeacher
from tf_l2t.training import classification_problem

NUM_CLASSES = 3
IMAGE = (6, 6, 2)


def arrays(count: int = 24, seed: int = 0, separation: float = 0.5) -> ArrayPair:
    """Inputs whose class shows in their mean, and labels of every class."""
    rng = np.random.default_rng(seed)
    y = (np.arange(count) % NUM_CLASSES).astype(np.int32)
    return ArrayPair(rng.standard_normal((count, *IMAGE)) + separation * y.reshape(-1, 1, 1, 1), y)


def _network(*layers) -> keras.Model:
    inputs = keras.Input(IMAGE)
    x = inputs
    for layer in layers:
        x = layer(x)
    return keras.Model(inputs, keras.layers.Dense(NUM_CLASSES)(x))


def dense_batchnorm() -> keras.Model:
    layers = keras.layers
    return _network(layers.Flatten(), layers.Dense(5), layers.BatchNormalization(momentum=0.8),
                    layers.Activation("tanh"))


def synchronized_batchnorm() -> keras.Model:
    layers = keras.layers
    return _network(layers.Flatten(), layers.Dense(5), layers.BatchNormalization(momentum=0.8, synchronized=True),
                    layers.Activation("tanh"))


def conv_batchnorm() -> keras.Model:
    layers = keras.layers
    return _network(layers.Conv2D(3, 3), layers.BatchNormalization(momentum=0.8), layers.Activation("gelu"),
                    layers.AveragePooling2D(2), layers.Flatten())


def layernorm() -> keras.Model:
    """In a residual block: directly behind a dense layer the mean's second derivative happens to play no part, since
    neither loss nor measure changes when all its features are shifted alike."""
    layers = keras.layers
    inputs = keras.Input(IMAGE)
    x = layers.Dense(5)(layers.Flatten()(inputs))
    x = layers.Activation("tanh")(layers.Add()([x, layers.LayerNormalization()(x)]))
    return keras.Model(inputs, layers.Dense(NUM_CLASSES)(x))


def groupnorm() -> keras.Model:
    layers = keras.layers
    return _network(layers.Conv2D(4, 3), layers.GroupNormalization(2), layers.Activation("tanh"), layers.Flatten())


def dropout() -> keras.Model:
    layers = keras.layers
    return _network(layers.Flatten(), layers.Dense(8, activation="tanh"), layers.Dropout(0.4))


def plain() -> keras.Model:
    return _network(keras.layers.Flatten(), keras.layers.Dense(5, activation="tanh"))


def regularised() -> keras.Model:
    layers = keras.layers
    return _network(layers.Flatten(), layers.Dense(5, activation="softplus", kernel_regularizer="l2"))


STUDENTS = {build.__name__: build for build in
            (dense_batchnorm, conv_batchnorm, layernorm, groupnorm, dropout, regularised)}


def teacher(loss: str = "stable", seed: int = 0) -> AttentionTeacher:
    """A teacher whose keys already differ, so that every part of its gradient is nonzero."""
    made = AttentionTeacher(NUM_CLASSES, NUM_CLASSES + 3, num_keys=4, loss=loss, seed=seed)
    noise = tf.random.stateless_normal(made.values.shape, [seed, 1], stddev=0.05)
    made.values.assign_add(noise)
    return made


def problem(student_fn=plain, optimizer=None, num_steps: int = 13, loss: str = "stable", **options):
    """(problem, initial state) in float64; 13 steps make √T segments of unequal length."""
    student = FunctionalStudent(student_fn, dtype="float64")
    options = {"refresh_every": 3, "dev_sample_size": 9, "batch_size": 7} | options
    made = classification_problem(student, arrays(24, 0), arrays(15, 1), loss=taught_form(loss).per_example,
                                  objective=log_likelihood, optimizer=optimizer or sgd(0.2, momentum=0.9),
                                  num_steps=num_steps, **options)
    return made, initial_state(made, *student.init(5))
