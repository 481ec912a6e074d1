"""Networks of other kinds than Functional ones in float32: Sequential ones, and those that compute in bfloat16."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.distillation.small import X, Y, compiled, fit, log_softmax, trainer_of, values
from tf_l2t.distillation import DistillationTrainer


def test_penalties_beside_logits_in_bfloat16():
    inputs = keras.Input((8, 8, 2))
    head = keras.layers.Dense(3, dtype="mixed_bfloat16", kernel_regularizer=keras.regularizers.L2(0.5), name="logits")
    model = keras.Model(inputs, head(keras.layers.Flatten()(inputs)))
    kernel = values(model)[0]
    loss = fit(compiled(DistillationTrainer(model, None, "none"), rate=0.0))["loss"][0]
    log_q = log_softmax(X.reshape(12, -1) @ kernel)
    # Logits are rounded to 8 bits.
    np.testing.assert_allclose(loss, -log_q[np.arange(12), Y].mean() + 0.5 * (kernel ** 2).sum(), rtol=0.02)


@pytest.mark.parametrize("name", ["kd", "pkt", "crd", "crd_prokt", "vid", "ab"])
def test_losses_of_networks_that_compute_in_bfloat16(name):
    """They are of float32: in 16 bits a divergence of nearly equal distributions has another sign."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        narrow = compiled(trainer_of(name), rate=0.0)
    finally:
        keras.config.set_dtype_policy(before)
    assert {str(output.dtype) for output in narrow.student.outputs} == {"bfloat16"}
    outputs = [make(X, training=True) for make in (narrow._teacher_outputs, narrow._student_outputs)]
    assert {value.dtype for found in outputs for value in found.values()} == {tf.float32}
    if name == "kd":
        p, q = (log_softmax(np.asarray(found["logits"], np.float64) / 4) for found in (
            narrow._teacher_outputs(X, training=False), outputs[1]))
        logits = np.asarray(outputs[1]["logits"], np.float64)
        expected = 0.9 * 16 * (np.exp(p) * (p - q)).sum(1).mean() - 0.1 * log_softmax(logits)[np.arange(12), Y].mean()
        np.testing.assert_allclose(fit(narrow)["loss"][0], expected, rtol=1e-5)
    else:
        assert np.isfinite(fit(narrow)["loss"][0])
        assert {variable.dtype for variable in narrow.weights} == {"float32"}


@pytest.mark.parametrize("name", ["kd", "at", "rkd", "fitnet"])
def test_sequential_networks(name):
    """As Functional ones of the same layers and weights."""
    def networks(kind):
        for width, seed in ((2, 1), (4, 2)):
            keras.utils.set_random_seed(seed)
            layers = [keras.layers.Conv2D(width, 3, activation="relu", name="stage1"),
                      keras.layers.Conv2D(2 * width, 3, activation="relu", name="stage2"),
                      keras.layers.GlobalAveragePooling2D(name="pooled"), keras.layers.Dense(3, name="logits")]
            if kind == "sequential":
                yield keras.Sequential([keras.Input((8, 8, 2)), *layers])
            else:
                inputs = x = keras.Input((8, 8, 2))
                for layer in layers:
                    x = layer(x)
                yield keras.Model(inputs, x)

    losses = []
    for kind in ("sequential", "functional"):
        trainer = DistillationTrainer(*networks(kind), name)
        for layer in trainer._connectors:
            for weight in layer.trainable_variables:
                weight.assign(tf.ones(weight.shape) / 10)
        losses.append(fit(compiled(trainer), epochs=2)["loss"])
    np.testing.assert_allclose(*losses, rtol=1e-6)
