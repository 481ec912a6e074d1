"""The check of a student's layers: stock layers pass it, layers that are wrong in any of the known ways do not."""

import contextlib
import sys
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import tf_l2t
from tests import tiny
from tf_l2t.students import (
    AttentionLSTM,
    LayerReport,
    PreflightReport,
    Transformer,
    choose_hvp,
    mlp,
    preflight,
)
from tf_l2t.students.examine import Findings, has_fused_kernel

BOTH = ("forward_over_reverse", "reverse_over_reverse")
STOCK_MOMENTS = tf.nn.moments  # as `from tensorflow.nn import moments` would keep it


def sequential(*parts, shape=(6, 6, 2)):
    """The layers between two dense ones, so that weights lie before and behind them."""
    return lambda: keras.Sequential([keras.Input(shape), layers.Dense(4), *(part() for part in parts), layers.Flatten(),
                                     layers.Dense(3)])


def rows(report):
    return {row.name: row for row in report.rows}


STOCK = {
    "convolutions": sequential(
        lambda: layers.Conv2D(4, 3, strides=2, padding="same", activation="gelu"),
        lambda: layers.DepthwiseConv2D(2), lambda: layers.Conv2DTranspose(3, 2, strides=2),
        lambda: layers.SeparableConv2D(3, 2, activation="relu")),
    "pooling": sequential(layers.MaxPooling2D, lambda: layers.AveragePooling2D(2, 1), layers.GlobalAveragePooling2D),
    "normalisation": sequential(layers.BatchNormalization, layers.LayerNormalization,
                                lambda: layers.GroupNormalization(2), layers.RMSNormalization, shape=(4, 2)),
    "activations": sequential(lambda: layers.Activation("gelu"), layers.Softmax, layers.ReLU,
                              lambda: layers.Activation("hard_sigmoid"), layers.LeakyReLU,
                              lambda: layers.Activation("silu"), lambda: layers.Dropout(0.3), shape=(5,)),
    "unrolled": sequential(lambda: layers.LSTM(3, unroll=True), shape=(2, 2)),
}


@pytest.mark.parametrize("name", STOCK)
def test_stock_layers_pass_in_both_modes(name):
    report = tf_l2t.preflight(STOCK[name])
    assert report.passed and report.modes == BOTH, report
    assert all(row[2:5] == ("ok", "ok", True) for row in report.rows), report
    assert report.rows[-1].name == "whole model"


def transformer():
    tokens = keras.Input((3,))  # float32, as Keras has it by default
    x = layers.Embedding(7, 4)(tokens) * 2.0 + np.ones((3, 4))
    attended = layers.MultiHeadAttention(2, 3, dropout=0.1, name="attention")(x, x, use_causal_mask=True)
    x = layers.Concatenate()([layers.Add()([x, attended]), x])
    return keras.Model(tokens, layers.Dense(3)(layers.Flatten()(x)))


def test_recorded_calls_of_several_inputs_indices_and_keras_operations():
    report = tf_l2t.preflight(transformer)
    assert report.modes == BOTH, report
    found = rows(report)
    assert found["attention"][2:4] == ("ok", "ok") and "Add" in {row.kind for row in report.rows}


def recurrent():
    return keras.Sequential([keras.Input((4, 2)), layers.LSTM(3, name="lstm", return_sequences=True),
                             layers.Bidirectional(layers.GRU(2, use_cudnn=False), name="both"),
                             layers.BatchNormalization(name="norm"), layers.Dense(3, name="logits")])


def test_a_while_loop_has_one_mode_and_a_fused_kernel_is_noted(capsys):
    report = tf_l2t.preflight(recurrent)
    found = rows(report)
    assert report.modes == ("reverse_over_reverse",)
    for name in ("lstm", "both"):
        assert found[name][2:5] == ("missing", "ok", True)
        assert "unroll=True" in " ".join(found[name].notes)
    assert "use_cudnn=False" in " ".join(found["lstm"].notes)
    assert "use_cudnn=False" not in " ".join(found["both"].notes)
    assert found["norm"][2:4] == ("ok", "ok") and found["whole model"][2:4] == ("not checked", "ok")
    assert "5/5" in capsys.readouterr().out
    tf_l2t.preflight(mlp(hidden=20), verbose=0)
    print(report)
    lines = capsys.readouterr().out.splitlines()
    starts = {line.index(word) for line, word in zip(lines, ("class", "LSTM", "Bidirectional", "Batch"), strict=False)}
    assert len(starts) == 1 and max(map(len, lines)) <= 160


def test_the_fused_kernel_is_an_error_where_there_is_a_gpu(monkeypatch):
    list_devices = tf.config.list_physical_devices
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: ["GPU:0"] if kind == "GPU" else
                        list_devices(kind))
    build = sequential(lambda: layers.LSTM(2, activation="tanh", name="fused"), shape=(7, 2))
    with pytest.raises(ValueError, match=r"(?s)fused \(LSTM\).*use_cudnn=False"):
        tf_l2t.preflight(build).require()


@pytest.mark.parametrize(("layer", "fused"), [
    (layers.LSTM(2), True), (layers.GRU(2), True), (layers.LSTM(2, unroll=True), False), (layers.Dense(2), False),
    (layers.GRU(2, activation="relu"), False), (layers.LSTM(2, use_cudnn=False), False)])
def test_which_layers_have_a_fused_kernel(layer, fused):
    assert has_fused_kernel(layer) is fused


def test_nothing_is_asked_of_a_layer_on_data():
    heard = []
    report = tf_l2t.preflight(mlp(hidden=20), progress=lambda *count: heard.append(count))
    assert report.modes == BOTH and rows(report)["hidden"][2:4] == ("ok", "ok")
    assert heard == [(number, len(report.rows)) for number in range(1, len(report.rows))]
    assert rows(report)["flatten"][2:5] == ("not needed", "not needed", True)


class Bad(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(name="bad", **kwargs)


class CapturedMoments(Bad):
    def call(self, x):
        mean, variance = STOCK_MOMENTS(x, [-1], keepdims=True)
        return (x - mean) * tf.math.rsqrt(variance + 1e-3)


class StoppedMean(Bad):
    def call(self, x):
        mean = tf.reduce_mean(x, 0, keepdims=True)
        variance = tf.reduce_mean(tf.square(x - tf.stop_gradient(mean)), 0, keepdims=True)
        return (x - mean) * tf.math.rsqrt(variance + 1e-3)


class StraightThrough(Bad):
    def call(self, x):
        return x + tf.stop_gradient(tf.sign(x) - x)


class WrongSecond(Bad):
    """tanh, whose gradient takes y for a constant."""

    def call(self, x):
        @tf.custom_gradient
        def tanh(x):
            y = tf.stop_gradient(tf.tanh(x))
            return y, lambda upstream: upstream * (1 - y * y)

        return tanh(x)


class NoSecond(Bad):
    def call(self, x):
        return tf.raw_ops.FractionalAvgPool(value=x, pooling_ratio=[1.0, 1.5, 1.5, 1.0], deterministic=True, seed=1,
                                            seed2=2, overlapping=False)[0]


class NoFirst(Bad):
    def call(self, x):
        return tf.cast(tf.image.adjust_hue(tf.cast(x[..., :3], tf.float32), 0.1), x.dtype)


class NoisyTensorFlow(Bad):
    def call(self, x):
        return x + tf.random.normal(tf.shape(x), dtype=x.dtype)


class NoisyNumpy(Bad):
    def call(self, x):
        return x * np.random.default_rng().uniform()


class NoisyGlobalSeed(Bad):
    def call(self, x):
        return x + keras.random.normal(tf.shape(x), dtype=x.dtype)


class NoisyWell(Bad):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seeds = keras.random.SeedGenerator(3)

    def call(self, x):
        return x + keras.random.normal(tf.shape(x), dtype=x.dtype, seed=self.seeds)


@pytest.mark.parametrize("kind", [CapturedMoments, StoppedMean, StraightThrough, WrongSecond])
def test_wrong_second_derivatives_are_found_in_both_modes(kind):
    report = tf_l2t.preflight(sequential(kind, shape=(5,)))
    assert all(getattr(rows(report)["bad"], mode).startswith("wrong (") for mode in BOTH), report
    assert not report.passed and report.modes == ()
    with pytest.raises(ValueError, match=rf"bad \({kind.__name__}\): wrong .*stop_gradient") as raised:
        report.require()
    assert "dense" not in str(raised.value) and "whole model" not in str(raised.value)
    surrogate = "follows a surrogate" in str(raised.value)
    assert surrogate is (kind is StraightThrough)


def test_the_repair_is_what_makes_stock_normalisation_right(monkeypatch):
    """With what the engine repairs put back, the check finds GroupNorm's small error as well."""
    monkeypatch.setattr("tf_l2t.hypergradient.step.exact_moments", contextlib.nullcontext)
    report = tf_l2t.preflight(sequential(lambda: layers.GroupNormalization(2, epsilon=0.002, name="norm")))
    assert all(getattr(rows(report)["norm"], mode).startswith("wrong (") for mode in BOTH), report


def test_a_stopped_branch_is_a_surrogate():
    """Its first derivative is zero and so is its second; but the gradients of later layers hold its value."""
    def build():
        inputs = keras.Input((5,))
        x = layers.Dense(4)(inputs)
        return keras.Model(inputs, layers.Dense(3)(layers.Lambda(tf.stop_gradient, name="stop")(x)))

    report = tf_l2t.preflight(build)
    assert all(getattr(rows(report)["stop"], mode).startswith("surrogate (") for mode in BOTH), report
    with pytest.raises(ValueError, match=r"stop \(Lambda\): surrogate .* follows a surrogate"):
        report.require()


@pytest.mark.parametrize(("kind", "shape", "message"), [(NoSecond, (6, 6, 2), "no second derivative"),
                                                        (NoFirst, (6, 6, 2), "no first derivative")])
def test_missing_derivatives(kind, shape, message):
    report = tf_l2t.preflight(sequential(kind, shape=shape))
    assert rows(report)["bad"][2:4] == ("missing", "missing")
    with pytest.raises(ValueError, match=rf"bad \({kind.__name__}\): missing .*{message}"):
        report.require()


@pytest.mark.parametrize("kind", [NoisyTensorFlow, NoisyNumpy, NoisyGlobalSeed])
def test_randomness_that_cannot_be_replayed(kind):
    report = tf_l2t.preflight(sequential(kind, shape=(5,)))
    assert rows(report)["bad"].replayable is False and not report.passed
    with pytest.raises(ValueError, match=rf"bad \({kind.__name__}\): its randomness is lost.*SeedGenerator"):
        report.require()


def test_randomness_from_a_seed_that_the_layer_holds():
    assert tf_l2t.preflight(sequential(NoisyWell, shape=(5,))).modes == BOTH


def test_layers_without_a_config_and_nested_models():
    """A built float32 model: stock layers are copied in float64, the others are checked as they are."""
    class Scale(layers.Layer):
        def __init__(self, like):
            super().__init__(name="scale")
            self.like = like

        def build(self, shape):
            self.scale = self.add_weight(shape=shape[-1:], initializer="ones")

        def call(self, x):
            return tf.tanh(x * self.scale)

    inputs = keras.Input((5,))
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="dense"), Scale(object())], name="inner")
    shared = layers.Dense(4, activation="tanh", name="shared")
    x = layers.Lambda(lambda x: x * tf.sigmoid(x), name="swish")(inner(shared(inner(layers.Dense(4)(inputs)))))
    model = keras.Model(inputs, layers.Dense(3)(shared(x)))
    before, nodes = model.get_weights(), [len(layer._inbound_nodes) for layer in model._flatten_layers()]
    report = tf_l2t.preflight(model)
    assert report.modes == BOTH, report
    assert [row.name for row in report.rows].count("shared") == 1
    assert rows(report)["inner/scale"].kind == "Scale" and rows(report)["swish"].kind == "Lambda"
    assert nodes == [len(layer._inbound_nodes) for layer in model._flatten_layers()]
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_cannot_be_checked():
    with pytest.raises(ValueError, match="built Functional or Sequential"):
        tf_l2t.preflight(keras.Sequential([layers.Dense(3)]))
    with pytest.raises(ValueError, match="built Functional or Sequential"):
        tf_l2t.preflight(lambda: "mlp")


def report_of(forward="ok", reverse="ok", replayable=True):
    return PreflightReport((LayerReport("lstm", "LSTM", forward, reverse, replayable, ("unroll it",)),
                            LayerReport("whole model", "Functional", "ok", "ok", True)))


@pytest.mark.parametrize(("report", "hvp", "chosen", "warned"), [
    (report_of(), "forward_over_reverse", "forward_over_reverse", False),
    (report_of(), "auto", "auto", False),
    (report_of("missing"), "forward_over_reverse", "reverse_over_reverse", True),
    (report_of("missing"), "saved_residuals", "saved_residuals", False),
    (report_of("wrong (1e-1)"), "saved_residuals", "reverse_over_reverse", True),
    (report_of("missing"), "auto", "reverse_over_reverse", False),
    (report_of(reverse="wrong (1e-1)"), "saved_residuals", "forward_over_reverse", True),
])
def test_the_mode_that_is_right_is_chosen(report, hvp, chosen, warned):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert choose_hvp(report, hvp) == chosen
    assert [("lstm (LSTM)" in str(w.message) and "unroll it" in str(w.message)) for w in caught] == [True] * warned


@pytest.mark.parametrize("report", [report_of("missing", "wrong (1e-1)"), report_of(replayable=False)])
def test_no_mode_is_right(report):
    with pytest.raises(ValueError, match=r"lstm.*unroll it"):
        choose_hvp(report, "auto")


def trainer(student_fn, hvp="forward_over_reverse"):
    made = tf_l2t.TeacherTrainer(student_fn, tiny.teacher(), num_steps=4, batch_size=12,
                                 student_optimizer=keras.optimizers.SGD(0.05))
    made.compile(keras.optimizers.Adam(0.01), hvp=hvp)
    return made


def recurrent_student():
    return keras.Sequential([keras.Input(tiny.IMAGE), layers.Reshape((6, 12)),
                             layers.SimpleRNN(3, name="loop"), layers.Dense(3)])


def test_fit_falls_back_to_the_mode_that_is_right_and_says_so():
    made = trainer(recurrent_student)
    with pytest.warns(UserWarning, match=r"reverse_over_reverse.*loop"):
        history = made.fit(tiny.arrays(24), tiny.arrays(12, 1), 1, validation_freq=0, verbose=0)
    assert np.isfinite(history.history["gradient_norm"][0])
    assert made.preflight() is made.preflight()


def test_fit_refuses_a_student_that_no_teacher_can_be_trained_through():
    made = trainer(sequential(NoisyTensorFlow, shape=tiny.IMAGE))
    with pytest.raises(ValueError, match=r"bad.*SeedGenerator"):
        made.fit(tiny.arrays(24), tiny.arrays(12, 1), 1, validation_freq=0, verbose=0)
    made.fit(tiny.arrays(24), tiny.arrays(12, 1), 1, validation_freq=0, verbose=0, preflight=False)


@pytest.mark.parametrize(("parts", "distinct"), [
    # On data; from several channels to several, twice; to one.
    (lambda: [layers.Conv2D(f, 3, padding="same") for f in (2, 5, 7, 1)], 3),
    (lambda: [layers.Conv2D(4, 3), layers.Conv2D(6, 3), layers.Conv2D(6, 3, strides=2)], 3),  # of other sizes
    (lambda: [layers.Conv2D(4, 3, padding="same", groups=g) for g in (1, 2, 4)], 3),
    (lambda: [layers.Flatten(), layers.Dense(4), layers.Dense(6), layers.Dense(6, activation="tanh"),
              layers.Dense(3)], 4),
    (lambda: [layers.Conv2D(2, 1), layers.GroupNormalization(1), layers.Conv2D(4, 1), layers.GroupNormalization(1)], 4),
])
def test_layers_that_differ_in_width_alone_are_checked_once(parts, distinct, monkeypatch):
    checked = []
    module = sys.modules["tf_l2t.students.preflight"]
    monkeypatch.setattr(module, "_known", {})
    monkeypatch.setattr(module, "examine", lambda call, modes, **_: checked.append(call) or Findings(("ok",) * 2, True))

    def build():
        x = inputs = keras.Input((12, 12, 2))
        for layer in parts():
            x = layer(x)
        return keras.Model(inputs, x)

    report = preflight(build)
    assert report.passed and len(report.rows) == len(parts()) + 1
    assert len(checked) == distinct + 1  # and the whole


class Stopped(AttentionLSTM):
    """A part of its logits passes no gradient on."""

    def logits(self, hidden):
        logits = super().logits(hidden)
        return logits + tf.stop_gradient(tf.sin(9 * logits))


@pytest.mark.parametrize(("student_fn", "forward", "reverse"), [
    (lambda: AttentionLSTM(8, units=4, dropout=0.2, unroll=True), "ok", "ok"),
    (lambda: Transformer(8, 1, 4, 6, 2, dropout=0.2), "ok", "ok"),
    (lambda: Stopped(8, units=4, unroll=True), "wrong", "wrong"),
])
def test_translators_are_checked_as_a_whole(student_fn, forward, reverse):
    report = preflight(student_fn)
    (row,) = report.rows
    assert row.name == "whole model" and row.replayable
    assert row.forward_over_reverse.startswith(forward) and row.reverse_over_reverse.startswith(reverse)
    if forward == "wrong":
        with pytest.raises(ValueError, match=r"Stopped.*stop_gradient"):
            report.require()


def test_a_built_translator_is_checked_and_left_as_it_is():
    model = AttentionLSTM(8, units=4)
    before = model.get_weights()
    report = preflight(model)
    assert report.modes == ("reverse_over_reverse",) and "unroll=True" in str(report)
    assert report.rows[0].forward_over_reverse == "missing" and report.rows[0].replayable
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.warns(UserWarning, match="while loop"):
        assert choose_hvp(report, "forward_over_reverse") == "reverse_over_reverse"
