"""A Keras model that trains a translation student by MIXER: REINFORCE that grows from the end of the sentence."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tf_l2t.hypergradient.replicas import gradient_share
from tf_l2t.students.translator import Translator, previous_tokens
from tf_l2t.training.candidates import sampled_after, sentence_rewards
from tf_l2t.training.wrapped_translator import WrappedTranslator
from tf_l2t.translation.sequence_losses import baseline_loss, mixer_mask, token_reinforce
from tf_l2t.translation.subwords import BOS, PAD
from tf_l2t.translation.token_losses import log_probs_at


def cross_entropy_positions(step: Any, first: int, every: int, by: int) -> Any:
    """How many positions the reference teaches at a step: max(first − by ⌊step / every⌋, 0), an integer or tensor.

    Source: Ranzato et al., ICLR 2016, section 3.2.2, where `by` positions are taken away after so many epochs.
    """
    return tf.maximum(first - by * (step // every), 0)


@keras.saving.register_keras_serializable(package="tf_l2t")
class MixerStudent(WrappedTranslator):
    """A translation student trained by cross entropy on the beginnings and by REINFORCE on the ends of sentences.

    A translation begins with the first s tokens of the reference and goes on as the student samples; with R its
    sentence BLEU, b_t = w' h_t + v, and h_t the student's last hidden vector, without its gradient,

        −Σ_{t≤s} log p_t − Σ_{t>s} (R − b_t) log p_t, the mean over a batch
        s = max(first_positions − positions_by ⌊step / positions_every⌋, 0)

    w and v start at 0 and descend Σ_{t>s} (b_t − R)² by an optimizer of their own. Logged are the loss, the reward R,
    the token loss −log p(y), the baseline's loss, and s as `positions`.

    Args:
      student: trained by maximum likelihood first.
      first_positions: of the steps before the first anneal.
      positions_by: how many are taken away at a time.
      positions_every: after so many steps.
      baseline_optimizer: a Keras optimizer or its name; None for Adam(1e-3).
      **kwargs: of `WrappedTranslator`.

    Raises:
      ValueError: for a number out of range.

    Source: Ranzato et al., "Sequence level training with recurrent neural networks", ICLR 2016, section 3.2.
    """

    logged = ("loss", "reward", "token_loss", "baseline_loss", "positions")

    def __init__(self, student: Translator, *, first_positions: int = 24, positions_by: int = 2,
                 positions_every: int = 500, baseline_optimizer: keras.optimizers.Optimizer | str | None = None,
                 **kwargs: Any):
        super().__init__(student, **kwargs)
        if first_positions < 0 or positions_by < 1 or positions_every < 1:
            raise ValueError("first_positions must be at least 0, positions_by and positions_every at least 1; "
                             f"received {first_positions!r}, {positions_by!r}, {positions_every!r}.")
        self.first_positions, self.positions_by = first_positions, positions_by
        self.positions_every = positions_every
        units = hidden_units(student)
        self._kernel = self.add_weight(name="baseline_kernel", shape=(units, 1), initializer="zeros")
        self._bias = self.add_weight(name="baseline_bias", shape=(), initializer="zeros")
        self.baseline_optimizer: Any = keras.optimizers.get(baseline_optimizer or keras.optimizers.Adam(1e-3))
        self.baseline_optimizer.build([self._kernel, self._bias])

    @property
    def positions(self) -> int:
        """How many positions the reference teaches at the next step."""
        return int(self._positions())

    def _positions(self) -> tf.Tensor:
        return cross_entropy_positions(self._step.value, self.first_positions, self.positions_every,
                                       self.positions_by)

    def student_steps(self, num_steps: int) -> int:
        needed = -(-self.first_positions // self.positions_by) * self.positions_every
        if needed >= num_steps:
            raise ValueError(f"mixer reaches REINFORCE on whole sentences after {needed} steps, as first_positions="
                             f"{self.first_positions}, positions_by={self.positions_by}, positions_every="
                             f"{self.positions_every} say: the run must be longer; received {num_steps} steps.")
        return num_steps

    def translations(self, source: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        """Those of this step for a batch [batch, S], [batch, R], int32 [batch, T]."""
        return sampled_after(self.student, source, target, self._positions(), max_length=self.max_length(target),
                             seed=self.step_seed())

    def learn(self, source: tf.Tensor, target: tf.Tensor) -> dict[str, tf.Tensor]:
        positions = self._positions()
        tokens = self.translations(source, target)
        reward = sentence_rewards(tokens[:, tf.newaxis], target, self.smoothing)
        rewards = tf.repeat(reward, tf.shape(tokens)[1], axis=1)
        real = tf.not_equal(tokens, PAD)
        sampled = real & ~mixer_mask(tf.shape(tokens)[1], positions)
        token_loss = -tf.reduce_sum(self.reference_log_probs(source, target), axis=-1)
        with tf.GradientTape(persistent=True) as tape:
            hidden = self.student.last_hidden(self.student.encode(source, training=True),
                                              previous_tokens(tokens, BOS), training=True)
            log_probs = log_probs_at(self.student.logits(hidden), tokens)
            baseline = tf.tensordot(tf.stop_gradient(hidden), self._kernel.value[:, 0], 1) + self._bias.value
            losses = token_reinforce(log_probs, rewards, baseline, real, positions)
            regression = baseline_loss(baseline, rewards, sampled)
            loss, of_baseline = tf.reduce_mean(losses) + self.regularisers(), tf.reduce_mean(regression)
        self.descend(tape, loss)
        own = [self._kernel, self._bias]
        gradients = tape.gradient(of_baseline, [v.value for v in own], output_gradients=gradient_share(of_baseline))
        self.baseline_optimizer.apply(gradients, own)
        return {"loss": losses, "reward": reward[:, 0], "token_loss": token_loss, "baseline_loss": regression,
                "positions": tf.cast(positions, tf.float32)}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "first_positions": self.first_positions, "positions_by": self.positions_by,
                "positions_every": self.positions_every,
                "baseline_optimizer": keras.saving.serialize_keras_object(self.baseline_optimizer)}


def hidden_units(student: Translator) -> int:
    """The size of a student's last hidden vectors."""
    token = tf.ones([1, 1], tf.int32)
    return int(student.last_hidden(student.encode(token), token).shape[-1])
