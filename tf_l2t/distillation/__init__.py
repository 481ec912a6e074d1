"""ProKT, and the methods of distillation that it is compared with."""

from tf_l2t.distillation.connectors import (
    ActivationBoundaries,
    CorrelationCongruence,
    FactorTransfer,
    FitNet,
    VariationalInformation,
)
from tf_l2t.distillation.contrastive import ContrastiveRepresentation
from tf_l2t.distillation.encoders import HiddenStates, attention_scores, patient
from tf_l2t.distillation.maps import attention_transfer, neuron_selectivity, similarity_preserving
from tf_l2t.distillation.matching import MATCHING, MatchingLoss
from tf_l2t.distillation.methods import METHODS, Method, Phase, method
from tf_l2t.distillation.optimizers import CoupledSGD
from tf_l2t.distillation.pairs import PLACES, pairs
from tf_l2t.distillation.prokt import constrained_teacher_loss, proximal_teacher_loss, zero_head
from tf_l2t.distillation.relations import correlation_congruence, probabilistic, relational
from tf_l2t.distillation.targets import kullback_leibler, soft_cross_entropy
from tf_l2t.distillation.terms import TERMS, Term
from tf_l2t.distillation.trainer import DistillationTrainer, check_anchors

__all__ = [
    "MATCHING", "METHODS", "PLACES", "TERMS", "ActivationBoundaries", "ContrastiveRepresentation",
    "CorrelationCongruence", "CoupledSGD", "DistillationTrainer", "FactorTransfer", "FitNet", "HiddenStates",
    "MatchingLoss", "Method", "Phase", "Term", "VariationalInformation", "attention_scores", "attention_transfer",
    "check_anchors", "constrained_teacher_loss", "correlation_congruence", "kullback_leibler", "method",
    "neuron_selectivity", "pairs", "patient", "probabilistic", "proximal_teacher_loss", "relational",
    "similarity_preserving", "soft_cross_entropy", "zero_head",
]
