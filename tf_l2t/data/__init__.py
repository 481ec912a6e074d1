"""Readers, one per kind of source; each returns `Splits`."""

from tf_l2t.data.augment import flip_and_crop
from tf_l2t.data.batches import array_batches, batch_dataset, batch_indices
from tf_l2t.data.cifar import CIFAR10_CLASSES, CIFAR100_CLASSES, cifar
from tf_l2t.data.idx import idx_images, read_idx
from tf_l2t.data.mnist import embedded_digits, mnist, mnist_5k
from tf_l2t.data.noise import corrupt_labels, long_tail, noise_matrix
from tf_l2t.data.recipes import RECIPES, like_cifar, prepared
from tf_l2t.data.splits import (
    ArrayPair,
    Splits,
    arrays_digest,
    balanced,
    check_class_names,
    check_dev,
    check_pair,
    fingerprint,
    from_arrays,
    split_pool,
    two_parts,
)

__all__ = [
    "CIFAR10_CLASSES",
    "CIFAR100_CLASSES",
    "RECIPES",
    "ArrayPair",
    "Splits",
    "array_batches",
    "arrays_digest",
    "balanced",
    "batch_dataset",
    "batch_indices",
    "check_class_names",
    "check_dev",
    "check_pair",
    "cifar",
    "corrupt_labels",
    "embedded_digits",
    "fingerprint",
    "flip_and_crop",
    "from_arrays",
    "idx_images",
    "like_cifar",
    "long_tail",
    "mnist",
    "mnist_5k",
    "noise_matrix",
    "prepared",
    "read_idx",
    "split_pool",
    "two_parts",
]
