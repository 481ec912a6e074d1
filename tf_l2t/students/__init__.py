"""Student networks, the adapter that makes any Keras model one, and a check of what a teacher needs of it."""

from collections.abc import Callable

import keras

from tf_l2t.students.attention_lstm import AttentionLSTM, lstm1, lstm2
from tf_l2t.students.bert import bert_classifier
from tf_l2t.students.bilstm import bilstm
from tf_l2t.students.densenet import densenet_bc, densenet_bc_100_12, densenet_bc_190_40
from tf_l2t.students.functional import (
    FunctionalModel,
    FunctionalStudent,
    check_classifier,
    check_examples,
    check_precision,
)
from tf_l2t.students.functional_translator import FunctionalTranslator
from tf_l2t.students.loading import load_network
from tf_l2t.students.mnist import lenet, mlp
from tf_l2t.students.mobilenet import mobilenet_v2
from tf_l2t.students.preflight import LayerReport, PreflightReport, choose_hvp, preflight
from tf_l2t.students.resnet import resnet, resnet8, resnet20, resnet32, resnet32x4, resnet50
from tf_l2t.students.shufflenet import shufflenet_v1, shufflenet_v2
from tf_l2t.students.taps import tapped, taps
from tf_l2t.students.text_inputs import BERT_TOKENS, SpecialTokens
from tf_l2t.students.transformer import Transformer, transformer
from tf_l2t.students.translator import Translator, previous_tokens
from tf_l2t.students.vgg import vgg, vgg8, vgg13
from tf_l2t.students.wide_resnet import wide_resnet, wrn_16_2, wrn_40_1, wrn_40_2, wrn_40_10

# (num_classes=…, input_shape=…, activation=…) -> a new model; all but the first two take images of 32 × 32 and more.
STUDENTS: dict[str, Callable[..., keras.Model]] = {
    "mlp": mlp, "lenet": lenet,
    "resnet": resnet, "wide_resnet": wide_resnet, "densenet_bc": densenet_bc, "vgg": vgg,  # of any depth
    "resnet8": resnet8, "resnet20": resnet20, "resnet32": resnet32, "resnet32x4": resnet32x4, "resnet50": resnet50,
    "wrn_40_10": wrn_40_10, "wrn_40_2": wrn_40_2, "wrn_40_1": wrn_40_1, "wrn_16_2": wrn_16_2,
    "densenet_bc_100_12": densenet_bc_100_12, "densenet_bc_190_40": densenet_bc_190_40,
    "vgg8": vgg8, "vgg13": vgg13,
    "mobilenet_v2": mobilenet_v2, "shufflenet_v1": shufflenet_v1, "shufflenet_v2": shufflenet_v2,
}
"""Classifiers by name: (num_classes, input_shape, …) -> a Keras model that returns logits."""

# (vocabulary_size, **options) -> a new model.
TRANSLATORS: dict[str, Callable[..., Translator]] = {"lstm1": lstm1, "lstm2": lstm2, "transformer": transformer}
"""Translation students by name: (vocabulary_size, …) -> a `Translator`."""

__all__ = [
    "BERT_TOKENS",
    "STUDENTS",
    "TRANSLATORS",
    "AttentionLSTM",
    "FunctionalModel",
    "FunctionalStudent",
    "FunctionalTranslator",
    "LayerReport",
    "PreflightReport",
    "SpecialTokens",
    "Transformer",
    "Translator",
    "bert_classifier",
    "bilstm",
    "check_classifier", "check_examples", "check_precision",
    "choose_hvp",
    "densenet_bc",
    "densenet_bc_100_12",
    "densenet_bc_190_40",
    "lenet",
    "load_network",
    "lstm1",
    "lstm2",
    "mlp",
    "mobilenet_v2",
    "preflight",
    "previous_tokens",
    "resnet",
    "resnet8",
    "resnet20",
    "resnet32",
    "resnet32x4",
    "resnet50",
    "shufflenet_v1",
    "shufflenet_v2",
    "tapped",
    "taps",
    "transformer",
    "vgg",
    "vgg8",
    "vgg13",
    "wide_resnet",
    "wrn_16_2",
    "wrn_40_1",
    "wrn_40_2",
    "wrn_40_10",
]
