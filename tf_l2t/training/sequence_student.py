"""A Keras model that trains a translation student by a loss over its own candidate translations."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tf_l2t.hypergradient.replicas import replica_mean
from tf_l2t.options import check_kind
from tf_l2t.students.translator import Translator
from tf_l2t.training.actor_critic import ActorCriticStudent
from tf_l2t.training.candidates import KINDS, Candidates, candidate_log_probs, find_candidates
from tf_l2t.training.mixer_student import MixerStudent
from tf_l2t.training.wrapped_translator import WrappedTranslator
from tf_l2t.translation import sequence_losses
from tf_l2t.translation.subwords import PAD

BASELINES = ("mean", "running")


class Defaults(NamedTuple):
    """What a loss is called with unless another value is given: arguments of `SequenceStudent`."""

    candidates: str
    num_candidates: int
    include_reference: bool
    alpha: float


# Those of the source papers; but MRT has 100 samples there, which take five times the memory and time.
DEFAULTS = {
    "reinforce": Defaults("samples", 5, False, 0.0),
    "mrt": Defaults("samples", 20, True, 0.0),
    "risk": Defaults("beam", 16, False, 0.5),
    "softmax_margin": Defaults("beam", 16, False, 0.4),
    "sequence_nll": Defaults("beam", 16, False, 0.4),
    "max_margin": Defaults("beam", 16, False, 0.4),
}
# Of length-averaged log probabilities.
OF_SCORES: dict[str, Callable[..., tf.Tensor]] = {
    "risk": sequence_losses.risk, "softmax_margin": sequence_losses.softmax_margin,
    "sequence_nll": sequence_losses.sequence_nll, "max_margin": sequence_losses.max_margin,
}


@keras.saving.register_keras_serializable(package="tf_l2t")
class SequenceStudent(WrappedTranslator):
    """A translation student trained on candidates that it finds itself at every step.

        α · token loss + (1 − α) · loss over the candidates u, the mean over the sentences of a batch

    Candidates are found without a gradient and without dropout, and read for their log probabilities with both. With
    R(u) sentence BLEU, c = 1 − R, and s(u) = log p(u) / |u|, the end token counted in |u|, the losses are

        reinforce       −Σ_u (R(u) − b) log p(u)
        mrt             Σ_u Q(u) c(u),  Q ∝ p(u)^sharpness
        risk            Σ_u softmax(s)(u) c(u)
        softmax_margin  −s(u*) + log Σ_u exp(s(u) + c(u)),  u* the candidate of least cost
        sequence_nll    −s(u*) + log Σ_u exp(s(u))
        max_margin      max_u [s(u) + c(u)] − s(u*) − c(u*)

    as in `tf_l2t.translation.sequence_losses`. The token loss in the mixture is −log p(y) for reinforce, whose log
    probabilities are sums, too, and −log p(y) / |y| for all others. Logged are the loss, the mean reward of the counted
    translations, the reference left out, and the token loss −log p(y).

    Args:
      student: trained by maximum likelihood first: these losses rank what it finds, and a new one finds nothing.
      loss: a name in `DEFAULTS`, which holds the defaults of the next four arguments.
      candidates: "samples", or "beam" for the n-best of a beam search.
      num_candidates: K.
      include_reference: whether the reference is a candidate, too.
      alpha: α in [0, 1].
      unique: whether equal candidates count once. False makes of reinforce on samples an unbiased estimate.
      sharpness: of mrt, its paper's α.
      baseline: b of reinforce: the "mean" reward of the sentence's counted candidates, or a "running" mean over the
        steps so far.
      baseline_decay: of the running mean: new = decay · old + (1 − decay) · the batch's.
      **kwargs: of `WrappedTranslator`.

    Raises:
      ValueError: for an unknown name, a number out of range, or one candidate where a loss compares several.

    Source: reinforce, L2T-DLF, section 4.2; mrt, Shen et al., ACL 2016; the others, Edunov et al., NAACL 2018.
    """

    def __init__(self, student: Translator, loss: str = "reinforce", *, candidates: str | None = None,
                 num_candidates: int | None = None, include_reference: bool | None = None,
                 alpha: float | None = None, unique: bool = True, sharpness: float = 0.005, baseline: str = "mean",
                 baseline_decay: float = 0.99, **kwargs: Any):
        if loss not in DEFAULTS:
            raise ValueError(f"no loss over candidates is called {loss!r}; there are {sorted(DEFAULTS)}.")
        options: dict[str, Any] = {
            "candidates": candidates, "num_candidates": num_candidates, "include_reference": include_reference,
            "alpha": alpha}
        given = DEFAULTS[loss]._replace(**{name: value for name, value in options.items() if value is not None})
        if given.candidates not in KINDS or baseline not in BASELINES:
            raise ValueError(f"candidates must be one of {KINDS} and baseline one of {BASELINES}; received "
                             f"{given.candidates!r}, {baseline!r}.")
        if given.num_candidates < 1:
            raise ValueError(f"num_candidates must be at least 1; received {given.num_candidates!r}.")
        alone = given.num_candidates + given.include_reference < 2
        if alone and not (loss == "reinforce" and baseline == "running"):
            raise ValueError(f"{loss} compares candidates: num_candidates must be at least 2, or include_reference "
                             "True; of one sample, reinforce learns by baseline='running'.")
        if not 0 <= given.alpha <= 1 or not sharpness > 0 or not 0 <= baseline_decay < 1:
            raise ValueError("alpha must be in [0, 1], sharpness above 0 and baseline_decay in [0, 1); received "
                             f"{given.alpha!r}, {sharpness!r}, {baseline_decay!r}.")
        super().__init__(student, **kwargs)
        self.loss_name, self.unique, self.sharpness = loss, unique, sharpness
        self.baseline, self.baseline_decay = baseline, baseline_decay
        self.kind, self.num_candidates, self.include_reference, self.alpha = given
        self._running_reward = self.add_weight(name="running_reward", shape=(), initializer="zeros", trainable=False,
                                               aggregation="mean")

    def candidates(self, source: tf.Tensor, target: tf.Tensor) -> Candidates:
        """Those of this step for a batch [batch, S], [batch, R]."""
        return find_candidates(
            self.student, source, target, self.kind, self.num_candidates, max_length=self.max_length(target),
            seed=self.step_seed(), include_reference=self.include_reference, unique=self.unique,
            smoothing=self.smoothing)

    def learn(self, source: tf.Tensor, target: tf.Tensor) -> dict[str, tf.Tensor]:
        candidates = self.candidates(source, target)
        counted = tf.cast(candidates.counted, tf.float32)
        read = tf.concat([tf.ones_like(candidates.counted[:, :1]), candidates.counted[:, 1:]], axis=1)
        lengths = tf.math.count_nonzero(tf.not_equal(candidates.tokens, PAD), axis=-1)
        baseline = self._baseline(candidates.rewards, counted)
        with tf.GradientTape() as tape:
            log_probs = tf.reduce_sum(
                candidate_log_probs(self.student, source, candidates.tokens, read, training=True), axis=-1)
            if self.loss_name == "reinforce":
                token_loss = -log_probs[:, 0]
                losses = sequence_losses.reinforce(log_probs, candidates.rewards, tf.cast(baseline, log_probs.dtype),
                                                   candidates.counted)
            else:
                # Candidates that do not exist have no length.
                scores = tf.math.divide_no_nan(log_probs, tf.cast(lengths, log_probs.dtype))
                token_loss = -scores[:, 0]
                losses = self._of_costs(log_probs, scores, 1 - candidates.rewards, candidates.counted)
            losses = sequence_losses.mixed(token_loss, losses, self.alpha)
            loss = tf.reduce_mean(losses) + self.regularisers()
        self.descend(tape, loss)
        return {"loss": losses, "token_loss": -log_probs[:, 0],
                "reward": _mean(candidates.rewards[:, 1:], counted[:, 1:])}

    def _of_costs(self, log_probs: tf.Tensor, scores: tf.Tensor, costs: tf.Tensor, counted: tf.Tensor) -> tf.Tensor:
        if self.loss_name == "mrt":
            return sequence_losses.minimum_risk(log_probs, costs, self.sharpness, counted)
        return OF_SCORES[self.loss_name](scores, costs, counted)

    def _baseline(self, rewards: tf.Tensor, counted: tf.Tensor) -> tf.Tensor:
        """b of every sentence, [batch]; moves the running mean."""
        means = _mean(rewards, counted)
        if self.baseline == "mean":
            return means
        old, new = self._running_reward.value + 0, replica_mean(tf.reduce_mean(means))
        first = tf.equal(self._step.value, 0)  # nothing is known yet but this batch
        self._running_reward.assign(tf.where(first, new, self.baseline_decay * old + (1 - self.baseline_decay) * new))
        return tf.fill(tf.shape(means), tf.where(first, new, old))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "loss": self.loss_name, "candidates": self.kind,
                "num_candidates": self.num_candidates, "include_reference": self.include_reference,
                "alpha": self.alpha, "unique": self.unique, "sharpness": self.sharpness, "baseline": self.baseline,
                "baseline_decay": self.baseline_decay}


# name -> (student, **options) -> a Keras model to compile without a loss and to fit.
SEQUENCE_LOSSES: dict[str, Callable[..., WrappedTranslator]] = {
    **{name: functools.partial(SequenceStudent, loss=name) for name in DEFAULTS},
    "mixer": MixerStudent,
    "actor_critic": ActorCriticStudent,
}


def sequence_student(student: Translator, loss: str, **options: Any) -> WrappedTranslator:
    """The model that trains `student` by a loss of `SEQUENCE_LOSSES`.

    Args:
      student: trained in place.
      loss: a name in `SEQUENCE_LOSSES`.
      **options: of its class: `SequenceStudent`, `MixerStudent` or `ActorCriticStudent`.

    Raises:
      ValueError: for an unknown loss, an option that it does not have, or a value out of range.
    """
    if loss not in SEQUENCE_LOSSES:
        raise ValueError(f"no loss of sentences is called {loss!r}; there are {sorted(SEQUENCE_LOSSES)}.")
    build = SEQUENCE_LOSSES[loss]
    kind = build.func if isinstance(build, functools.partial) else build
    # By what they are annotated with, before "| None".
    known = {name: str(p.annotation).partition(" ")[0] for part in (kind, WrappedTranslator)
             for name, p in inspect.signature(part).parameters.items() if p.kind is p.KEYWORD_ONLY}
    if not set(options) <= set(known):
        raise ValueError(f"{loss} takes the options {sorted(known)}; received {sorted(set(options) - set(known))}.")
    for name, value in options.items():
        if value is not None:
            check_kind(name, value, known[name], loss)
    return build(student, **options)


def _mean(rewards: tf.Tensor, counted: tf.Tensor) -> tf.Tensor:
    """Over the counted candidates, [batch]."""
    return tf.math.divide_no_nan(tf.reduce_sum(rewards * counted, axis=1), tf.reduce_sum(counted, axis=1))
