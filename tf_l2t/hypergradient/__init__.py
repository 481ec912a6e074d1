"""The engine: exact reverse-mode differentiation through a student's training run, as pure functions on tensors."""

from tf_l2t.hypergradient.adaptive import adam, rmsprop
from tf_l2t.hypergradient.check import CheckReport, CheckRow, check_hypergradient
from tf_l2t.hypergradient.clipping import clip
from tf_l2t.hypergradient.moments import exact_moments
from tf_l2t.hypergradient.optimizers import InnerOptimizer, sgd
from tf_l2t.hypergradient.schedules import Plan, every_k, plan_for, store_all
from tf_l2t.hypergradient.state import Problem, StatusFeatures, StepOutput, StudentState, initial_state
from tf_l2t.hypergradient.step import HVP_MODES, Adjoint, inner_step, step_adjoint
from tf_l2t.hypergradient.unroll import (
    Hypergradient,
    Rollout,
    advance,
    check_options,
    hypergradient,
    objective_of,
    rollout,
)

__all__ = [
    "HVP_MODES", "Adjoint", "CheckReport", "CheckRow", "Hypergradient", "InnerOptimizer", "Plan", "Problem", "Rollout",
    "StatusFeatures", "StepOutput", "StudentState", "adam", "advance", "check_hypergradient", "check_options", "clip",
    "every_k", "exact_moments", "hypergradient", "initial_state", "inner_step", "objective_of", "plan_for", "rmsprop",
    "rollout", "sgd", "step_adjoint", "store_all",
]
