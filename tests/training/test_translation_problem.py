"""What the problem of a translation student is made of, in float64."""

import numpy as np
import pytest
import sacrebleu
import tensorflow as tf

from tf_l2t.hypergradient import hypergradient, initial_state, rollout, sgd
from tf_l2t.students import AttentionLSTM, FunctionalTranslator, Transformer, previous_tokens
from tf_l2t.teachers import DiagonalTeacher
from tf_l2t.training import translation_problem as module
from tf_l2t.training.translation_problem import translation_problem
from tf_l2t.translation.batches import EncodedText
from tf_l2t.translation.decoding import greedy
from tf_l2t.translation.subwords import BOS, EOS, PAD

V, WIDTH = 8, 6
STUDENTS = {
    "lstm": lambda: AttentionLSTM(V, units=4),
    "lstm2": lambda: AttentionLSTM(V, units=4, num_layers=2, dropout=0.2),
    "unrolled": lambda: AttentionLSTM(V, units=4, unroll=True),
    "transformer": lambda: Transformer(V, 1, 4, 6, 2, dropout=0.2),
    "transformer_first": lambda: Transformer(V, 1, 4, 6, 2, tied=False, normalize_first=True),
}


def pairs(count, seed, width=WIDTH):
    rng = np.random.default_rng(seed)
    sides = []
    for _ in range(2):
        lengths = rng.integers(2, width + 1, count).astype(np.int32)
        lengths[0] = width
        ids = np.zeros((count, width), np.int32)
        for row, length in zip(ids, lengths, strict=True):
            row[:length] = [*rng.integers(4, V, length - 1), EOS]
        sides.append((ids, lengths))
    (source, source_lengths), (target, target_lengths) = sides
    return EncodedText(source, target, source_lengths, target_lengths, np.arange(count))


def new(student="lstm", form="stable", objective="log_likelihood", train=None, dev=None, optimizer=None, **options):
    """(problem, state, functional student): weights of about 0.6, so that nothing is close to linear."""
    functional = FunctionalTranslator(STUDENTS[student], dtype="float64")
    options = {"num_steps": 4, "batch_size": 3, "refresh_every": 2, "sample_size": 5} | options
    problem = translation_problem(
        functional, train or pairs(9, 0), dev or pairs(6, 1), form=form, objective=objective,
        optimizer=optimizer or sgd(0.3, momentum=0.5), **options)
    params, non_trainable = functional.init(0)
    rng = np.random.default_rng(0)
    params = tuple(w + 0.6 * rng.standard_normal(w.shape) for w in params)
    return problem, initial_state(problem, params, non_trainable), functional


def teacher(form="stable"):
    return DiagonalTeacher(V, 3, num_keys=2, loss=form)


def narrow_shapes(monkeypatch):
    """What `Problem.loss_fn` is really given, by a print in the graph."""
    seen = []
    taught = module.taught_token_loss

    def spied(labels, *arguments):
        with tf.control_dependencies([tf.py_function(lambda x: seen.append(x.shape[1]), [labels], [])]):
            return taught(tf.identity(labels), *arguments)

    monkeypatch.setattr(module, "taught_token_loss", spied)
    return seen


@pytest.mark.parametrize(("student", "hvp"), [
    ("lstm", "reverse_over_reverse"), ("transformer_first", "forward_over_reverse")])
def test_narrowing_changes_nothing(student, hvp):
    """Without dropout, whose masks are drawn in the shapes of the batch. M, dM/dθ and dM/dω_0 to float64's rounding."""
    problem, state, _ = new(student, train=pairs(12, 5, 9), batch_size=2)
    narrowed, whole = (hypergradient(p, teacher(), hvp=hvp, jit=False)(state, 3)
                       for p in (problem, problem._replace(narrow_fn=None)))
    assert float(narrowed.objective) == pytest.approx(float(whole.objective), rel=1e-12)
    left, right = ([*r.gradient, *r.adjoint.params] for r in (narrowed, whole))
    assert max(np.abs(g).max() for g in narrowed.gradient) > 1e-3
    for a, b in zip(left, right, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_a_batch_is_cut_to_its_longest_sentence_of_either_side(monkeypatch):
    train = pairs(12, 5, 9)
    problem, state, _ = new(train=train, batch_size=2, num_steps=6)
    seen, expected = narrow_shapes(monkeypatch), []
    for step in range(6):
        batch = problem.batch_fn(tf.constant(3, tf.int64), tf.constant(step))
        assert batch.source.shape == batch.target.shape == (2, 9)
        narrowed = problem.narrow_fn(batch)
        for ids, whole in zip(narrowed, batch, strict=True):
            assert ids.shape[1] == np.count_nonzero(whole, axis=1).max()
            np.testing.assert_array_equal(ids, whole[:, :ids.shape[1]])
            assert not whole[:, ids.shape[1]:].numpy().any()
        expected.append(int(narrowed.target.shape[1]))
    assert len(set(expected)) > 1 and min(expected) < 9
    run = rollout(problem, lambda features: tf.fill([V], tf.constant(0.1, tf.float64)), jit=False)
    run(state, 3)
    assert seen[-6:] == expected
    assert new("unrolled")[0].narrow_fn is None


def by_sacrebleu(functional, state, text, count):
    """Corpus BLEU of greedy translations of the first pairs, in [0, 1]."""
    for weight, value in zip(functional.model.trainable_variables, state.params, strict=True):
        weight.assign(value)
    source = text.source[:count]
    lengths = (source != PAD).sum(axis=1)
    found = greedy(functional.model, tf.constant(source), lengths + lengths // 2 + 10).numpy()
    lines = [" ".join(str(i) for i in row[:row.tolist().index(EOS) if EOS in row else len(row)] if i != PAD)
             for row in found]
    references = [" ".join(str(i) for i in row if i not in (EOS, PAD)) for row in text.target[:count]]
    return sacrebleu.BLEU(tokenize="none", force=True).corpus_score(lines, [references]).score / 100


@pytest.mark.parametrize("student", ["lstm", "transformer"])
def test_the_status_is_progress_and_sacrebleus_bleu_of_greedy_translations(student):
    train, dev = pairs(9, 0), pairs(7, 1)
    problem, state, functional = new(student, train=train, dev=dev, num_steps=3, sample_size=7)

    def apply(features):
        return tf.fill([V], tf.constant(0.1, tf.float64)) + 0 * features[0]

    features = rollout(problem, apply, trace=("features",), jit=False)(state, 3).trace["features"].numpy()
    assert features.shape == (3, 3)
    for step in range(3):
        measured = step - step % 2  # held in between
        then = rollout(problem._replace(num_steps=measured), apply, jit=False)(state, 3).final_state if measured \
            else state
        expected = [measured / 3, by_sacrebleu(functional, then, train, 7), by_sacrebleu(functional, then, dev, 7)]
        np.testing.assert_allclose(features[step], expected, rtol=0, atol=1e-6)
    assert len(set(features[::2, 1])) > 1 and features[:, 1:].max() > 0.01


def test_the_loss_of_a_batch_is_the_mean_of_its_sentences():
    """At the stable form, by hand: −40 σ(Φ_y log p_y)."""
    problem, state, functional = new("lstm")
    phi = np.random.default_rng(3).uniform(0.05, 0.3, V)
    batch = problem.batch_fn(tf.constant(0, tf.int64), tf.constant(0))
    output = problem.loss(state.params, state.non_trainable, batch, tf.constant(phi))
    logits = functional.apply(state.params, state.non_trainable,
                              (batch.source, previous_tokens(batch.target, BOS)), False)[0]
    log_p = tf.nn.log_softmax(logits).numpy()
    total = sum(-40 / (1 + np.exp(-phi[y] * log_p[b, t, y]))
                for b, row in enumerate(batch.target.numpy()) for t, y in enumerate(row) if y != PAD)
    assert float(output.loss) == pytest.approx(total / 3, rel=1e-12)


@pytest.mark.parametrize(("options", "match"), [
    ({"objective": "bleu"}, "log_expected_bleu"),
    ({"num_steps": 0}, "num_steps"),
    ({"sample_size": 0}, "sample_size"),
    ({"refresh_every": 0}, "refresh_every"),
    ({"batch_size": 10}, "9 pairs"),
])
def test_bad_arguments(options, match):
    with pytest.raises(ValueError, match=match):
        new(**options)
