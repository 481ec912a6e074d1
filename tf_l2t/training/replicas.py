"""Who computes what of a teacher's step, and what they tell each other: `tf.distribute` as the trainer uses it."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

from tf_l2t.training.errors import ClusterRefusedError, WorkerLostError

Item = TypeVar("Item")
Result = TypeVar("Result")
_LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.DeadlineExceededError)


class Replicas:
    """The replicas of a strategy; with None, this process and its device alone.

    Args:
      strategy: a `tf.distribute.MirroredStrategy` or `MultiWorkerMirroredStrategy`, or None.

    Attributes:
      count: of replicas, those of all processes.
      num_processes: how many there are; `process` is the number of this one, and the first, the chief, writes files.
      bytes_sent: by this process in all-reduces, without what the transport adds.

    Raises:
      ValueError: for anything else.
    """

    def __init__(self, strategy: tf.distribute.Strategy | None):
        if strategy is not None and not isinstance(strategy, tf.distribute.MirroredStrategy |
                                                   tf.distribute.MultiWorkerMirroredStrategy):
            raise ValueError("strategy must be a tf.distribute.MirroredStrategy or MultiWorkerMirroredStrategy, or "
                             f"None; received {type(strategy).__name__}.")
        self.strategy = strategy
        self.count = strategy.num_replicas_in_sync if strategy else 1
        self._local = [0]
        if strategy:
            numbers = self._for_each(np.array)
            self._local = [int(number) for number in strategy.experimental_local_results(numbers)]
        self.num_processes = self.count // len(self._local)
        self.process = self._local[0] // len(self._local)
        self.bytes_sent = 0

    @property
    def is_chief(self) -> bool:
        return self.process == 0

    def __str__(self) -> str:
        return f"{self.count} replicas in {self.num_processes} processes; this is process {self.process}"

    def run(self, function: Callable[[list[Item]], Sequence[Result]],
            items: Sequence[Item]) -> list[tuple[int, Result]]:
        """This process's share of `items`: (index, result) each.

        Replica r has the items r, r + count, …; `function` gets an item for each local replica, and gives a result for
        each. A replica that has none left repeats the last one, and that result is dropped.
        """
        found: list[tuple[int, Result]] = []
        for first in range(0, len(items), self.count):
            indices = [first + replica for replica in self._local]
            results = function([items[min(index, len(items) - 1)] for index in indices])
            found += [(i, result) for i, result in zip(indices, results, strict=True) if i < len(items)]
        return found

    def total(self, values: np.ndarray) -> np.ndarray:
        """The sum of all processes' arrays, by one all-reduce; the same bits in every process."""
        if self.strategy is None or self.num_processes == 1:
            return values
        self.bytes_sent += values.nbytes
        parts = self._for_each(lambda number: values if number == self._local[0] else np.zeros_like(values))
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, parts, axis=None).numpy()

    def any(self, flag: bool) -> bool:
        """Whether any process says so."""
        return bool(self.total(np.array([flag], np.float32))[0])

    def from_chief(self, variables: Sequence[Any], record: Any) -> Any:
        """Sets the variables to the chief's values, and returns its `record`, JSON values."""
        if self.num_processes == 1:
            return record
        text = np.frombuffer(json.dumps(record, default=float).encode(), np.uint8) if self.is_chief else np.zeros(0)
        size = int(self.total(np.array([text.size], np.float64))[0])
        text = self.total(text.astype(np.float64) if self.is_chief else np.zeros(size))
        for variable in variables:
            value = variable.numpy()
            variable.assign(self.total(value if self.is_chief else np.zeros_like(value)))
        return json.loads(text.astype(np.uint8).tobytes())

    def check_same(self, identity: Any) -> None:
        """Raises ValueError, in every process, unless all have the chief's `identity`, JSON values."""
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()
        if self.any(self.from_chief((), digest) != digest):
            raise ValueError("the processes of this cluster are at different trainings: another config, other data, "
                             "another seed or teacher. Start the same command in all of them.")

    def together(self, function: Callable[[], Result]) -> Result:
        """What `function` returns, in every process.

        Raises:
          OSError, ValueError: as `function`.
          ClusterRefusedError: if it raises one in another process; a ValueError.
        """
        refused: OSError | ValueError | None = None
        try:
            result = function()
        except (OSError, ValueError) as error:
            refused = error
        by_any = self.any(refused is not None)
        if refused:
            raise refused
        if by_any:
            raise ClusterRefusedError("another process of this cluster refuses to begin; its message says why.")
        return result

    @contextlib.contextmanager
    def lost_workers(self, where: Callable[[], str]) -> Iterator[None]:
        """Within it, an error of communication is a `WorkerLostError`; `where` says what was at work."""
        try:
            yield
        except _LOST as error:
            if self.num_processes == 1:
                raise
            reason = error.message.splitlines()[0].split("}} ")[-1]
            raise WorkerLostError(f"process {self.process} has lost the others {where()} ({reason}). Start all of them "
                                  "again; what was kept goes on.") from error

    def _for_each(self, value: Callable[[int], np.ndarray]) -> Any:
        """A value for each local replica, by its number."""
        assert self.strategy is not None
        return self.strategy.experimental_distribute_values_from_function(
            lambda context: tf.convert_to_tensor(value(int(context.replica_id_in_sync_group))))
