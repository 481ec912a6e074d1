"""Augmentation against a second formula in NumPy, and as a pure function of its seed."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_l2t.data import array_batches, batch_dataset, flip_and_crop

IMAGES = np.arange(40 * 9 * 7 * 2, dtype=np.float32).reshape(40, 9, 7, 2)


def _all_crops(image, padding, mode, fill, flips):
    """Every outcome that there may be: (2 padding + 1)² places, each as it is and flipped."""
    border = [(padding, padding), (padding, padding), (0, 0)]
    padded = np.pad(image, border, mode="reflect") if mode == "reflect" else np.stack(
        [np.pad(image[..., c], border[:2], constant_values=fill[c]) for c in range(image.shape[-1])], axis=-1)
    height, width = image.shape[:2]
    crops = [padded[i:i + height, j:j + width] for i in range(2 * padding + 1) for j in range(2 * padding + 1)]
    return crops + [crop[:, ::-1] for crop in crops] if flips else crops


@pytest.mark.parametrize(("mode", "fill", "flip"), [("reflect", 0.0, True), ("constant", (-1.0, 3.0), True),
                                                    ("reflect", 0.0, False)])
def test_outcomes_are_crops_of_the_padded_image(mode, fill, flip):
    augment = flip_and_crop(3, mode, fill, flip)
    seen = set()
    for step in range(10):
        made = augment(tf.constant(IMAGES), tf.constant([5, step], tf.int64)).numpy()
        for before, after in zip(IMAGES, made, strict=True):
            crops = [crop.tobytes() for crop in _all_crops(before, 3, mode, fill, flip)]
            seen.add(crops.index(np.ascontiguousarray(after).tobytes()))
    # 400 draws of at most 98 outcomes (of a mirrored image, some are their own mirror image): each is missed with a
    # probability of e^-4 at most.
    assert len(seen) > 0.9 * len(set(crops))


def test_places_and_flips_are_drawn_evenly():
    x = np.tile(np.arange(9.0, dtype=np.float32)[None, :, None, None] * 10 + np.arange(7.0)[None, None, :, None],
                (20000, 1, 1, 1)).astype(np.float32)
    made = flip_and_crop(2, "constant", -100.0)(tf.constant(x), tf.constant([1, 2], tf.int64)).numpy()
    centre = made[:, 4, 3, 0]  # 10 (4 + di) + 3 + dj: the middle column, which a flip leaves where it is
    rows, columns = np.divmod(centre, 10)
    for values in (rows - 4, columns - 3):
        share = np.bincount(values.astype(int) + 2, minlength=5) / len(x)
        np.testing.assert_allclose(share, 0.2, atol=4 * np.sqrt(0.2 * 0.8 / len(x)))  # four standard errors
    flipped = made[:, 4, 2, 0] > made[:, 4, 4, 0]
    assert abs(flipped.mean() - 0.5) < 4 * 0.5 / np.sqrt(len(x))


def test_a_pure_function_of_the_seed():
    augment = flip_and_crop(2)
    made = [augment(tf.constant(IMAGES), tf.constant(seed, tf.int64)).numpy()
            for seed in ([1, 1], [1, 1], [1, 2], [2, 1])]
    np.testing.assert_array_equal(made[0], made[1])
    assert not np.array_equal(made[0], made[2]) and not np.array_equal(made[0], made[3])


def test_keras_fit_gets_what_the_compiled_loop_gets():
    """The batches that a `fit` trains on, seen by a layer, against those of a compiled loop over the batch function."""
    y = np.arange(40) % 3
    batch_fn = array_batches(IMAGES, y, 8, flip_and_crop(2))

    @tf.function
    def loop():
        seen = tf.TensorArray(tf.float32, 7)
        for step in tf.range(7):
            seen = seen.write(step, batch_fn(tf.constant(4, tf.int64), step)[0])
        return seen.stack()

    recorded = []

    class Recorder(keras.layers.Layer):
        def call(self, x):
            tf.py_function(lambda batch: recorded.append(batch.numpy()), [x], [])
            return x

    inputs = keras.Input(IMAGES.shape[1:])
    outputs = keras.layers.Dense(3)(keras.layers.Flatten()(Recorder()(inputs)))
    model = keras.Model(inputs, outputs)
    model.compile("sgd", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    model.fit(batch_dataset(batch_fn, 4, 7), verbose=0)
    np.testing.assert_array_equal(np.stack(recorded), loop())


def test_bad_arguments():
    with pytest.raises(ValueError, match="padding must be"):
        flip_and_crop(-1)
    with pytest.raises(ValueError, match="mode one of"):
        flip_and_crop(1, "wrap")
    with pytest.raises(ValueError, match="cannot be mirrored"):
        flip_and_crop(7)(tf.constant(IMAGES), tf.constant([0, 0], tf.int64))
