"""Small networks and trainers that tests of distillation share."""

import keras
import numpy as np

from tf_l2t.distillation import METHODS, DistillationTrainer, method

RNG = np.random.default_rng(0)
X = RNG.standard_normal((12, 8, 8, 2)).astype("float32")
Y = (np.arange(12) % 3).astype("int32")


def network(width, name, seed, dropout=0.0, stages=2):
    """Stages named as the taps of the students are."""
    keras.utils.set_random_seed(seed)
    inputs = x = keras.Input((8, 8, 2))
    for stage in range(1, stages + 1):
        x = keras.layers.Conv2D(width * stage, 3, strides=2, padding="same")(x)
        x = keras.layers.BatchNormalization(momentum=0.9, name=f"stage{stage}_preact")(x)
        x = keras.layers.ReLU(name=f"stage{stage}")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pooled")(x)
    x = keras.layers.Dropout(dropout, seed=seed)(x) if dropout else x
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(x), name=name)


def linear(name, seed, penalty=None):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((8, 8, 2))
    head = keras.layers.Dense(3, kernel_regularizer=penalty, name="logits")
    return keras.Model(inputs, head(keras.layers.Flatten()(inputs)), name=name)


def trainer_of(name, student=None, **options):
    student = student or network(2, "student", 1)
    kind = METHODS[name].teacher
    teacher = {"none": None, "anchors": [network(4, f"anchor{i}", 5 + i) for i in range(4)]}.get(
        kind, network(4, "teacher", 2))
    if name in ("crd", "crd_kd", "crd_prokt"):
        options.setdefault("num_negatives", 6)
    return DistillationTrainer(student, teacher, method(name, **options), train_labels=Y)


def compiled(trainer, rate=0.05, momentum=0.0, **options):
    trained = trainer.method.teacher == "trained"
    own, other = (keras.optimizers.SGD(rate, momentum=momentum) for _ in range(2))
    trainer.compile(own, other if trained else None, metrics=["accuracy"],
                    **options)
    return trainer


def values(model):
    return [w.numpy() for w in model.weights]


def fit(trainer, epochs=1, batch_size=12, **options):
    return trainer.fit(X, Y, batch_size=batch_size, epochs=epochs, shuffle=False, verbose=0, **options).history


def log_softmax(z):
    z = z - z.max(1, keepdims=True)
    return z - np.log(np.exp(z).sum(1, keepdims=True))
