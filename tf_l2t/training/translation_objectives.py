"""What the teacher of a translation student maximises: M, measured on dev pairs."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from tf_l2t.hypergradient.state import Tensors
from tf_l2t.students import FunctionalTranslator, Translator, previous_tokens
from tf_l2t.training.candidates import candidate_log_probs, find_candidates
from tf_l2t.training.parts import in_parts
from tf_l2t.translation.batches import EncodedText, TokenPair
from tf_l2t.translation.decoding import greedy, length_limits
from tf_l2t.translation.expected_bleu import expected_ngram_statistics, relaxed_corpus_bleu
from tf_l2t.translation.sampled_bleu import sampled_bleu_objective
from tf_l2t.translation.subwords import BOS, PAD
from tf_l2t.translation.token_losses import token_log_probs

SHARPNESS = 5.0  # of the sharpened distributions
PART = 64  # dev pairs whose logits are in memory at a time
CANDIDATES = 5  # of a sentence, of the objectives over candidates


class Objective(NamedTuple):
    """M is `measure` of the rows of all dev pairs, each of which `rows` finds from its own pair.

    Attributes:
      rows: (student, params, non_trainable, pair) -> [pairs, K].
      measure: [pairs, K] -> a scalar.
    """

    rows: Callable[[FunctionalTranslator, Tensors, Tensors, TokenPair], tf.Tensor]
    measure: Callable[[tf.Tensor], tf.Tensor]


def reference_statistics(student: FunctionalTranslator, params: Tensors, non_trainable: Tensors, pair: TokenPair
                         ) -> tf.Tensor:
    """`expected_ngram_statistics` of the distributions behind the reference's prefixes, [pairs, 11]."""
    logits = _logits(student, params, non_trainable, pair.source, pair.target)
    return expected_ngram_statistics(logits, pair.target, tf.not_equal(pair.target, PAD))


def greedy_statistics(student: FunctionalTranslator, params: Tensors, non_trainable: Tensors, pair: TokenPair
                      ) -> tf.Tensor:
    """The same behind the prefixes of the student's own greedy translation, which is not differentiated."""
    found = student.using(*_fixed(params, non_trainable), greedy, pair.source, length_limits(pair.source))
    logits = _logits(student, params, non_trainable, pair.source, found)
    return expected_ngram_statistics(logits, pair.target, tf.not_equal(found, PAD))


def sharp_statistics(student: FunctionalTranslator, params: Tensors, non_trainable: Tensors, pair: TokenPair
                     ) -> tf.Tensor:
    """The same of the distributions p^k / Σ p^k, k = SHARPNESS.

    Expected BLEU rises when a student merely becomes surer of what it says, which changes none of its translations.
    Near to one-hot distributions it is BLEU of the greedy translation, but for what a change does to later prefixes.
    """
    found = student.using(*_fixed(params, non_trainable), greedy, pair.source, length_limits(pair.source))
    logits = SHARPNESS * _logits(student, params, non_trainable, pair.source, found)
    return expected_ngram_statistics(logits, pair.target, tf.not_equal(found, PAD))


def likelihoods(student: FunctionalTranslator, params: Tensors, non_trainable: Tensors, pair: TokenPair) -> tf.Tensor:
    """log p(y | x) and |y| of every pair, its end counted, [pairs, 2]."""
    log_probs = token_log_probs(pair.target, _logits(student, params, non_trainable, pair.source, pair.target))
    length = tf.math.count_nonzero(tf.not_equal(pair.target, PAD), axis=-1, dtype=log_probs.dtype)
    return tf.stack([tf.reduce_sum(log_probs, axis=-1), length], axis=-1)


def n_best(student: FunctionalTranslator, params: Tensors, non_trainable: Tensors, pair: TokenPair) -> tf.Tensor:
    """log p, sentence BLEU and whether there is one, of the candidates of a beam search, [pairs, 3 K]."""
    return _candidate_rows(student, params, non_trainable, pair, "beam")


def samples(student: FunctionalTranslator, params: Tensors, non_trainable: Tensors, pair: TokenPair) -> tf.Tensor:
    """The same of samples. A pair draws the same ones for the same weights, however often it is looked at."""
    return _candidate_rows(student, params, non_trainable, pair, "samples")


def _candidate_rows(student: FunctionalTranslator, params: Tensors, non_trainable: Tensors, pair: TokenPair, kind: str
                    ) -> tf.Tensor:
    seed = tf.stack([CANDIDATES, tf.reduce_sum(pair.source)])  # another one for other pairs

    def found(model: Translator) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        candidates = find_candidates(model, pair.source, pair.target, kind, CANDIDATES, seed=seed,
                                     max_length=length_limits(pair.source), unique=kind == "beam")
        return tuple(tf.stop_gradient(x[:, 1:]) for x in candidates)  # but the reference

    tokens, counted, rewards = student.using(*_fixed(params, non_trainable), found)
    log_probs = student.using(params, non_trainable, candidate_log_probs, pair.source, tokens)
    parts = [tf.reduce_sum(log_probs, axis=-1), *(tf.cast(x, log_probs.dtype) for x in (rewards, counted))]
    return tf.concat([tf.ensure_shape(x, [None, CANDIDATES]) for x in parts], axis=1)


def _n_best_bleu(rows: tf.Tensor) -> tf.Tensor:
    log_probs, rewards, counted = tf.split(rows, 3, axis=1)
    return sampled_bleu_objective(log_probs, rewards, "n_best", valid=counted > 0)


def _sampled_bleu(rows: tf.Tensor) -> tf.Tensor:
    log_probs, rewards, _ = tf.split(rows, 3, axis=1)
    return sampled_bleu_objective(log_probs, rewards, "score_function")


def _mean_log_likelihood(rows: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(rows[:, 0]) / tf.reduce_sum(rows[:, 1])


def _log_bleu(rows: tf.Tensor) -> tf.Tensor:
    return relaxed_corpus_bleu(rows, log=True)


OBJECTIVES = {
    "expected_bleu": Objective(reference_statistics, relaxed_corpus_bleu),
    "log_expected_bleu": Objective(reference_statistics, _log_bleu),
    "greedy_expected_bleu": Objective(greedy_statistics, relaxed_corpus_bleu),
    "log_greedy_expected_bleu": Objective(greedy_statistics, _log_bleu),
    "log_sharp_expected_bleu": Objective(sharp_statistics, _log_bleu),
    "n_best_bleu": Objective(n_best, _n_best_bleu),
    "sampled_bleu": Objective(samples, _sampled_bleu),
    "log_likelihood": Objective(likelihoods, _mean_log_likelihood),
}


# Those whose sentences are as long as the references, whatever the student says.
OF_REFERENCES = (reference_statistics, likelihoods)


def check_objective(objective: str) -> None:
    """Raises ValueError for an objective that is not in `OBJECTIVES`."""
    if objective not in OBJECTIVES:
        raise ValueError(f"objective must be one of {sorted(OBJECTIVES)}; received {objective!r}.")


def objective_of(student: FunctionalTranslator, dev: EncodedText, objective: str) -> Callable[..., tf.Tensor]:
    """M on all of `dev`, which is looked at in parts: (params, non_trainable) -> a scalar.

    "expected_bleu": `relaxed_corpus_bleu` of the student's distributions behind the reference's prefixes (teacher
    forcing), "log_expected_bleu" its logarithm. "greedy_expected_bleu", "log_greedy_expected_bleu": the same behind
    the prefixes of the student's greedy translation; "log_sharp_expected_bleu": there, of p^5 / Σ p^5. "n_best_bleu":
    expected sentence BLEU over the candidates of a beam search; "sampled_bleu": over samples
    (`sampled_bleu_objective`), as many. "log_likelihood": log p of the references, per subword.

    Raises:
      ValueError: for another objective.

    Source: L2T-DLF, section 3.3 (expectation of the dev measure) and 4.2.
    """
    check_objective(objective)
    rows, measure = OBJECTIVES[objective]
    width = dev.source.shape[1]
    pairs = tf.concat([dev.source, dev.target], axis=1)
    of_all = in_parts(lambda params, non_trainable, x: rows(student, params, non_trainable,
                                                            TokenPair(x[:, :width], x[:, width:])), PART)
    return lambda params, non_trainable: measure(of_all(params, non_trainable, pairs))


def _logits(student: FunctionalTranslator, params: Tensors, non_trainable: Tensors, source: tf.Tensor,
            target: tf.Tensor) -> tf.Tensor:
    inputs = (source, previous_tokens(target, BOS))
    return student.apply(params, non_trainable, inputs, training=False)[0]


def _fixed(params: Tensors, non_trainable: Tensors) -> tuple[Tensors, Tensors]:
    return tuple(tf.stop_gradient(w) for w in params), non_trainable
