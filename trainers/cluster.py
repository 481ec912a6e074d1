"""The `tf.distribute` strategy that a config's teacher trains under."""

from __future__ import annotations

import json
import os

import ml_collections
import tensorflow as tf

STRATEGIES = ("", "mirrored", "multi_worker")

_begun: dict[str, tf.distribute.Strategy] = {}


def begin(config: ml_collections.ConfigDict) -> None:
    """Joins the cluster of TF_CONFIG, if config.teacher_training.strategy says so.

    TensorFlow wants that before anything else: the first thing that a command of several processes does.

    Raises:
      ValueError: if TF_CONFIG does not say which cluster.
    """
    if config.teacher_training.strategy != "multi_worker" or _begun:
        return
    try:
        told = json.loads(os.environ.get("TF_CONFIG", ""))
        workers, index = told["cluster"]["worker"], told["task"]["index"]
        if told["task"]["type"] != "worker" or not 0 <= index < len(workers):
            raise ValueError(told["task"])
    except (ValueError, KeyError, TypeError) as error:
        example = {"cluster": {"worker": ["HOST0:PORT", "HOST1:PORT"]}, "task": {"type": "worker", "index": 0}}
        raise ValueError("config.teacher_training.strategy='multi_worker' needs the environment variable TF_CONFIG, "
                         f"such as {json.dumps(example)}, with another index in every process; received "
                         f"{os.environ.get('TF_CONFIG')!r}.") from error
    _begun["multi_worker"] = tf.distribute.MultiWorkerMirroredStrategy()


def strategy(config: ml_collections.ConfigDict) -> tf.distribute.Strategy | None:
    """The strategy, or None for one device.

    Raises:
      ValueError: for an unknown name, or a command of one process.
    """
    name = config.teacher_training.strategy
    if name not in STRATEGIES:
        raise ValueError(f"config.teacher_training.strategy must be one of {STRATEGIES}; received {name!r}.")
    if name == "multi_worker" and name not in _begun:
        raise ValueError("config.teacher_training.strategy='multi_worker' is for trainers.train_teacher, whose teacher "
                         "a table takes as config.compare.teacher; this command runs in one process.")
    if name and name not in _begun:
        _begun[name] = tf.distribute.MirroredStrategy()
    return _begun.get(name)
