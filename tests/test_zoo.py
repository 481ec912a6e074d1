"""The image students: sizes as published, layers as in the public code, derivatives that a teacher can go through."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import tiny
from tf_l2t.data import ArrayPair
from tf_l2t.hypergradient import check_hypergradient, initial_state, sgd
from tf_l2t.losses import taught_form
from tf_l2t.objectives import log_likelihood
from tf_l2t.students import (
    STUDENTS,
    FunctionalStudent,
    blocks,
    densenet_bc,
    mobilenet_v2,
    preflight,
    resnet,
    resnet8,
    resnet20,
    resnet32,
    resnet50,
    shufflenet_v1,
    shufflenet_v2,
    tapped,
    taps,
    vgg,
    wide_resnet,
)
from tf_l2t.training import classification_problem

# Networks of every kind that are small enough to be differentiated through in seconds.
REDUCED = {
    "resnet": lambda activation="relu": resnet(8, 3, (32, 32, 3), activation, "identity", (2, 2, 3, 4)),
    "resnet_conv": lambda activation="relu": resnet(8, 3, (32, 32, 3), activation, "conv", (2, 2, 3, 4)),
    "resnet50": lambda activation="relu": resnet50(3, (32, 32, 3), activation, (1, 1, 1, 1), 2),
    "wide_resnet": lambda activation="relu": wide_resnet(10, 1, 3, (32, 32, 3), activation),
    "densenet_bc": lambda activation="relu": densenet_bc(10, 3, 3, (32, 32, 3), activation),
    "vgg": lambda activation="relu": vgg((1, 2, 1, 1, 1), 3, (32, 32, 3), activation, (3, 3, 4, 4, 5)),
    "mobilenet_v2": lambda activation="relu": mobilenet_v2(3, (32, 32, 3), activation, 0.13, 2, (1, 1, 2, 1, 1, 1, 1)),
    "shufflenet_v1": lambda activation="relu": shufflenet_v1(3, (32, 32, 3), activation, 3, (36, 48, 60), (1, 1, 1)),
    "shufflenet_v2": lambda activation="relu": shufflenet_v2(3, (32, 32, 3), activation, (8, 8, 12, 16), (1, 1, 1)),
}


def _trained(model):
    return sum(int(np.prod(w.shape)) for w in model.trainable_variables)


def _resnet_size(depth, widths, classes, shortcut):
    """3×3 convolutions without bias, two numbers a channel for every normalisation, by hand."""
    n, size = (depth - 2) // 6, 3 * 9 * widths[0] + 2 * widths[0]
    before = widths[0]
    for stage, width in enumerate(widths[1:]):
        size += 9 * before * width + 9 * width * width * (2 * n - 1) + 2 * n * 2 * width
        if shortcut and (stage or before != width):
            size += before * width + 2 * width
        before = width
    return size + (before + 1) * classes


@pytest.mark.parametrize(("model", "count"), [
    # He et al., Table 6: 0.27 M and 0.46 M; exactly what the layers sum up to by hand.
    (resnet8, _resnet_size(8, (16, 16, 32, 64), 10, False)),
    (resnet20, 269_722), (resnet32, 464_154),
    (lambda: resnet8(100, shortcut="conv"), _resnet_size(8, (16, 16, 32, 64), 100, True)),
    # The sizes of RepDistiller's networks with 100 classes, as the distillation literature's tables have them.
    (lambda: resnet20(100, shortcut="conv"), 278_324), (lambda: resnet32(100, shortcut="conv"), 472_756),
    *[(STUDENTS[name], count) for name, count in {
        "resnet32x4": 7_433_860, "resnet50": 23_705_252, "wrn_40_2": 2_255_156, "wrn_40_1": 569_780,
        "wrn_16_2": 703_284, "vgg8": 3_965_028, "vgg13": 9_462_180, "mobilenet_v2": 812_836,
        "shufflenet_v1": 949_258, "shufflenet_v2": 1_355_528,
        # Huang et al., Table 2: 0.8 M and 25.6 M; WRN-40-10: 55.8 M.
        "densenet_bc_100_12": 769_162, "densenet_bc_190_40": 25_624_430, "wrn_40_10": 55_841_754}.items()],
])
def test_published_sizes(model, count):
    assert _trained(model()) == count


def test_every_student_is_counted():
    assert set(STUDENTS) == {"mlp", "lenet", "resnet8", "resnet20", "resnet32", "resnet32x4", "resnet50", "wrn_40_10",
                             "wrn_40_2", "wrn_40_1", "wrn_16_2", "densenet_bc_100_12", "densenet_bc_190_40", "vgg8",
                             "vgg13", "mobilenet_v2", "shufflenet_v1", "shufflenet_v2",
                             "resnet", "wide_resnet", "densenet_bc", "vgg"}


@pytest.mark.parametrize(("name", "shapes"), [
    # As RepDistiller's networks return them for 32 × 32 pixels: stem, stages, pooled.
    ("resnet8", [(32, 32, 16), (32, 32, 16), (16, 16, 32), (8, 8, 64), (64,)]),
    ("resnet32x4", [(32, 32, 32), (32, 32, 64), (16, 16, 128), (8, 8, 256), (256,)]),
    ("wrn_16_2", [(32, 32, 16), (32, 32, 32), (16, 16, 64), (8, 8, 128), (128,)]),
    ("vgg8", [(32, 32, 64), (16, 16, 128), (8, 8, 256), (4, 4, 512), (4, 4, 512), (512,)]),
    ("mobilenet_v2", [(16, 16, 16), (16, 16, 12), (8, 8, 16), (4, 4, 48), (2, 2, 160), (1280,)]),
    ("shufflenet_v1", [(32, 32, 24), (16, 16, 240), (8, 8, 480), (4, 4, 960), (960,)]),
    ("shufflenet_v2", [(32, 32, 24), (16, 16, 116), (8, 8, 232), (4, 4, 464), (1024,)]),
    ("resnet50", [(32, 32, 64), (32, 32, 256), (16, 16, 512), (8, 8, 1024), (4, 4, 2048), (2048,)]),
    ("densenet_bc_100_12", [(32, 32, 24), (32, 32, 216), (16, 16, 300), (8, 8, 342), (342,)]),
])
def test_feature_shapes(name, shapes):
    found = taps(STUDENTS[name](num_classes=7))
    names = ["stem", *(f"stage{i}" for i in range(1, len(shapes) - 1)), "pooled"]
    assert [found[name].shape[1:] for name in names] == shapes
    assert found["logits"].shape == (None, 7)
    for name in names[:-1]:
        assert found[f"{name}_preact"].shape == found[name].shape


def _batch(count=2, shape=(32, 32, 3)):
    return np.random.default_rng(0).standard_normal((count, *shape)).astype(np.float32)


@pytest.mark.parametrize("name", REDUCED)
def test_taps_are_the_models_own_tensors(name):
    model = REDUCED[name]()
    outputs = tapped(model, list(taps(model)))(_batch())
    np.testing.assert_allclose(outputs["logits"], model(_batch()), rtol=1e-5, atol=1e-6)
    if "wide" not in name and "dense" not in name:  # there a stage's output has not been activated
        for tap in outputs:
            before = np.asarray(outputs.get(f"{tap}_preact", 0.0))
            if tap.startswith("stage") and "preact" not in tap and name not in ("mobilenet_v2", "shufflenet_v2"):
                np.testing.assert_array_equal(outputs[tap], np.maximum(before, 0))
    if name == "shufflenet_v2":  # activated and shuffled: channel i of either half becomes 2i and 2i + 1
        before = np.maximum(outputs["stage1_preact"], 0)
        np.testing.assert_array_equal(outputs["stage1"][..., 0::2], before[..., :4])
        np.testing.assert_array_equal(outputs["stage1"][..., 1::2], before[..., 4:])
    np.testing.assert_allclose(outputs["pooled"].shape, (2, model.get_layer("logits").kernel.shape[0]))
    with pytest.raises(ValueError, match="has the taps"):
        tapped(model, ["stage9"])


@pytest.mark.parametrize("name", REDUCED)
def test_normalisation_and_initialisation(name):
    model = REDUCED[name]()
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert norms and all((layer.momentum, layer.epsilon) == (0.9, 1e-5) for layer in norms)
    assert not any(layer.use_bias for layer in model.layers if isinstance(layer, keras.layers.Conv2D)) or name == "vgg"


def test_he_initialisation():
    kernel = np.asarray(resnet(8, 10, widths=(16, 16, 32, 64)).get_layer("stage3_block1_b_conv").kernel)
    assert kernel.std() == pytest.approx(np.sqrt(2 / (9 * 64)), rel=0.02)  # of 36,864 draws: 0.4 % standard error
    logits = np.asarray(STUDENTS["vgg8"]().get_layer("logits").kernel)
    assert np.abs(logits).max() <= 1 / np.sqrt(512) and logits.std() == pytest.approx(1 / np.sqrt(3 * 512), rel=0.02)


@pytest.mark.parametrize("size", [8, 9])
def test_strided_convolutions_pad_evenly(size):
    """A kernel whose centre is 1 picks every other place from the first on, where "same" of Keras picks the second."""
    x = np.arange(size * size, dtype=np.float32).reshape(1, size, size, 1)
    inputs = keras.Input((size, size, 1))
    for outputs in (blocks.conv(inputs, 1, 3, "c", stride=2), blocks.depthwise(inputs, "d", stride=2)):
        model = keras.Model(inputs, outputs)
        centre = np.zeros((3, 3, 1, 1), np.float32)
        centre[1, 1] = 1
        model.set_weights([centre])
        np.testing.assert_array_equal(model(x)[0, ..., 0], x[0, ::2, ::2, 0])


def test_layers_without_weights():
    x = _batch(2, (5, 6, 4))
    shortcut = blocks.PaddedShortcut(7, 2)(x).numpy()
    assert shortcut.shape == (2, 3, 3, 7) == (2, *blocks.PaddedShortcut(7, 2).compute_output_shape((2, 5, 6, 4))[1:])
    np.testing.assert_array_equal(shortcut[..., 1:5], x[:, ::2, ::2])
    assert not shortcut[..., [0, 5, 6]].any()
    np.testing.assert_array_equal(blocks.ChannelShuffle(2)(x), x[..., [0, 2, 1, 3]])
    np.testing.assert_array_equal(blocks.ChannelSlice(1, 3)(x), x[..., 1:3])


@pytest.mark.parametrize("name", REDUCED)
def test_saved_and_loaded(name, tmp_path):
    model = REDUCED[name]()
    model(_batch(), training=True)  # so that statistics are not those of the start
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras")(_batch()), model(_batch()))


@pytest.mark.parametrize("build", [
    lambda **o: resnet(8, widths=(2, 2, 3, 4), **o), lambda **o: wide_resnet(10, 1, **o),
    lambda **o: densenet_bc(10, 3, **o), lambda **o: vgg((1,) * 5, filters=(2,) * 5, **o),
    lambda **o: mobilenet_v2(width=0.1, **o), lambda **o: resnet50(repeats=(1,) * 4, filters=2, **o),
    lambda **o: shufflenet_v1(widths=(36, 48, 60), repeats=(1, 1, 1), **o),
    lambda **o: shufflenet_v2(widths=(4, 4, 4, 4), repeats=(1, 1, 1), **o),
])
def test_other_sizes_and_classes(build):
    model = build(num_classes=5, input_shape=(40, 65, 1))
    assert model(_batch(2, (40, 65, 1))).shape == (2, 5)
    with pytest.raises(ValueError, match="at least 32 x 32"):
        build(input_shape=(28, 28, 1))


def test_vgg_pools_once_more_at_64_pixels():
    assert taps(vgg((1,) * 5, input_shape=(64, 64, 3), filters=(2,) * 5))["stage4"].shape[1:] == (4, 4, 2)


def test_bad_arguments():
    for wrong in (lambda: resnet(9), lambda: resnet(8, shortcut="none"), lambda: resnet(8, widths=(16, 32)),
                  lambda: wide_resnet(12), lambda: wide_resnet(10, 0), lambda: densenet_bc(11),
                  lambda: densenet_bc(10, 0),
                  lambda: vgg((1, 1)), lambda: mobilenet_v2(width=0.01), lambda: shufflenet_v1(widths=(100, 200, 300)),
                  lambda: shufflenet_v2(widths=(3, 4, 4, 4)), lambda: resnet50(repeats=(1, 1))):
        with pytest.raises(ValueError, match="received"):
            wrong()


@pytest.mark.parametrize("name", REDUCED)
def test_a_teacher_can_be_trained_through_it(name):
    """In both modes: all layers' second derivatives against differences, and randomness repeated."""
    report = preflight(REDUCED[name])
    assert report.modes == ("forward_over_reverse", "reverse_over_reverse"), str(report)


# Residual blocks, concatenated features, depthwise convolutions. The layers of all networks, those that split and
# shuffle channels too, are checked one by one by `test_a_teacher_can_be_trained_through_it`.
@pytest.mark.parametrize("name", ["resnet", "densenet_bc", "mobilenet_v2"])
def test_hypergradient_against_differences(name):
    """Through two compiled steps of the whole network; a smooth activation, for a kink within ±ε would spoil them."""
    student = FunctionalStudent(lambda: REDUCED[name]("tanh"), dtype="float64")
    rng = np.random.default_rng(0)
    train, dev = (ArrayPair(rng.standard_normal((n, 32, 32, 3)), (np.arange(n) % 3).astype(np.int32)) for n in (8, 4))
    problem = classification_problem(student, train, dev, loss=taught_form("stable").per_example,
                                     objective=log_likelihood, optimizer=sgd(0.05, momentum=0.9), num_steps=2,
                                     refresh_every=1, dev_sample_size=4, batch_size=4)
    report = check_hypergradient(problem, tiny.teacher(), initial_state(problem, *student.init(5)), 4, num_directions=1,
                                 hvp_modes=("forward_over_reverse",), schedules=("every_k",), dot_product=False,
                                 verbose=False)
    assert report.passed, str(report)
    assert tf.math.is_finite(report.rows[0].reference) and report.rows[0].reference != 0
