"""What a student minimises. Every function returns one loss per example; mini-batch losses are their mean."""

from tf_l2t.losses.fixed import cross_entropy
from tf_l2t.losses.taught import TAUGHT_FORMS, TaughtForm, paper_loss, stable_loss, taught_form

FIXED_LOSSES = {"cross_entropy": cross_entropy}

__all__ = ["FIXED_LOSSES", "TAUGHT_FORMS", "TaughtForm", "cross_entropy", "paper_loss", "stable_loss", "taught_form"]
