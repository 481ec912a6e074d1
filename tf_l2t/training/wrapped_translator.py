"""What the Keras models that train a translation student on whole sentences have in common."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tf_l2t.hypergradient.replicas import check_one_machine, gradient_share
from tf_l2t.students.translator import Translator
from tf_l2t.training.candidates import candidate_log_probs, sentence_rewards
from tf_l2t.translation.bleu import SMOOTHINGS
from tf_l2t.translation.decoding import greedy

EVALUATED = ("token_loss", "reward")


class WrappedTranslator(keras.Model):
    """Base class: a `Translator` with a training step of its own, through `compile`, `fit`, `evaluate`, `save`.

        model = SequenceStudent(student, "risk")
        model.compile(optimizer=keras.optimizers.Adam(1e-4))
        model.fit(translation_dataset(batches, seed, 0, 1000))

    Data are ((source, previous tokens), target), as `translation_dataset` yields them. `compile` takes no loss. The
    compiled optimizer trains the student and nothing else; whatever else is learned has an optimizer of its own, which
    is saved with the model. What is drawn at random is a function of seed and step: a model that was saved and loaded
    goes on as if it had not been. `evaluate` reports the token loss, and the reward of greedy translations.

    A subclass defines `learn`, and lists what that logs.

    Args:
      student: trained in place.
      smoothing: of `tf_l2t.translation.sentence_bleu`, the reward.
      extra_length: how many tokens longer than the batch's references are wide a translation may be.
      seed: of samples, and of new networks.

    Attributes:
      student: the student, to translate with or to save by itself.

    Raises:
      ValueError: for a student that is no `Translator` or takes one static length only, an unknown smoothing, or a
        length below 0.
    """

    logged: tuple[str, ...] = ("loss", "reward", "token_loss")

    def __init__(self, student: Translator, *, smoothing: str = "add_one", extra_length: int = 5, seed: int = 0,
                 **kwargs: Any):
        super().__init__(**kwargs)
        if not isinstance(student, Translator):
            raise ValueError("the student must be a tf_l2t.students.Translator; received "
                             f"{type(student).__name__}.")
        if student.unroll:
            raise ValueError("its own translations are of any length: build the student with unroll=False.")
        if smoothing not in SMOOTHINGS:
            raise ValueError(f"smoothing must be one of {SMOOTHINGS}; received {smoothing!r}.")
        if extra_length < 0:
            raise ValueError(f"extra_length must be at least 0; received {extra_length!r}.")
        self.student = student
        self.smoothing, self.extra_length, self.seed = smoothing, extra_length, seed
        self._step = self.add_weight(name="step", shape=(), dtype="int32", initializer="zeros", trainable=False,
                                     aggregation="only_first_replica")
        self._logs = {name: keras.metrics.Mean(name=name) for name in dict.fromkeys((*self.logged, *EVALUATED))}
        self.supports_jit = False  # loops over sentences of any length
        self.built = True

    @property
    def step(self) -> int:
        """How many steps this model has been trained: the compiled optimizer may have made fewer."""
        return int(self._step.numpy())

    @property
    def trainable_variables(self) -> list[Any]:
        """What the compiled optimizer trains."""
        return self.student.trainable_variables

    @property
    def trainable_weights(self) -> list[Any]:
        """What the compiled optimizer trains."""
        return self.student.trainable_weights

    @property
    def metrics(self) -> list[Any]:
        return list(self._logs.values())

    def student_steps(self, num_steps: int) -> int:
        """In how many steps of a run of `num_steps` the compiled optimizer moves the student, over which its rate is to
        fall.

        Raises:
          ValueError: if the run would end before the loss is what it is named for.
        """
        return num_steps

    def call(self, inputs: Any, training: bool = False) -> Any:
        return self.student(inputs, training=training)

    def build(self, input_shape: Any = None) -> None:
        self.built = True  # weights are there since __init__

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.fit`.

        Raises:
          ValueError: if `compile` was given a loss, or under a strategy of several machines.
        """
        if getattr(self, "loss", None) is not None:
            raise ValueError(f"a {type(self).__name__} has its loss: call compile without one.")
        check_one_machine(self.distribute_strategy)
        return super().fit(*args, **kwargs)

    def train_step(self, data: Any) -> dict[str, Any]:
        source, target = _pair(data)
        found = self.learn(source, target)
        self._step.assign_add(1)
        for name, values in found.items():
            self._logs[name].update_state(values)
        return {name: self._logs[name].result() for name in self.logged}

    def test_step(self, data: Any) -> dict[str, Any]:
        source, target = _pair(data)
        translated = greedy(self.student, source, self.max_length(target))
        found = {"token_loss": -tf.reduce_sum(self.reference_log_probs(source, target), axis=-1),
                 "reward": sentence_rewards(translated[:, tf.newaxis], target, self.smoothing)}
        for name, values in found.items():
            self._logs[name].update_state(values)
        return {name: self._logs[name].result() for name in EVALUATED}

    def learn(self, source: tf.Tensor, target: tf.Tensor) -> dict[str, tf.Tensor]:
        """One step of training on a batch, and what it logs, [batch] each."""
        raise NotImplementedError

    def max_length(self, target: tf.Tensor) -> tf.Tensor:
        """Of translations of a batch with references [batch, R]."""
        return tf.shape(target)[1] + self.extra_length

    def step_seed(self) -> tf.Tensor:
        """Two integers, other ones at every step."""
        return tf.random.experimental.stateless_fold_in(tf.constant([self.seed, 0]), self._step.value)

    def reference_log_probs(self, source: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        """log p of the reference's tokens without dropout, [batch, R]."""
        return candidate_log_probs(self.student, source, target[:, tf.newaxis])[:, 0]

    def regularisers(self) -> Any:
        """The sum of the student's, which a loss is added to."""
        return tf.add_n(self.student.losses) if self.student.losses else 0.0

    def descend(self, tape: tf.GradientTape, loss: tf.Tensor) -> None:
        """One step of the compiled optimizer."""
        self.optimizer.apply(shared_gradient(tape, loss, self.trainable_variables), self.trainable_variables)

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "student": keras.saving.serialize_keras_object(self.student),
                "smoothing": self.smoothing, "extra_length": self.extra_length, "seed": self.seed}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> WrappedTranslator:
        # Whatever is nested, such as the student, is a dictionary that names its class.
        return cls(**{name: keras.saving.deserialize_keras_object(value, custom_objects=custom_objects)
                      if isinstance(value, dict) else value for name, value in config.items()})


def shared_gradient(tape: tf.GradientTape, loss: tf.Tensor, variables: list[Any]) -> list[tf.Tensor]:
    """A replica's share of the gradient of a loss that is the mean over its part of the batch."""
    return tape.gradient(loss, [v.value for v in variables], output_gradients=gradient_share(loss))


def _pair(data: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """(source, target) of a batch, int32."""
    inputs, target, weight = keras.utils.unpack_x_y_sample_weight(data)
    if target is None or weight is not None or not isinstance(inputs, tuple | list) or len(inputs) != 2:
        raise ValueError("a batch must be ((source, previous tokens), target), without sample weights.")
    return tf.cast(inputs[0], tf.int32), tf.cast(target, tf.int32)
