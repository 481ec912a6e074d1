"""Readers, one per kind of source; each returns `Splits`."""

from tf_l2t.data.batches import array_batches, batch_dataset, batch_indices
from tf_l2t.data.mnist import embedded_digits, mnist, mnist_5k, read_idx
from tf_l2t.data.noise import balanced, corrupt_labels, long_tail, noise_matrix
from tf_l2t.data.splits import ArrayPair, Splits, check_dev, check_pair, fingerprint, from_arrays

__all__ = ["ArrayPair", "Splits", "array_batches", "balanced", "batch_dataset", "batch_indices", "check_dev",
           "check_pair", "corrupt_labels", "embedded_digits", "fingerprint", "from_arrays", "long_tail", "mnist",
           "mnist_5k", "noise_matrix", "read_idx"]
