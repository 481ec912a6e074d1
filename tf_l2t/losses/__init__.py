"""What a student minimises. Every function returns one loss per example; mini-batch losses are their mean."""

from tf_l2t.losses.fixed import (
    cross_entropy,
    focal,
    generalised_cross_entropy,
    label_smoothing,
    smooth_zero_one,
    symmetric_cross_entropy,
)
from tf_l2t.losses.keras_loss import FixedLoss, TaughtLoss, TeacherLoss
from tf_l2t.losses.known import (
    class_balanced,
    estimated_noise,
    forward_correction,
    gold_correction,
    logit_adjustment,
)
from tf_l2t.losses.large_margin import LargeMarginStudent, annealed, large_margin_logits
from tf_l2t.losses.registry import FIXED_LOSSES, fixed_loss
from tf_l2t.losses.taught import (
    TAUGHT_FORMS,
    TaughtForm,
    checked_counts,
    mixture_loss,
    paper_loss,
    soft_loss,
    stable_loss,
    taught_form,
)

__all__ = [
    "FIXED_LOSSES", "TAUGHT_FORMS", "FixedLoss", "LargeMarginStudent", "TaughtForm", "TaughtLoss", "TeacherLoss",
    "annealed", "checked_counts", "class_balanced",
    "cross_entropy", "estimated_noise", "fixed_loss", "focal", "forward_correction", "generalised_cross_entropy",
    "gold_correction", "label_smoothing", "large_margin_logits", "logit_adjustment", "mixture_loss", "paper_loss",
    "smooth_zero_one", "soft_loss", "stable_loss", "symmetric_cross_entropy", "taught_form",
]
