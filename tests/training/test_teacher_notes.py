"""What a teacher's card says of its training."""

import keras
import pytest

import tf_l2t
from tests.training.test_teacher_checkpoints import Stop
from tests.training.test_teacher_trainer import DEV, noisy_train, trainer
from tf_l2t.hypergradient import sgd
from tf_l2t.training.identity import optimizer_identity
from tf_l2t.training.teacher_notes import optimizer_words


@pytest.mark.parametrize(("optimizer", "words"), [
    (keras.optimizers.SGD(0.05), "SGD, learning rate 0.05"),
    (keras.optimizers.Adam(1e-4), "Adam, learning rate 0.0001"),
    (keras.optimizers.RMSprop(keras.optimizers.schedules.CosineDecay(0.2, 5), momentum=0.5),
     "RMSprop, CosineDecay from 0.2, momentum 0.5"),
    (keras.optimizers.SGD(keras.optimizers.schedules.PiecewiseConstantDecay([3], [0.2, 0.1])),
     "SGD, PiecewiseConstantDecay"), (sgd(0.1), "InnerOptimizer")])
def test_a_card_s_words_for_an_optimizer(optimizer, words):
    assert optimizer_words(optimizer_identity(optimizer)) == words


def test_a_training_that_was_stopped_is_on_the_card(tmp_path):
    """With what is known of these weights: they were validated behind the second step, and not behind the third."""
    made = trainer(num_steps=12)
    for after, steps, validated in ((1, 2, True), (2, 3, False)):
        with pytest.raises(KeyboardInterrupt):
            made.fit(noisy_train(), DEV, 6, validation_freq=2, verbose=0, callbacks=[Stop(after)])
        noted = made.teacher.training
        assert noted["teacher_steps"] == steps and ("val_objective" in noted) == ("validated_on" in noted) == validated
        card = tf_l2t.export_teacher(made.teacher, tmp_path / str(after)) / "teacher_card.md"
        assert "It was not trained" not in card.read_text() and f"| teacher steps | {steps} |" in card.read_text()
        assert ("| validated on | dev |" in card.read_text()) == validated
