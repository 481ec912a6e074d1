"""TensorBoard's event files, read back."""

import tensorflow as tf


def events(folder):
    """Every event of all event files right in a folder, in the order in which they were written."""
    for file in sorted(folder.glob("*events.out*")):
        yield from tf.compat.v1.train.summary_iterator(str(file))


def tags(folder):
    """What they hold, {tag: {step: array}}.

    A histogram is rows of (left, right, count), an image (width, height, PNG).
    """
    found = {}
    for event in events(folder):
        for value in event.summary.value:
            if value.HasField("tensor"):
                found.setdefault(value.tag, {})[event.step] = tf.make_ndarray(value.tensor)
    return found


def scalars(folder):
    """The scalars among them, {tag: {step: float}}."""
    return {tag: {step: float(value) for step, value in steps.items()} for tag, steps in tags(folder).items()
            if all(value.ndim == 0 and value.dtype.kind == "f" for value in steps.values())}
