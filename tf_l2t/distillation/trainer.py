"""Distillation in Keras style: compile, fit, evaluate, save."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_l2t.distillation.methods import Method, Phase, check_method, method
from tf_l2t.distillation.pairs import tapped_outputs
from tf_l2t.distillation.prokt import (
    constrained_teacher_loss,
    cross_entropy,
    next_multiplier,
    proximal_teacher_loss,
    zero_head,
)
from tf_l2t.distillation.targets import kullback_leibler
from tf_l2t.distillation.terms import Examples, Term
from tf_l2t.hypergradient.replicas import check_one_machine, gradient_share
from tf_l2t.losses.keras_loss import not_half
from tf_l2t.students import check_classifier, check_precision


@keras.saving.register_keras_serializable(package="tf_l2t")
class DistillationTrainer(keras.Model):
    """Trains a student by a method of distillation; a teacher or a student by itself with "none".

        trainer = DistillationTrainer(student, teacher, "kd")
        trainer.compile(CoupledSGD(0.05), metrics=["accuracy"])
        trainer.fit(x, y, batch_size=64, epochs=240, validation_data=(x_dev, y_dev), callbacks=[...])
        trainer.student.save("student.keras")

    Called, evaluated and asked to predict it is the student. A step of a method whose teacher is trained along (ProKT,
    Algorithm 1) is: the student's outputs; a step of the teacher by `teacher_optimizer`; the updated teacher's outputs;
    a step of the student. Out of its own turn a network is in inference mode, but one with batch normalisation: on the
    way its moving statistics are behind its weights, and the distribution that inference mode has from them is not the
    one that it learned (`method("prokt", targets=...)` sets either mode). What batch normalisation and dropout keep is
    moved once a step, by a network's own turn. Both begin with the uniform distribution: their last layers' weights are
    set to 0. A fixed teacher is in inference mode.

    Logs, besides the metrics: `loss`, the student's with the penalties of its layers, or cross entropy when it is
    evaluated; of train batches `divergence`, KL(p_t ‖ q_s) at temperature 1, and `teacher_accuracy`, of a teacher that
    is trained along before its step, as a student's accuracy is; its `teacher_loss`; and `multiplier` of the
    constrained form.

    Args:
      student: a Keras model that returns logits; for terms of inner tensors a Functional one with named taps.
      teacher: a model of as many classes; for anchors several of one architecture, in the order of their training,
        each of which is the teacher for as many epochs; None for "none".
      method: a name in `METHODS`, what `method(name, **options)` returns, or a loss of Keras' distillation API, which
        is added to the labels' cross entropy.
      train_labels: of all train examples, integers [examples]; for "crd". Data then come with the examples' indices:
        arrays get them from `fit`, data sets return (x, y, index).
      first_teacher: of "tinybert_prokt", a trained network of the teacher's architecture, from which the student learns
        in the first phase, in the place of the teacher as it begins.

    Attributes:
      student, teacher, first_teacher: the networks.
      method, phase: what is trained now.

    Raises:
      ValueError: for networks that do not fit the method or each other, and as `method`.
    """

    def __init__(self, student: keras.Model, teacher: keras.Model | Sequence[keras.Model] | None = None,
                 method: str | Method | keras.distillation.DistillationLoss = "kd",
                 train_labels: np.ndarray | None = None, first_teacher: keras.Model | None = None,
                 name: str = "distillation", **options: Any):
        super().__init__(name=name, **options)
        self.method = _found(method)
        anchors = list(teacher) if isinstance(teacher, (list, tuple)) else []
        _check_networks(self.method, student, teacher, anchors, first_teacher)
        if anchors:
            teacher = keras.models.clone_model(anchors[0])
            _copy(anchors[0], teacher)
        self.student: keras.Model = student
        self.teacher: Any = teacher
        self.first_teacher: Any = first_teacher
        self.anchors: list[keras.Model] = anchors
        self._train_labels = train_labels
        names = dict.fromkeys(name for phase in self.method.phases for name, _ in phase.terms)
        self._terms = {name: Term(name, teacher, student, self.method.options, train_labels) for name in names}
        self._connectors = [layer for term in self._terms.values() for layer in term.layers]
        self._needs_index = any(term.needs_index for term in self._terms.values())
        if self.method.teacher == "trained":
            for network in (student, teacher):
                zero_head(network)
        self._multiplier = self.add_weight(shape=(), initializer=keras.initializers.Constant(self.method.lam),
                                           trainable=False, name="multiplier", aggregation="mean")
        shown = ["loss", *(["divergence", "teacher_accuracy"] if teacher is not None else []),
                 *(["teacher_loss"] if self.method.teacher == "trained" else [])]
        self._means = {name: keras.metrics.Mean(name=name) for name in shown}
        self.built = True
        self.begin(self.method.phases[0].name)

    def begin(self, phase: str) -> None:
        """Begins a phase of the method; compile again, with its optimizer, before the next `fit`.

        Raises:
          ValueError: for a phase that the method does not have.
        """
        found = {p.name: p for p in self.method.phases}
        if phase not in found:
            raise ValueError(f"the phases of {self.method.name!r} are {list(found)}; received {phase!r}.")
        self.phase: Phase = found[phase]
        terms = [self._terms[name] for name, _ in self.phase.terms]
        of_teacher, of_student = ([pair[i] for term in terms for pair in term.pairs] for i in (0, 1))
        self._student_outputs = tapped_outputs(self.student, of_student)
        teacher = self.first_teacher if self.phase.frozen and self.first_teacher is not None else self.teacher
        self._teacher_outputs = tapped_outputs(teacher, of_teacher) if teacher is not None else None
        self.compiled = False

    @property
    def teaches(self) -> bool:
        """Whether the teacher is trained in this phase."""
        return self.method.teacher == "trained" and not self.phase.frozen

    @property
    def trained_variables(self) -> list[Any]:
        """What the student's optimizer updates in this phase: the student's weights and its terms' layers'."""
        own = [w for layer in self._connectors for w in layer.trainable_variables]
        return own if self.phase.prepares else [*self.student.trainable_variables, *own]

    def compile(self, optimizer: Any = "sgd", teacher_optimizer: Any = None, metrics: Any = None,
                jit_compile: Any = False, **options: Any) -> None:
        """As Keras' `compile`, with the optimizer of a teacher that is trained along.

        Args:
          optimizer: of the student and of the weights of its loss.
          teacher_optimizer: of a teacher that is trained along, and only then.
          metrics: of the student's logits.
          jit_compile, **options: of `keras.Model.compile`; the loss is the method's.

        Raises:
          ValueError: for a loss, or a teacher's optimizer that is missing or has no teacher to train.
        """
        if "loss" in options:
            raise ValueError("the method has the student's loss: leave out `loss`.")
        trained = self.teaches
        if trained != (teacher_optimizer is not None):
            raise ValueError(f"the phase {self.phase.name!r} of {self.method.name!r} " + (
                "trains its teacher: give teacher_optimizer." if trained else "trains no teacher: leave out "
                "teacher_optimizer."))
        if trained and teacher_optimizer is optimizer:
            raise ValueError("student and teacher need an optimizer each; received one for both.")
        super().compile(optimizer=optimizer, metrics=None if self.phase.prepares else metrics, jit_compile=jit_compile,
                        **options)
        own: Any = self.optimizer
        own.build(self.trained_variables)
        other: Any = keras.optimizers.get(teacher_optimizer) if trained else None
        if trained:
            other.build(self.teacher.trainable_variables)
        self.teacher_optimizer = other

    def get_compile_config(self) -> dict[str, Any]:
        config = super().get_compile_config()
        other = self.teacher_optimizer and keras.saving.serialize_keras_object(self.teacher_optimizer)
        return {**config, "teacher_optimizer": other}

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles a trainer that is loaded, both optimizers with it, so that `fit` goes on."""
        options = {name: keras.saving.deserialize_keras_object(value) for name, value in config.items()}
        self.compile(**{name: value for name, value in options.items() if name != "loss"})

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """The student's logits."""
        return self.student(inputs, training=training)

    def fit(self, x: Any = None, y: Any = None, *args: Any, callbacks: Any = None, total_epochs: int | None = None,
            **options: Any) -> keras.callbacks.History:
        """As Keras' `fit`. Arrays for "crd" are given their examples' indices.

        Args:
          total_epochs: over which anchors are spread, if `fit` is called for a part of them; `epochs` if None. A
            multiple of the number of anchors.

        Raises:
          ValueError: for weights of examples or classes, which no method has; for labels that are not train_labels,
            or anchors that cannot have as many epochs each; under a strategy of several machines.
        """
        weights = [name for name in ("sample_weight", "class_weight") if options.get(name) is not None]
        if weights:
            raise ValueError(f"distillation weighs all examples alike: leave out {weights}.")
        check_one_machine(self.distribute_strategy)
        if self._needs_index and y is not None:
            known = np.ravel(np.asarray(self._train_labels))
            if not np.array_equal(np.ravel(y), known):
                raise ValueError("y must be the train_labels that the trainer was made with, in their order; received "
                                 f"{len(y)} labels, made with {len(known)}.")
            options["sample_weight"] = np.arange(len(y))
        if self.method.teacher == "anchors":
            callbacks = [*keras.tree.flatten(callbacks or []), _Anchors(self, total_epochs)]
        return super().fit(x, y, *args, callbacks=callbacks, **options)

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y, index = keras.utils.unpack_x_y_sample_weight(data)
        self._check_batch(y, index)
        labels = tf.cast(tf.reshape(y, [-1]), tf.int32)
        if self.phase.prepares:
            return self._prepare(self._targets(x), labels)
        with tf.GradientTape() as tape:
            outputs = self._student_outputs(x, training=True)
            penalties = [*self.student.losses]  # a further call would put its own in their place
            with tape.stop_recording():
                if self.teaches:
                    self._teach(x, labels, self._student_out_of_turn(x, outputs["logits"]))
                targets = self._targets(x)
            loss = _total([*self._student_losses(labels, targets, outputs, Examples(index, labels)), *penalties])
        self._apply(self.optimizer, tape, loss, self.trained_variables)
        seen = {"loss": loss}
        if targets:
            seen["divergence"] = kullback_leibler(targets["logits"], outputs["logits"], temperature=1.0)
            if not self.teaches:
                seen["teacher_accuracy"] = _accuracy(labels, targets["logits"])
        self._note(labels, **seen)
        logs = self.compute_metrics(x, y, outputs["logits"])
        return logs | ({"multiplier": self._multiplier.value} if self.method.epsilon is not None else {})

    def _check_batch(self, y: Any, index: Any) -> None:
        """As `_check_labels`; raises ValueError for a third element that is no index, too."""
        self._check_labels(y)
        if self._needs_index and index is None:
            raise ValueError(f"the method {self.method.name!r} tells examples apart: data sets must return (x, y, "
                             "index).")
        if index is not None and not tf.as_dtype(index.dtype).is_integer:
            raise ValueError("the third element of a data set is the examples' indices, integers [batch]; received "
                             f"{tf.as_dtype(index.dtype).name}. Distillation weighs all examples alike.")

    @staticmethod
    def _check_labels(y: Any) -> None:
        """Raises ValueError for labels that are not one number an example."""
        if y is None or (len(y.shape) > 1 and y.shape[-1] != 1):
            raise ValueError("labels are one integer an example, [batch]; received " +
                             ("none." if y is None else f"shape {tuple(y.shape)}: give the classes' numbers."))

    def _targets(self, x: Any) -> dict[str, tf.Tensor]:
        """The teacher's tapped outputs, by name; none without a teacher."""
        if self._teacher_outputs is None:
            return {}
        training = self.teaches and self._trains_out_of_turn(self.teacher)
        state = [(v, tf.identity(v.value)) for v in self.teacher.non_trainable_variables] if training else []
        found = self._teacher_outputs(x, training=training)
        for variable, value in state:
            variable.assign(value)
        return {name: tf.stop_gradient(value) for name, value in found.items()}

    def _student_out_of_turn(self, x: Any, logits: tf.Tensor) -> tf.Tensor:
        """What a teacher that is trained along is drawn to: `logits`, the student's in its turn, or those that it has
        in inference mode."""
        return logits if self._trains_out_of_turn(self.student) else not_half(self.student(x, training=False))

    def _trains_out_of_turn(self, network: keras.Model) -> bool:
        if self.method.targets is not None:
            return self.method.targets == "training"
        return any(isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
                   for layer in network._flatten_layers())

    def test_step(self, data: Any) -> dict[str, Any]:
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        self._check_labels(y)
        logits = not_half(self.student(x, training=False))
        self._note(y, loss=cross_entropy(y, logits))
        logs = self.compute_metrics(x, y, logits)
        return {name: value for name, value in logs.items() if name == "loss" or name not in self._means}

    def _note(self, labels: tf.Tensor, **values: tf.Tensor) -> None:
        """Adds a batch's values to the means over examples."""
        for name, value in values.items():
            self._means[name].update_state(value, sample_weight=tf.cast(tf.shape(labels)[0], value.dtype))

    def _student_losses(self, labels: tf.Tensor, teacher: dict[str, tf.Tensor], student: dict[str, tf.Tensor],
                      examples: Examples) -> list[tf.Tensor]:
        parts = []
        if self.phase.ce:
            parts.append(self.phase.ce * cross_entropy(labels, student["logits"]))
        if self.phase.kd:
            parts.append(self.phase.kd * kullback_leibler(teacher["logits"], student["logits"],
                                                          self.method.temperature))
        for name, weight in self.phase.terms:
            parts.append(weight * self._terms[name].loss(teacher, student, examples, training=True))
        return parts

    def _teach(self, x: Any, labels: tf.Tensor, student: tf.Tensor) -> None:
        """A step of the teacher towards the labels and the student's logits."""
        with tf.GradientTape() as tape:
            teacher = not_half(self.teacher(x, training=True))
            if self.method.epsilon is None:
                loss = proximal_teacher_loss(labels, teacher, student, self.method.lam)
            else:
                loss, excess = constrained_teacher_loss(labels, teacher, student, self._multiplier.value,
                                                        self.method.epsilon)
            loss = _total([loss, *self.teacher.losses])
        self._apply(self.teacher_optimizer, tape, loss, self.teacher.trainable_variables)
        if self.method.epsilon is not None:
            self._multiplier.assign(next_multiplier(self._multiplier.value, excess, self.method.lam_rate))
        self._note(labels, teacher_loss=loss, teacher_accuracy=_accuracy(labels, teacher))

    def get_config(self) -> dict[str, Any]:
        labels = None if self._train_labels is None else np.asarray(self._train_labels).tolist()
        teacher = self.anchors or self.teacher
        return {"name": self.name, "student": keras.saving.serialize_keras_object(self.student),
                "teacher": None if teacher is None else keras.saving.serialize_keras_object(teacher),
                "first_teacher": self.first_teacher and keras.saving.serialize_keras_object(self.first_teacher),
                "method": self.method.to_config(), "train_labels": labels, "phase": self.phase.name}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> DistillationTrainer:
        config, phase = dict(config), config["phase"]
        del config["phase"]
        for name in ("student", "teacher", "first_teacher"):
            config[name] = keras.saving.deserialize_keras_object(config[name], custom_objects=custom_objects)
        labels = config.pop("train_labels")
        trainer = cls(method=Method.from_config(config.pop("method")), train_labels=None if labels is None else
                      np.array(labels), **config)
        trainer.begin(phase)
        return trainer

    def _prepare(self, targets: dict[str, tf.Tensor], labels: tf.Tensor) -> dict[str, Any]:
        with tf.GradientTape() as tape:
            loss = tf.add_n([weight * self._terms[name].preparation_loss(targets) for name, weight in
                             self.phase.terms])
        self._apply(self.optimizer, tape, loss, self.trained_variables)
        self._note(labels, loss=loss)
        return {"loss": self._means["loss"].result()}

    @staticmethod
    def _apply(optimizer: Any, tape: tf.GradientTape, loss: tf.Tensor, variables: list[Any]) -> None:
        """Updates the variables that the loss depends on."""
        gradients = tape.gradient(loss, [v.value for v in variables], output_gradients=gradient_share(loss))
        found = [(g, v) for g, v in zip(gradients, variables, strict=True) if g is not None]
        optimizer.apply_gradients(found)


def _total(parts: Sequence[tf.Tensor]) -> tf.Tensor:
    """Their sum, in float64 if one of them is: penalties may be of another precision than losses."""
    dtype = tf.float64 if any(part.dtype == tf.float64 for part in parts) else tf.float32
    return tf.add_n([tf.cast(part, dtype) for part in parts])


def _accuracy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(tf.cast(tf.equal(tf.argmax(logits, axis=-1, output_type=tf.int32), labels), tf.float32))


class _Anchors(keras.callbacks.Callback):
    """Gives the teacher the weights of the anchor whose epochs have come."""

    def __init__(self, trainer: DistillationTrainer, total_epochs: int | None):
        super().__init__()
        self._trainer, self._total = trainer, total_epochs

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        check_anchors(len(self._trainer.anchors), self._epochs)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        anchors = self._trainer.anchors
        _copy(anchors[epoch * len(anchors) // self._epochs], self._trainer.teacher)

    @property
    def _epochs(self) -> int:
        return self._total or self.params["epochs"]


def check_anchors(anchors: int, epochs: int) -> None:
    """Raises ValueError unless so many anchors, 0 for none, can have as many epochs each."""
    if anchors and epochs % anchors:
        raise ValueError(f"{anchors} anchors are each the teacher for as many epochs: {epochs} epochs are no "
                         "multiple. Where `fit` is called for a part of them, give initial_epoch and total_epochs.")


def _copy(source: keras.Model, target: keras.Model) -> None:
    for weight, value in zip(target.weights, source.weights, strict=True):
        weight.assign(value.value)


def _found(given: Any) -> Method:
    if isinstance(given, keras.distillation.DistillationLoss):
        given = Method(type(given).__name__, "fixed", (Phase(ce=1.0, terms=((given, 1.0),)),))
    if isinstance(given, Method):
        check_method(given)
        return given
    if not isinstance(given, str):
        raise ValueError("method must be a name, a Method, or one keras.distillation.DistillationLoss; of several make "
                         f"a Method, whose Phase has them as terms. Received {given!r}.")
    return method(given)


def _one_batch_fits(one: list[tuple[Any, ...]], other: list[tuple[Any, ...]]) -> bool:
    """Whether inputs of these shapes may be the same; what a network leaves open, None, is as another has it."""
    return len(one) == len(other) and all(
        len(a) == len(b) and all(None in (m, n) or m == n for m, n in zip(a, b, strict=True))
        for a, b in zip(one, other, strict=True))


def _check_networks(found: Method, student: keras.Model, teacher: Any, anchors: list[keras.Model],
                    first_teacher: Any) -> None:
    """Raises ValueError for networks that the method cannot use."""
    if (found.teacher == "none") != (teacher is None):
        raise ValueError(f"the method {found.name!r} " + ("has no teacher: leave it out." if teacher is not None else
                                                          "needs a teacher."))
    if bool(anchors) != (found.teacher == "anchors"):
        raise ValueError(f"the method {found.name!r} takes " + (
            "several teachers, a list of anchors." if found.teacher == "anchors" else "one teacher; received a list."))
    if first_teacher is not None and not found.has_first_teacher:
        raise ValueError(f"the method {found.name!r} has no phase with a teacher of its own before its teacher is "
                         "trained along: leave out first_teacher.")
    teachers = anchors or [network for network in (teacher, first_teacher) if network is not None]
    networks = [(student, "student"), *((network, "teacher") for network in teachers)]
    classes = [check_classifier(network, role) for network, role in networks]
    if len(set(classes)) > 1:
        raise ValueError(f"teacher and student have other numbers of classes, {classes[1]} and {classes[0]}.")
    shapes = [[tuple(x.shape[1:]) for x in network.inputs] for network, _ in networks]
    for other in shapes[1:]:
        if not _one_batch_fits(shapes[0], other):
            raise ValueError("teacher and student read the same batches, and take other inputs: "
                             f"{other} and {shapes[0]}, the batch left out.")
    own = {id(w) for w in student.weights}
    for network, role in networks:
        check_precision(network)
        if role == "teacher" and any(id(w) in own for w in network.weights):
            raise ValueError("teacher and student have weights in common, so that a step of one moves the other; build "
                             "two networks (of encoders, load two).")
    if len({tuple(tuple(w.shape) for w in network.weights) for network in teachers}) > 1:
        raise ValueError("anchors are checkpoints of one architecture, and first_teacher is of the teacher's; their "
                         "weights have other shapes.")
