"""Losses of sentences as Keras models: gradients by hand from the same candidates, what they learn, going on."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_l2t.students import AttentionLSTM, Transformer, previous_tokens
from tf_l2t.training.actor_critic import ActorCriticStudent
from tf_l2t.training.candidates import candidate_log_probs, find_candidates, sampled_after
from tf_l2t.training.mixer_student import MixerStudent, cross_entropy_positions
from tf_l2t.training.sequence_student import DEFAULTS, OF_SCORES, SEQUENCE_LOSSES, SequenceStudent, sequence_student
from tf_l2t.training.translator_fit import translation_dataset
from tf_l2t.translation import BOS, EOS, PAD, TokenLoss, greedy, ngram_statistics, sample, sentence_bleu

V, WIDTH = 10, 6
STUDENTS = {"lstm": lambda **options: AttentionLSTM(V, 16, **options),
            "transformer": lambda **options: Transformer(V, 1, 16, 32, 2, **options)}
STUDENT = pytest.mark.parametrize("kind", STUDENTS)


def reversing(seed, step, size=8, longest=4):
    """Sources of 2 … longest tokens, and the same backwards; every other batch is padded further."""
    key = tf.stack([tf.cast(seed, tf.int32), tf.cast(step, tf.int32)])
    lengths = tf.random.stateless_uniform([size, 1], key, 2, longest + 1, tf.int32)
    tokens = tf.random.stateless_uniform([size, longest], key + 1, 4, V, tf.int32)
    real = tf.sequence_mask(lengths[:, 0], longest)
    source, target = tf.where(real, tokens, PAD), tf.reverse_sequence(tf.where(real, tokens, PAD), lengths[:, 0], 1)
    end = EOS * tf.one_hot(lengths[:, 0], WIDTH + 2, dtype=tf.int32)
    width = WIDTH + 2 * tf.cast(tf.cast(step, tf.int32) % 2, tf.int32)
    return tuple((tf.pad(x, [[0, 0], [0, WIDTH + 2 - longest]]) + end)[:, :width] for x in (source, target))


def batch(step=0, size=3, seed=0):
    source, target = reversing(seed, step, size)
    return (source, previous_tokens(target, BOS)), target


def student(kind="lstm", seed=1, **options):
    """Far from uniform, so that every part of a gradient shows."""
    keras.utils.set_random_seed(seed)
    made = STUDENTS[kind](**options)
    for i, v in enumerate(made.trainable_variables):
        v.assign_add(tf.random.stateless_normal(v.shape, [seed, i], stddev=0.3))
    return made


def stepped(model, data):
    """(what a step of SGD(1) subtracts from the student, logs)."""
    model.compile(optimizer=keras.optimizers.SGD(1.0))
    before = [v.numpy() for v in model.student.trainable_variables]
    logs = model.train_step(data)
    return [b - v.numpy() for b, v in zip(before, model.student.trainable_variables, strict=True)], logs


def log_probs_of(net, source, sequences):
    """log p of the tokens of sequences [batch, K, T], each read with a source of its own, 0 at padding."""
    batch, size, length = sequences.shape
    tokens = tf.reshape(sequences, [-1, length])
    logits = net((tf.repeat(source, size, axis=0), previous_tokens(tokens, BOS)))
    log_probs = tf.reduce_sum(tf.nn.log_softmax(logits) * tf.one_hot(tokens, V), -1)
    return tf.reshape(tf.where(tokens == PAD, 0.0, log_probs), [batch, size, length])


def gradient_of(net, source, sequences, weights):
    """∂ Σ weight · log p, over sequences [batch, K, T] and weights, one for each or [batch, K, T]."""
    weights = weights if weights.ndim == 3 else weights[..., None]
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(log_probs_of(net, source, sequences) * np.float32(weights))
    found = tape.gradient(total, [v.value for v in net.trainable_variables])
    return [tf.convert_to_tensor(g).numpy() for g in found]


def assert_same(found, expected, atol=3e-6):
    assert max(np.abs(e).max() for e in expected) > 1e-3
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=atol)


def softmax(s):
    return np.exp(s - s.max()) / np.exp(s - s.max()).sum()


def one_hot(size, index):
    return np.eye(size)[index]


# name -> d loss / d log p of a sentence's counted candidates: log p, lengths, rewards
SLOPES = {
    "reinforce": lambda p, n, r: -(r - r.mean()),
    "mrt": lambda p, n, r: 0.005 * softmax(0.005 * p) * ((1 - r) - (softmax(0.005 * p) * (1 - r)).sum()),
    "risk": lambda p, n, r: softmax(p / n) * ((1 - r) - (softmax(p / n) * (1 - r)).sum()) / n,
    "softmax_margin": lambda p, n, r: (softmax(p / n + 1 - r) - one_hot(len(r), r.argmax())) / n,
    "sequence_nll": lambda p, n, r: (softmax(p / n) - one_hot(len(r), r.argmax())) / n,
    "max_margin": lambda p, n, r: (one_hot(len(r), (p / n + 1 - r).argmax()) - one_hot(len(r), r.argmax())) / n,
}


@pytest.mark.parametrize(("name", "kind"), [*((name, "lstm") for name in SLOPES), ("risk", "transformer")])
def test_a_step_is_the_gradient_by_hand(name, kind):
    # mrt's own part is so flat that any token loss would hide it.
    alpha, reference = {"reinforce": (0.25, False), "mrt": (0.0, True)}.get(name, (0.4, name == "risk"))
    model = SequenceStudent(student(kind), name, num_candidates=4, alpha=alpha, include_reference=reference,
                            extra_length=1, seed=5)
    data = batch()
    (source, _), target = data
    found = model.candidates(source, target)
    tokens, counted, rewards = (x.numpy() for x in found)
    assert counted.sum(axis=1).min() >= 2 and (counted[:, 0] == reference).all()
    lengths = (tokens != PAD).sum(axis=2)
    log_p = log_probs_of(model.student, source, tokens).numpy().sum(axis=2)
    weights = np.zeros(counted.shape)
    for b, c in enumerate(counted):
        weights[b, c] = (1 - alpha) * SLOPES[name](log_p[b, c], lengths[b, c], rewards[b, c])
    weights[:, 0] -= alpha if name == "reinforce" else alpha / lengths[:, 0]
    expected = gradient_of(model.student, source, tokens, weights / len(tokens))
    difference, logs = stepped(model, data)
    scale = 1000 if name == "mrt" else 1
    if name == "mrt":  # rounding of the weights themselves is 1e-8
        for a, b in zip(difference, expected, strict=True):
            np.testing.assert_allclose(a, b, atol=1.5e-7)
        assert max(np.abs(e).max() for e in expected) * scale > 0.01
    else:
        assert_same(difference, expected)
    np.testing.assert_allclose(logs["token_loss"], -log_p[:, 0].mean(), rtol=1e-4)
    of_found = [r[1:][c[1:]].mean() for r, c in zip(rewards, counted, strict=True)]
    np.testing.assert_allclose(logs["reward"], np.mean(of_found), rtol=1e-5)
    assert model.step == 1


@STUDENT
def test_log_probs_of_candidates_are_those_of_decoding(kind):
    net = student(kind)
    source, _ = reversing(0, 0, 3)
    tokens = sample(net, source, 7, 4, tf.constant([1, 2]))
    wanted = np.ones([3, 4], bool)
    wanted[1, 2] = False
    found = candidate_log_probs(net, source, tokens, tf.constant(wanted)).numpy()
    memory = net.encode(source)
    for k in range(4):
        state, last = net.start(memory, 7), tf.fill([3], BOS)
        for t in range(7):
            logits, state = net.step(memory, state, last, tf.constant(t))
            last = tokens[:, k, t]
            expected = tf.gather(tf.nn.log_softmax(logits), last, batch_dims=1).numpy()
            real = (last.numpy() != PAD) & wanted[:, k]
            np.testing.assert_allclose(found[:, k, t], np.where(real, expected, 0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("include", [True, False])
def test_equal_candidates_and_the_reference_count_once(include):
    net = student()
    net.logits_bias.assign(8.0 * np.isin(np.arange(V), [EOS, 5]))
    source = tf.constant([[4, 6, EOS, PAD]] * 4)
    target = tf.constant([[5, EOS, PAD, PAD, PAD], [6, 7, 8, EOS, PAD]] * 2)
    options = {"max_length": 3, "seed": tf.constant([0, 1]), "include_reference": include}
    found = find_candidates(net, source, target, "samples", 8, **options)
    for row, counted, rewards, reference in zip(*(x.numpy() for x in found), target.numpy(), strict=True):
        np.testing.assert_array_equal(row[0, :4], reference[:4])
        seen = [tuple(row[0])] if include else []
        assert counted[0] == include and rewards[0] == pytest.approx(1)
        for u, c, r in zip(row[1:], counted[1:], rewards[1:], strict=True):
            assert c == (tuple(u) not in seen)
            seen.append(tuple(u))
            np.testing.assert_allclose(r, sentence_bleu(ngram_statistics(u[None], reference[None]))[0], rtol=1e-6)
        assert not counted[1:].all()
    assert found.tokens.shape[2] == 4  # of the longest reference: no sample is longer
    assert find_candidates(net, source, target, "samples", 8, unique=False, **options).counted[:, 1:].numpy().all()


def test_a_beam_wider_than_what_there_is():
    (source, _), target = batch()
    found = find_candidates(student(), source, target, "beam", 16, max_length=1, seed=None)
    np.testing.assert_array_equal(found.counted.numpy().sum(axis=1), [V - 2] * 3)  # all but padding and start
    model = SequenceStudent(student(), "risk", num_candidates=16, extra_length=0)
    target = target[:, :1]
    difference, logs = stepped(model, ((source, previous_tokens(target, BOS)), target))
    assert np.isfinite(logs["loss"]) and all(np.isfinite(d).all() for d in difference)


def test_running_baseline():
    model = SequenceStudent(student(), "reinforce", num_candidates=1, baseline="running", baseline_decay=0.75)
    means = []
    for i in range(2):
        (source, _), target = data = batch(i)
        tokens, _, rewards = model.candidates(source, target)
        baseline = np.mean(rewards[:, 1]) if i == 0 else means[-1]
        slopes = -(rewards[:, 1:].numpy() - baseline) / len(tokens)
        expected = gradient_of(model.student, source, tokens.numpy()[:, 1:], slopes)
        assert_same(stepped(model, data)[0], expected)
        new = np.mean(rewards[:, 1])
        means.append(new if i == 0 else 0.75 * means[-1] + 0.25 * new)


# --- MIXER ----------------------------------------------------------------------------------------------------------


def test_the_positions_of_mixer_fall_with_the_step():
    counts = [int(cross_entropy_positions(tf.constant(step), 7, 3, 2)) for step in range(14)]
    assert counts == [7, 7, 7, 5, 5, 5, 3, 3, 3, 1, 1, 1, 0, 0]


@STUDENT
def test_samples_go_on_from_the_reference(kind):
    net = student(kind)
    source, target = reversing(0, 0, 6)
    seen = set()
    for count in (0, 1, 3, 8):
        tokens = sampled_after(net, source, target, count, max_length=8, seed=tf.constant([3, 4])).numpy()
        for row, reference in zip(tokens, target.numpy(), strict=True):
            length = int((reference != PAD).sum())
            np.testing.assert_array_equal(row[:min(count, length)], reference[:min(count, length)])
            if count >= length:
                assert (row[length:] == PAD).all()
        seen.add(tuple(tokens[:, :2].ravel()))
    free = sampled_after(net, source, target, 0, max_length=8, seed=tf.constant([3, 4]))
    np.testing.assert_array_equal(free, sample(net, source, 8, 1, tf.constant([3, 4]))[:, 0, :free.shape[1]])
    assert len(seen) > 1


def test_a_step_of_mixer_is_the_gradient_by_hand():
    model = MixerStudent(student(), first_positions=3, positions_by=1, positions_every=1, seed=2,
                         baseline_optimizer=keras.optimizers.SGD(1.0))
    rng = np.random.default_rng(0)
    kernel, bias = (next(v for v in model.weights if v.name == name) for name in ("baseline_kernel", "baseline_bias"))
    assert kernel.shape == (16, 1)
    kernel.assign(0.1 * rng.standard_normal((16, 1)))
    model._step.assign(1)
    positions = model.positions
    assert positions == 2
    (source, _), target = data = batch()
    tokens = model.translations(source, target)
    rewards = sentence_bleu(ngram_statistics(tokens, target)).numpy()
    hidden = model.student.last_hidden(model.student.encode(source), previous_tokens(tokens, BOS)).numpy()
    before, real = (kernel.numpy(), bias.numpy()), tokens.numpy() != PAD
    advantages = rewards[:, None] - ((hidden @ before[0])[..., 0] + before[1])
    sampled = np.arange(tokens.shape[1]) >= positions
    weights = -np.where(sampled, advantages, 1.0)[:, None] / len(rewards)
    expected = gradient_of(model.student, source, tokens.numpy()[:, None], weights)
    difference, logs = stepped(model, data)
    assert_same(difference, expected)
    errors = np.where(sampled & real, -2 * advantages, 0) / len(rewards)
    np.testing.assert_allclose(before[0][:, 0] - kernel.numpy()[:, 0], (errors[..., None] * hidden).sum((0, 1)),
                               rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(before[1] - bias.numpy(), errors.sum(), rtol=1e-4)
    assert logs["positions"] == positions


# --- Actor-critic ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "delayed"), [("lstm", True), ("transformer", False)])
def test_a_step_of_actor_critic_by_hand(kind, delayed):
    net = student(kind)
    model = ActorCriticStudent(net, critic=student(kind, 7), critic_steps=0, target_rate=0.25, mle_weight=0.3,
                               delayed_actor=delayed, critic_optimizer=keras.optimizers.SGD(1.0), penalty=0.01)
    for slow in (model._slow_critic, model._slow_actor) if delayed else (model._slow_critic,):
        for i, v in enumerate(slow.trainable_variables):
            v.assign_add(tf.random.stateless_normal(v.shape, [9, i], stddev=0.1))
    slow_before = [v.numpy() for v in model._slow_critic.trainable_variables]
    critic = model.critic.trainable_variables
    critic_before = [v.numpy() for v in critic]
    (source, _), target = data = batch()
    tokens = model.translations(source, target)
    previous, ids = previous_tokens(tokens, BOS), tokens.numpy()
    probs = tf.nn.softmax((model._slow_actor or net)((source, previous))).numpy()
    slow_q = model._slow_critic((target, previous)).numpy()
    targets = np.zeros(ids.shape, np.float32)
    bleu = lambda u, y: float(sentence_bleu(ngram_statistics(u[None], y[None]))[0])  # noqa: E731
    for b, row in enumerate(ids):
        length = (row != PAD).sum()
        for t in range(length):
            targets[b, t] = bleu(row[:t + 1], target[b].numpy()) - (bleu(row[:t], target[b].numpy()) if t else 0)
            if t + 1 < length:
                targets[b, t] += probs[b, t + 1] @ slow_q[b, t + 1]
    real = (ids != PAD).astype(np.float32)
    with tf.GradientTape() as tape:
        q = model.critic((target, previous))
        errors = (tf.reduce_sum(q * tf.one_hot(ids, V), -1) - targets) ** 2
        spread = V * tf.math.reduce_variance(q, axis=-1)
        critic_loss = tf.reduce_sum(real * (errors + 0.01 * spread)) / 3
    of_critic = [tf.convert_to_tensor(g).numpy() for g in tape.gradient(critic_loss, [v.value for v in critic])]
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(real[..., None] * tf.nn.softmax(net((source, previous))) * q.numpy())
        likelihood = tf.reduce_sum(log_probs_of(net, source, target[:, tf.newaxis]))
        loss = -(value + 0.3 * likelihood) / 3
    of_actor = [tf.convert_to_tensor(g).numpy() for g in
                tape.gradient(loss, [v.value for v in net.trainable_variables])]
    difference, logs = stepped(model, data)
    assert_same(difference, of_actor, 1e-5)
    assert_same([b - v.numpy() for b, v in zip(critic_before, critic, strict=True)], of_critic, 1e-5)
    for before, slow, now in zip(slow_before, model._slow_critic.trainable_variables, critic, strict=True):
        np.testing.assert_allclose(slow, 0.75 * before + 0.25 * now.numpy(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose([logs["loss"], logs["critic_loss"]], [loss, critic_loss], rtol=1e-4)
    np.testing.assert_allclose(logs["reward"], np.mean([bleu(u, y) for u, y in zip(ids, target.numpy(), strict=True)]),
                               rtol=1e-5)


# --- Learning -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def half_trained():
    """(weights of a student that knows the task by half, by maximum likelihood; `bleu_of`)."""
    keras.utils.set_random_seed(0)
    net, judged = AttentionLSTM(V, 24), AttentionLSTM(V, 24)
    net.compile(optimizer=keras.optimizers.Adam(0.01), loss=TokenLoss())
    net.fit(translation_dataset(lambda seed, step: reversing(seed, step, 32), 0, 0, 45), verbose=0, shuffle=False)
    source, target = reversing(100, 0, 128)

    @tf.function(autograph=False)
    def bleu():
        samples = tf.reshape(sample(judged, source, WIDTH + 5, 4, tf.constant([0, 0])), [512, -1])
        of_samples = sentence_bleu(ngram_statistics(samples, tf.repeat(target, 4, axis=0)))
        of_greedy = sentence_bleu(ngram_statistics(greedy(judged, source, WIDTH + 5), target))
        return tf.reduce_mean(of_samples), tf.reduce_mean(of_greedy)

    def bleu_of(weights):
        """Mean sentence BLEU of samples and of greedy translations."""
        judged.set_weights(weights)
        return [float(value) for value in bleu()]

    return net.get_weights(), bleu_of


# Options that make much of few steps, and the student's learning rate.
LEARNING = {
    "reinforce": ({"num_candidates": 6}, 3e-3), "mrt": ({"num_candidates": 6, "sharpness": 1.0}, 5e-3),
    **{name: ({"num_candidates": 5, "alpha": 0.0}, 5e-3) for name in OF_SCORES},
    "mixer": ({"first_positions": 3, "positions_by": 1, "positions_every": 20, "baseline_optimizer": "adam"}, 5e-3),
    # The critic alone: no likelihood helps.
    "actor_critic": ({"critic_steps": 100, "mle_weight": 0.0, "target_rate": 0.1, "delayed_actor": False,
                      "critic_optimizer": "adam"}, 3e-3),
}


def learner(name, weights):
    options, rate = LEARNING[name]
    options = {key: keras.optimizers.Adam(0.01) if value == "adam" else value for key, value in options.items()}
    net = AttentionLSTM(V, 24)
    net.set_weights(weights)
    model = sequence_student(net, name, **options)
    model.compile(optimizer=keras.optimizers.Adam(rate))
    return model


def fitted(model, seed, first, stop):
    return model.fit(translation_dataset(lambda seed, step: reversing(seed, step, 32), seed, first, stop),
                     verbose=0, shuffle=False).history


@pytest.mark.parametrize("name", SEQUENCE_LOSSES)
def test_every_loss_raises_bleu(name, half_trained):
    weights, bleu_of = half_trained
    before = bleu_of(weights)
    assert 0.3 < before[0] < 0.8
    model = learner(name, weights)
    if name == "actor_critic":
        first, _, later = (fitted(model, 1, *part)["critic_loss"][0] for part in ((0, 5), (5, 95), (95, 100)))
        # The critic alone learns what the tokens of a student that stays the same are worth.
        assert later < 0.5 * first
        for a, b in zip(model.student.get_weights(), weights, strict=True):
            np.testing.assert_array_equal(a, b)
        assert model.step == 100 and int(model.optimizer.iterations) == 0
    history = fitted(model, 2, 0, {"mixer": 80, "actor_critic": 120}.get(name, 40))
    after = bleu_of(model.student.get_weights())
    assert set(history) == {*model.logged}
    # Max margin orders what a search finds, and does not care how probable all the rest is, which is sampled, too.
    judged, other = (1, 0) if name == "max_margin" else (0, 1)
    assert after[judged] > before[judged] + 0.03, (before, after)
    assert after[other] > before[other] - 0.02, (before, after)


# --- As a Keras model -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "kind", "options"), [
    ("reinforce", "lstm", {"baseline": "running", "num_candidates": 3}),
    ("mixer", "transformer", {"first_positions": 3, "positions_every": 2}),
    ("actor_critic", "lstm", {"critic_steps": 1, "critic_optimizer": "adam"})])
def test_saved_and_loaded_it_goes_on_exactly(name, kind, options, tmp_path):
    options = {key: keras.optimizers.Adam(0.02) if value == "adam" else value for key, value in options.items()}
    model = sequence_student(student(kind, dropout=0.2), name, seed=3, **options)
    model.compile(optimizer=keras.optimizers.Adam(0.01, global_clipnorm=1.0), run_eagerly=True)
    model.fit(translation_dataset(reversing, 0, 0, 2), verbose=0)
    model.save(tmp_path / "newest.keras")
    loaded = keras.models.load_model(tmp_path / "newest.keras")
    assert type(loaded) is type(model) and loaded.step == 2
    assert loaded.get_config() == model.get_config()
    histories = [m.fit(translation_dataset(reversing, 0, 2, 4), verbose=0).history for m in (model, loaded)]
    assert histories[0] == histories[1]
    assert len(model.variables) == len(loaded.variables)
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    optimizers = ["optimizer", *(n for n in ("critic_optimizer", "baseline_optimizer") if hasattr(model, n))]
    for a, b in ((getattr(model, n), getattr(loaded, n)) for n in optimizers):
        assert int(a.iterations) == int(b.iterations) > 0
        for u, v in zip(a.variables, b.variables, strict=True):
            np.testing.assert_array_equal(u, v)
    data = batch()
    np.testing.assert_array_equal(loaded(data[0]), loaded.student(data[0]))
    found = loaded.evaluate(tf.data.Dataset.from_tensors(data), verbose=0, return_dict=True)
    np.testing.assert_allclose(found["token_loss"], tf.reduce_mean(TokenLoss()(data[1], loaded(data[0]))), rtol=1e-5)
    assert 0 <= found["reward"] <= 1


def test_runs_that_end_before_the_loss_begins_are_refused():
    net = AttentionLSTM(V, 4)
    for name, options, steps, left in (
            ("actor_critic", {"critic_steps": 3}, 3, 1),
            ("mixer", {"first_positions": 3, "positions_by": 2, "positions_every": 5}, 10, 11)):
        model = sequence_student(net, name, **options)
        assert model.student_steps(steps + 1) == left
        with pytest.raises(ValueError, match=f"{name}.*{steps} steps"):
            model.student_steps(steps)
    assert int(cross_entropy_positions(9, 3, 5, 2)) == 1 and int(cross_entropy_positions(10, 3, 5, 2)) == 0
    assert SequenceStudent(net, "risk").student_steps(1) == 1


def test_new_networks_are_drawn_by_the_seed():
    weights = []
    for seed in (0, 0, 1):
        keras.utils.set_random_seed(len(weights))
        weights.append(ActorCriticStudent(from_seed(), seed=seed, critic_steps=1).critic.get_weights()[0])
    np.testing.assert_array_equal(weights[0], weights[1])
    assert np.abs(weights[0] - weights[2]).max() > 0.01


def from_seed():
    return AttentionLSTM(V, 8, dropout=0.5)


@pytest.mark.parametrize(("name", "options", "message"), [
    ("nothing", {}, "no loss of sentences"), ("risk", {"nothing": 1}, "takes the options"),
    ("risk", {"first_positions": 1}, "takes the options"), ("risk", {"candidates": "all"}, "candidates must be"),
    ("risk", {"num_candidates": 0}, "num_candidates"), ("risk", {"num_candidates": 1}, "at least 2"),
    ("reinforce", {"num_candidates": 1}, "running"), ("reinforce", {"baseline": "none"}, "baseline"),
    ("reinforce", {"baseline_decay": 1.0}, "baseline_decay"), ("mrt", {"sharpness": 0.0}, "sharpness"),
    ("risk", {"alpha": 1.5}, "alpha"), ("risk", {"smoothing": "no"}, "smoothing"),
    ("risk", {"extra_length": -1}, "extra_length"), ("mixer", {"positions_every": 0}, "positions_every"),
    ("mixer", {"first_positions": -1}, "first_positions"), ("mixer", {"positions_by": 0}, "positions_by"),
    ("actor_critic", {"critic_steps": -1}, "critic_steps"), ("actor_critic", {"target_rate": 0.0}, "target_rate"),
    ("actor_critic", {"mle_weight": -1.0}, "mle_weight"), ("actor_critic", {"penalty": -1.0}, "penalty"),
    ("actor_critic", {"critic": AttentionLSTM(V + 1, 4)}, "the critic"),
    ("risk", {"num_candidates": 2.5}, "num_candidates of risk must be a whole number"),
    ("risk", {"unique": 1}, "unique of risk must be True or False"), ("mrt", {"sharpness": "x"}, "must be a number"),
    ("mixer", {"baseline_optimizer": "adan"}, "adan")])
def test_bad_options(name, options, message):
    with pytest.raises(ValueError, match=message):
        sequence_student(from_seed(), name, **options)


def test_optimizers_by_name():
    assert isinstance(sequence_student(from_seed(), "mixer", baseline_optimizer="sgd").baseline_optimizer,
                      keras.optimizers.SGD)
    assert isinstance(sequence_student(from_seed(), "actor_critic", critic_optimizer="sgd").critic_optimizer,
                      keras.optimizers.SGD)


def test_what_no_model_can_do():
    with pytest.raises(ValueError, match="no loss over candidates"):
        SequenceStudent(from_seed(), "mixer")
    with pytest.raises(ValueError, match="Translator"):
        SequenceStudent(keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]))
    with pytest.raises(ValueError, match="unroll"):
        SequenceStudent(AttentionLSTM(V, 8, unroll=True))
    model = SequenceStudent(from_seed())
    model.compile(optimizer="sgd", loss=TokenLoss())
    with pytest.raises(ValueError, match="without one"):
        model.fit(translation_dataset(reversing, 0, 0, 1))
    model.compile(optimizer="sgd")
    with pytest.raises(ValueError, match="sample weights"):
        model.train_step((*batch(), tf.ones([3])))
    assert set(SEQUENCE_LOSSES) == {*DEFAULTS, "mixer", "actor_critic"}
