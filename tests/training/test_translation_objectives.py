"""M of translation students, in float64: values by second formulas, derivatives by finite differences."""

import numpy as np
import pytest
import tensorflow as tf

from tests.training.test_translation_problem import V, new, pairs
from tf_l2t.students import previous_tokens
from tf_l2t.training.translation_objectives import (
    CANDIDATES,
    OBJECTIVES,
    PART,
    greedy_statistics,
    objective_of,
    reference_statistics,
)
from tf_l2t.translation.batches import TokenPair
from tf_l2t.translation.bleu import ngram_statistics, sentence_bleu
from tf_l2t.translation.decoding import beam_search, greedy, length_limits, sample
from tf_l2t.translation.expected_bleu import expected_corpus_bleu, relaxed_corpus_bleu
from tf_l2t.translation.subwords import BOS, PAD

DEV = pairs(10, 4)


def with_weights(functional, params):
    for weight, value in zip(functional.model.trainable_variables, params, strict=True):
        weight.assign(value)
    return functional.model


def log_softmax(model, source, target):
    logits = model((source, previous_tokens(tf.constant(target), BOS))).numpy()
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def candidate_figures(model, dev, tokens):
    """log p and sentence BLEU of candidates [n, K, T], one by one."""
    log_probs, rewards = np.zeros(tokens.shape[:2]), np.zeros(tokens.shape[:2])
    for k in range(tokens.shape[1]):
        read = log_softmax(model, dev.source, tokens[:, k])
        of_tokens = np.take_along_axis(read, tokens[:, k, :, None], axis=-1)[..., 0]
        log_probs[:, k] = np.where(tokens[:, k] != PAD, of_tokens, 0).sum(axis=1)
        rewards[:, k] = sentence_bleu(ngram_statistics(tokens[:, k], dev.target))
    return log_probs, rewards


def by_hand(objective, functional, params, dev):
    model = with_weights(functional, params)
    real, limits = dev.target != PAD, length_limits(dev.source)
    if objective == "log_likelihood":
        read = log_softmax(model, dev.source, dev.target)
        return np.take_along_axis(read, dev.target[..., None], axis=-1)[..., 0][real].sum() / real.sum()
    if objective == "n_best_bleu":
        beams = beam_search(model, dev.source, limits, CANDIDATES)
        log_probs, rewards = candidate_figures(model, dev, beams.tokens.numpy())
        weights = np.exp(log_probs - log_probs.max(axis=1, keepdims=True))
        return float((weights / weights.sum(axis=1, keepdims=True) * rewards).sum(axis=1).mean())
    if objective == "sampled_bleu":
        seed = tf.constant([CANDIDATES, dev.source.sum()], tf.int32)
        drawn = sample(model, dev.source, limits, CANDIDATES, seed).numpy()
        return float(candidate_figures(model, dev, drawn)[1].mean())
    own = "greedy" in objective or "sharp" in objective
    prefix = greedy(model, dev.source, limits).numpy() if own else dev.target
    read = log_softmax(model, dev.source, prefix) * (5 if "sharp" in objective else 1)
    return float(expected_corpus_bleu(tf.constant(read), dev.target, prefix != PAD, log=objective.startswith("log")))


def value_and_gradient(function, params):
    with tf.GradientTape() as tape:
        tape.watch(params)
        value = function(params)
    found = tape.gradient(value, params, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return float(value), [tf.convert_to_tensor(g).numpy() for g in found]


@pytest.mark.parametrize("student", ["lstm", "transformer"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_values(objective, student):
    problem, state, functional = new(student, objective=objective, dev=DEV)
    found = float(problem.objective_fn(state.params, state.non_trainable))
    # Rewards are float32's, everything else float64's.
    assert found == pytest.approx(by_hand(objective, functional, state.params, DEV),
                                  rel=1e-6 if objective in ("n_best_bleu", "sampled_bleu") else 1e-12)
    if objective != "log_likelihood":
        assert found < 0 if objective.startswith("log") else 1e-4 < found < 1


@pytest.mark.parametrize("objective", [name for name in OBJECTIVES if name != "sampled_bleu"])
def test_gradients_are_those_of_finite_differences(objective):
    """Along three directions; decoded prefixes and candidates stay what they are on so short a way."""
    problem, state, _ = new("lstm", objective=objective, dev=DEV)

    def value(params):
        return problem.objective_fn(params, state.non_trainable)

    _, gradient = value_and_gradient(value, state.params)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        direction = [rng.standard_normal(w.shape) for w in state.params]
        h = 1e-5
        ahead, behind = (float(value(tuple(w + sign * h * d for w, d in zip(state.params, direction, strict=True))))
                         for sign in (1, -1))
        expected = (ahead - behind) / (2 * h)
        assert abs(expected) > 1e-4
        found = sum((g * d).sum() for g, d in zip(gradient, direction, strict=True))
        assert found == pytest.approx(expected, rel=1e-6)


def test_the_gradient_of_sampled_bleu_is_reinforce():
    """1 / (n K) Σ (R − mean of the others) ∂ log p, with log p read by Keras."""
    _, state, functional = new("lstm", dev=DEV)
    _, found = value_and_gradient(lambda params: objective_of(functional, DEV, "sampled_bleu")(
        params, state.non_trainable), state.params)
    model = with_weights(functional, state.params)
    seed = tf.constant([CANDIDATES, DEV.source.sum()], tf.int32)
    drawn = sample(model, DEV.source, length_limits(DEV.source), CANDIDATES, seed).numpy()
    _, rewards = candidate_figures(model, DEV, drawn)
    advantage = (rewards - (rewards.sum(axis=1, keepdims=True) - rewards) / (CANDIDATES - 1)) / rewards.size
    with tf.GradientTape() as tape:
        total = 0.0
        for k in range(CANDIDATES):
            logits = model((DEV.source, previous_tokens(tf.constant(drawn[:, k]), BOS)))
            read = tf.gather(tf.nn.log_softmax(logits), drawn[:, k], batch_dims=2)
            total += tf.reduce_sum(tf.where(drawn[:, k] != PAD, read, 0) * advantage[:, k, None])
    expected = tape.gradient(total, model.trainable_variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    assert max(np.abs(g).max() for g in found) > 1e-3
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, tf.convert_to_tensor(b), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("objective", [name for name in OBJECTIVES if name != "sampled_bleu"])
def test_many_pairs_in_parts_are_those_at_once(objective):
    """Value and gradient, of more pairs than a part has and no multiple of it."""
    dev = pairs(PART + 5, 4)
    problem, state, functional = new("lstm", objective=objective, dev=dev)
    rows, measure = OBJECTIVES[objective]

    def at_once(params):
        return measure(rows(functional, params, state.non_trainable, TokenPair(*map(tf.constant, dev[:2]))))

    found, gradient = value_and_gradient(lambda params: problem.objective_fn(params, state.non_trainable), state.params)
    expected, expected_gradient = value_and_gradient(at_once, state.params)
    assert found == pytest.approx(expected, rel=1e-12)
    largest = max(np.abs(g).max() for g in expected_gradient)
    assert largest > 1e-3
    for a, b in zip(gradient, expected_gradient, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12 * largest)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_dropout_plays_no_part(objective):
    dropped, state, _ = new("lstm2", objective=objective, dev=DEV)
    values = [float(dropped.objective_fn(state.params, n)) for n in (
        state.non_trainable, tuple(n + 1 for n in state.non_trainable))]
    assert values[0] == values[1]


@pytest.mark.parametrize("rows", [reference_statistics, greedy_statistics])
def test_statistics_of_parts_are_put_together(rows):
    _, state, functional = new("lstm", dev=DEV)
    parts = [TokenPair(tf.constant(DEV.source[part]), tf.constant(DEV.target[part]))
             for part in (slice(None), slice(0, 4), slice(4, None))]
    whole, first, second = (rows(functional, state.params, state.non_trainable, part).numpy() for part in parts)
    np.testing.assert_allclose(np.concatenate([first, second]), whole, rtol=1e-10)
    np.testing.assert_allclose(whole[:, 9], DEV.target_lengths - 1)
    assert float(relaxed_corpus_bleu(whole)) > 1e-3 and whole.shape == (10, 11) and len(set(DEV.target.ravel())) < V


def test_an_unknown_objective_is_refused():
    with pytest.raises(ValueError, match="log_greedy_expected_bleu"):
        objective_of(new()[2], DEV, "bleu")
