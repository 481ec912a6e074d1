"""The engine: exact reverse-mode differentiation through a student's training run, as pure functions on tensors."""

from tf_l2t.hypergradient.adaptive import adam, rmsprop
from tf_l2t.hypergradient.check import CheckReport, CheckRow, check_hypergradient
from tf_l2t.hypergradient.clipping import clip
from tf_l2t.hypergradient.growth import AdjointGrowth, adjoint_growth
from tf_l2t.hypergradient.memory import Choice
from tf_l2t.hypergradient.moments import exact_moments
from tf_l2t.hypergradient.optimizers import InnerOptimizer, sgd
from tf_l2t.hypergradient.rules import HVP_MODES
from tf_l2t.hypergradient.schedules import Plan, binomial, every_k, plan_for, store_all
from tf_l2t.hypergradient.state import Problem, StatusFeatures, StepOutput, StudentState, initial_state
from tf_l2t.hypergradient.step import Adjoint, inner_step, step_adjoint
from tf_l2t.hypergradient.unroll import (
    Hypergradient,
    HypergradientFunction,
    Rollout,
    advance,
    check_options,
    hypergradient,
    objective_of,
    rollout,
)

__all__ = [
    "HVP_MODES", "Adjoint", "AdjointGrowth", "CheckReport", "CheckRow", "Choice", "Hypergradient",
    "HypergradientFunction", "InnerOptimizer", "Plan", "Problem", "Rollout", "StatusFeatures", "StepOutput",
    "StudentState", "adam", "adjoint_growth", "advance", "binomial", "check_hypergradient", "check_options", "clip",
    "every_k", "exact_moments", "hypergradient", "initial_state", "inner_step", "objective_of", "plan_for", "rmsprop",
    "rollout", "sgd", "step_adjoint", "store_all",
]
