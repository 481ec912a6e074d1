"""The replicas of a `tf.distribute` strategy: a batch split over them, or a student for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def gradient_share(loss: tf.Tensor) -> tf.Tensor:
    """1 / R, to give a tape as `output_gradients` of a Keras model's loss, the mean over a replica's part of the batch.

    Keras' optimizers sum gradients over the R replicas of the strategy that a step runs in.
    """
    return tf.ones_like(loss) / tf.distribute.get_strategy().num_replicas_in_sync


def check_one_machine(strategy: tf.distribute.Strategy) -> None:
    """Raises ValueError for a strategy under which a student cannot be fitted, as no Keras 3 model can."""
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        processes = sum(map(len, strategy.cluster_resolver.cluster_spec().as_dict().values()))
        if processes > 1:
            raise ValueError(f"this model is in the scope of a MultiWorkerMirroredStrategy of {processes} processes, "
                             "under which the fit of no Keras 3 model runs (github.com/keras-team/keras/issues/20585). "
                             "Build and compile it in the scope of a tf.distribute.MirroredStrategy, on one machine; "
                             "TeacherTrainer trains on several.")


def replica_mean(value: tf.Tensor) -> tf.Tensor:
    """The mean of the replicas' values in a training step; the value itself where there is one replica."""
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, value)


def whole_batch(part: tf.Tensor) -> tf.Tensor:
    """The replicas' parts of a batch, one behind the other, in every replica; the part itself where there is one."""
    context = tf.distribute.get_replica_context()
    return part if context.num_replicas_in_sync == 1 else context.all_gather(part, axis=0)


def place_in_batch(size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """(where this replica's part of a batch, of so many examples, begins, how many all have)."""
    sizes = whole_batch(tf.reshape(size, [1]))
    replica = tf.distribute.get_replica_context().replica_id_in_sync_group
    return tf.reduce_sum(sizes[:replica]), tf.reduce_sum(sizes)


class Shards:
    """Means over the parts of a batch, each computed by a replica.

    Args:
      strategy: a `MirroredStrategy` or `MultiWorkerMirroredStrategy`.
    """

    def __init__(self, strategy: tf.distribute.Strategy):
        self.strategy = strategy
        self.count = strategy.num_replicas_in_sync

    def mean(self, function: Callable[[Any], Any], batch: Any) -> Any:
        """(1/R) Σ_r function(part r of the batch), for a function that returns a nest of tensors.

        What is not floating point, such as the seeds of random layers, is the same for all parts and is taken as the
        first local replica has it. One all-reduce for each floating-point type, the tensors in one piece.
        """
        specimen: Any = None

        def part_of(batch: Any) -> tuple[dict[tf.DType, tf.Tensor], list[tf.Tensor]]:
            nonlocal specimen
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            specimen = function(tf.nest.map_structure(lambda whole: self._part(whole, replica), batch))
            flat = tf.nest.flatten(specimen)
            packed = {dtype: tf.concat([tf.reshape(t, [-1]) for t in flat if t.dtype == dtype], axis=0)
                      for dtype in dict.fromkeys(t.dtype for t in flat if t.dtype.is_floating)}
            return packed, [t for t in flat if not t.dtype.is_floating]

        packed, others = self.strategy.run(part_of, args=(batch,))
        others = iter([self.strategy.experimental_local_results(value)[0] for value in others])
        rest = {dtype: self.strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None) / self.count
                for dtype, value in packed.items()}
        results = []
        for like in tf.nest.flatten(specimen):
            if not like.dtype.is_floating:
                results.append(next(others))
                continue
            size = like.shape.num_elements()
            results.append(tf.reshape(rest[like.dtype][:size], like.shape))
            rest[like.dtype] = rest[like.dtype][size:]
        return tf.nest.pack_sequence_as(specimen, results)

    def _part(self, whole: tf.Tensor, replica: Any) -> tf.Tensor:
        size = whole.shape[0] // self.count
        return whole[replica * size:(replica + 1) * size]


def on_replicas(strategy: tf.distribute.Strategy, function: Callable[..., Any]) -> Callable[..., list[Any]]:
    """`function`(theta, *arguments) by all replicas of this process at the same time, each with its own arguments.

    Returns:
      (theta, *lists) -> list, with an entry for each replica of this process in every list.
    """
    @tf.function(autograph=False)
    def everywhere(theta: Any, arguments: Any) -> Any:
        return strategy.run(lambda theta, arguments: function(theta, *arguments), args=(theta, arguments))

    def call(theta: Any, *lists: list[Any]) -> list[Any]:
        values = zip(*lists, strict=True)
        arguments = strategy.experimental_distribute_values_from_function(lambda context: next(values))
        return list(strategy.experimental_local_results(everywhere(theta, arguments)))

    return call
