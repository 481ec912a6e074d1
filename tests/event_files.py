"""TensorBoard's event files, read back."""

import tensorflow as tf
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData


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


def hyperparameters(folder):
    """Of a row of TensorBoard's table of hyperparameters what was chosen, and what it came to."""
    values = {value.tag: value for event in events(folder) for value in event.summary.value}
    content = values.pop("_hparams_/session_start_info").metadata.plugin_data.content
    chosen = HParamsPluginData.FromString(content).session_start_info.hparams
    return ({name: getattr(value, value.WhichOneof("kind")) for name, value in chosen.items()},
            {tag: float(tf.make_ndarray(value.tensor)) for tag, value in values.items()})
