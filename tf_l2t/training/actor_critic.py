"""A Keras model that trains a translation student by a critic, which learns beside it what a token is worth."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tf_l2t.students.functional import building
from tf_l2t.students.translator import Translator, previous_tokens
from tf_l2t.training.candidates import sampled_after
from tf_l2t.training.wrapped_translator import WrappedTranslator, shared_gradient
from tf_l2t.translation.bleu import prefix_rewards
from tf_l2t.translation.critic import actor_loss, critic_loss, critic_targets
from tf_l2t.translation.subwords import BOS, PAD
from tf_l2t.translation.token_losses import token_nll


@keras.saving.register_keras_serializable(package="tf_l2t")
class ActorCriticStudent(WrappedTranslator):
    """A translation student, the actor, and a critic Q that tells it what BLEU each next token will bring.

    A step samples one translation ŷ of every source, with r_t what token t adds to its sentence BLEU; the critic reads
    the reference as its source and ŷ as its target, and gives a Q_t(a) for every token a in the place of logits:

        q_t = r_t + Σ_a p'_{t+1}(a) Q'_{t+1}(a)
        critic: Σ_t (Q_t(ŷ_t) − q_t)² + penalty Σ_t Σ_a (Q_t(a) − mean_b Q_t(b))²
        actor:  −Σ_t Σ_a p_t(a) Q_t(a) − mle_weight · log p(y)

    both means over the batch. Q' is a copy of the critic that follows it by `target_rate` a step; p', from which ŷ is
    sampled, such a copy of the actor, or the actor itself. For the first `critic_steps` steps the actor is left as it
    is; the compiled optimizer's iterations begin behind them, while `step` counts them all.

    Logged are loss (the actor's; 0 while it is left alone), reward (sentence BLEU of ŷ), token_loss (−log p(y)) and
    critic_loss.

    Args:
      student: trained by maximum likelihood first.
      critic: another `Translator` of the same vocabulary; None for one like the student, without dropout, drawn by the
        seed.
      critic_optimizer: a Keras optimizer or its name; None for Adam(1e-3).
      critic_steps: see above.
      target_rate: see above, in (0, 1].
      delayed_actor: whether p' is a copy that follows.
      mle_weight: ≥ 0.
      penalty: ≥ 0.
      **kwargs: of `WrappedTranslator`.

    Raises:
      ValueError: for a critic that is no `Translator` or has another vocabulary, or a number out of range.

    Source: Bahdanau et al., "An actor-critic algorithm for sequence prediction", ICLR 2017, algorithm 1 and 2.
    """

    logged = ("loss", "reward", "token_loss", "critic_loss")

    def __init__(self, student: Translator, *, critic: Translator | None = None,
                 critic_optimizer: keras.optimizers.Optimizer | str | None = None, critic_steps: int = 1000,
                 target_rate: float = 0.001, delayed_actor: bool = True, mle_weight: float = 0.1,
                 penalty: float = 1e-3, **kwargs: Any):
        super().__init__(student, **kwargs)
        if critic is not None and (not isinstance(critic, Translator) or critic.unroll
                                   or critic.vocabulary_size != student.vocabulary_size):
            raise ValueError(f"the critic must be a Translator of {student.vocabulary_size} tokens, with unroll=False; "
                             f"received {type(critic).__name__} of {getattr(critic, 'vocabulary_size', None)}.")
        if critic_steps < 0 or not 0 < target_rate <= 1 or not mle_weight >= 0 or not penalty >= 0:
            raise ValueError("critic_steps, mle_weight and penalty must be at least 0 and target_rate in (0, 1]; "
                             f"received {critic_steps!r}, {mle_weight!r}, {penalty!r}, {target_rate!r}.")
        self.critic_steps, self.target_rate, self.delayed_actor = critic_steps, target_rate, delayed_actor
        self.mle_weight, self.penalty = mle_weight, penalty
        options = {"dropout": 0.0} if "dropout" in student.get_config() else {}
        with building(self.seed, None):
            self.critic = critic or _like(student, name="critic", **options)
            self._slow_critic = _copy(self.critic)
            self._slow_actor = _copy(student) if delayed_actor else None
        self.critic_optimizer: Any = keras.optimizers.get(critic_optimizer or keras.optimizers.Adam(1e-3))
        self.critic_optimizer.build(self.critic.trainable_variables)

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """As `WrappedTranslator.fit`.

        Raises:
          ValueError: as that, or under a strategy of several replicas for an optimizer with weight decay.
        """
        if self._several and self.critic_steps and self.optimizer.weight_decay:
            raise ValueError("weight decay would move the actor in the first critic_steps steps, too, under a strategy "
                             "of several replicas: train it with an optimizer without, or with critic_steps=0.")
        return super().fit(*args, **kwargs)

    @property
    def _several(self) -> bool:
        return self.distribute_strategy.num_replicas_in_sync > 1

    def student_steps(self, num_steps: int) -> int:
        if self.critic_steps >= num_steps:
            raise ValueError("actor_critic leaves the student as it is for its first critic_steps steps: they must be "
                             f"fewer than the run's; received critic_steps={self.critic_steps}, {num_steps} steps.")
        return num_steps - self.critic_steps

    def translations(self, source: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        """Those of this step for a batch [batch, S], [batch, R], int32 [batch, T]."""
        return sampled_after(self._slow_actor or self.student, source, target, 0,
                             max_length=self.max_length(target), seed=self.step_seed())

    def learn(self, source: tf.Tensor, target: tf.Tensor) -> dict[str, tf.Tensor]:
        tokens = self.translations(source, target)
        previous, real = previous_tokens(tokens, BOS), tf.not_equal(tokens, PAD)
        rewards = prefix_rewards(tokens, target, self.smoothing)
        probs = tf.nn.softmax((self._slow_actor or self.student)((source, previous)))
        targets = critic_targets(rewards, probs, self._slow_critic((target, previous)), real)
        critic = self.critic.trainable_variables
        with tf.GradientTape() as tape:
            q = self.critic((target, previous), training=True)
            critic_losses = critic_loss(q, tokens, targets, real, self.penalty)
            loss = tf.reduce_mean(critic_losses)
        self.critic_optimizer.apply(shared_gradient(tape, loss, critic), critic)
        actor = self.trainable_variables

        def act() -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
            with tf.GradientTape() as tape:
                memory = self.student.encode(source, training=True)
                logits = self.student.decode(memory, previous, training=True)
                nll = token_nll(target, self.student.decode(memory, previous_tokens(target, BOS), training=True))
                losses = actor_loss(tf.nn.log_softmax(logits), q, real) + self.mle_weight * nll
                loss = tf.reduce_mean(losses) + self.regularisers()
            if not self._several:
                self.descend(tape, loss)
            return losses, nll, [tf.convert_to_tensor(g) for g in shared_gradient(tape, loss, actor)] \
                if self._several else []

        def watch() -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
            nll = -tf.reduce_sum(self.reference_log_probs(source, target), axis=-1)
            return tf.zeros_like(nll), nll, [tf.zeros_like(v.value) for v in actor] if self._several else []

        if not self.optimizer.built:  # no variable can be made in a branch
            self.optimizer.build(actor)
        acts = self._step.value >= self.critic_steps
        losses, token_loss, gradients = tf.cond(acts, act, watch)
        if self._several:  # replicas do not meet in a branch: of gradients that are zero only the iterations move
            before = tf.identity(self.optimizer.iterations.value)
            self.optimizer.apply(gradients, actor)
            self.optimizer.iterations.assign(tf.where(acts, self.optimizer.iterations.value, before))
        _follow(self._slow_critic, self.critic, self.target_rate)
        if self._slow_actor is not None:
            _follow(self._slow_actor, self.student, self.target_rate)
        return {"loss": losses, "reward": tf.reduce_sum(rewards, axis=1), "token_loss": token_loss,
                "critic_loss": critic_losses}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "critic": keras.saving.serialize_keras_object(self.critic),
                "critic_optimizer": keras.saving.serialize_keras_object(self.critic_optimizer),
                "critic_steps": self.critic_steps, "target_rate": self.target_rate,
                "delayed_actor": self.delayed_actor, "mle_weight": self.mle_weight, "penalty": self.penalty}


def _like(model: Translator, **changes: Any) -> Translator:
    """A new network of the same kind."""
    return type(model).from_config({**model.get_config(), **changes})


def _copy(model: Translator) -> Translator:
    """A new network with the same weights."""
    copy = _like(model)
    for new, old in zip(copy.trainable_variables, model.trainable_variables, strict=True):
        new.assign(old)
    return copy


def _follow(slow: Translator, model: Translator, rate: float) -> None:
    """slow ← slow + rate (model − slow), weight by weight; every replica moves the copy that it has."""
    for old, new in zip(slow.trainable_variables, model.trainable_variables, strict=True):
        moved = tf.convert_to_tensor(old.value) + rate * (tf.convert_to_tensor(new.value) - old.value)
        tf.raw_ops.AssignVariableOp(resource=old.value.handle, value=moved)
