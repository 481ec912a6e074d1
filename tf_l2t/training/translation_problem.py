"""From a translation student, encoded text and a taught loss to the engine's `Problem`."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from tf_l2t.hypergradient import InnerOptimizer, Problem, StepOutput
from tf_l2t.losses import taught_form
from tf_l2t.students import FunctionalTranslator, previous_tokens
from tf_l2t.training.translation_objectives import objective_of
from tf_l2t.translation.batches import BucketedBatches, EncodedText, TokenPair, bucketed_batches
from tf_l2t.translation.features import status_bleu, translation_features
from tf_l2t.translation.subwords import BOS
from tf_l2t.translation.token_losses import taught_token_loss


def translation_problem(student: FunctionalTranslator, train: EncodedText, dev: EncodedText, *,
                        form: str, objective: str, optimizer: InnerOptimizer, num_steps: int, batch_size: int,
                        refresh_every: int = 20, sample_size: int = 100) -> Problem:
    """A translation student's training run as the engine takes it.

    Args:
      student: the network.
      train, dev: pairs as ids; M is measured on all of `dev`.
      form: of the taught loss; that of a mini-batch is the mean over its sentences of `taught_token_loss`, plus the
        student's regularisers.
      objective: a name in `translation_objectives.OBJECTIVES`.
      optimizer: the student's.
      num_steps: T.
      batch_size: sentences.
      refresh_every: k, the number of steps for which s_t is held.
      sample_size: how many of the train and of the dev pairs s_t looks at, the first ones.

    Raises:
      ValueError: for an unknown form or objective, or a size that does not fit the data.
    """
    taught_form(form)  # raises for an unknown one
    if min(num_steps, sample_size) < 1:
        raise ValueError(f"num_steps and sample_size must be at least 1; received {num_steps!r}, {sample_size!r}.")
    dtype = student.dtype

    def loss_fn(params, non_trainable, batch, coefficients):
        source, target = batch
        logits, non_trainable, penalty = student.apply(params, non_trainable, (source, previous_tokens(target, BOS)),
                                                       training=True)
        losses = taught_token_loss(target, tf.cast(logits, dtype), tf.cast(coefficients, dtype), form)
        return StepOutput(tf.reduce_mean(losses) + tf.cast(penalty, dtype), non_trainable, {})

    def bleu(params, non_trainable, source, target):
        return student.using(params, non_trainable, status_bleu, source, target)

    train_sample, dev_sample = (TokenPair(*(tf.constant(ids[:sample_size]) for ids in (part.source, part.target)))
                                for part in (train, dev))
    return Problem(
        loss_fn=loss_fn,
        batch_fn=_widest(bucketed_batches(train, batch_size)),
        narrow_fn=None if student.model.unroll else _narrowed,
        objective_fn=objective_of(student, dev, objective),
        optimizer=optimizer,
        features=translation_features(bleu, train_sample, dev_sample, num_steps, refresh_every, dtype),
        num_steps=num_steps)


def _widest(batch_fn: BucketedBatches) -> Callable[[tf.Tensor, tf.Tensor], TokenPair]:
    """Batches padded to one shape: the engine keeps them by the segment."""
    width = batch_fn.shapes[-1][1]

    def batch(seed: tf.Tensor, step: tf.Tensor) -> TokenPair:
        padded = [tf.pad(ids, [[0, 0], [0, width - tf.shape(ids)[1]]]) for ids in batch_fn(seed, step)]
        return TokenPair(*(tf.ensure_shape(ids, [batch_fn.batch_size, width]) for ids in padded))

    return batch


def _narrowed(pair: TokenPair) -> TokenPair:
    """Up to the longest sentence of either side."""
    return TokenPair(*(ids[:, :tf.reduce_max(tf.math.count_nonzero(ids, axis=1))] for ids in pair))
