"""Learned loss functions for TensorFlow and Keras.

A teacher network sets the coefficients of a student's loss at every step of the student's training, and is itself
trained by exact reverse-mode differentiation through that whole training (Learning to Teach with Dynamic Loss
Functions). Names below are loaded when first used.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_MODULES = ("data", "distillation", "export", "features", "hypergradient", "losses", "objectives", "plotting",
            "pretrained", "saved_models", "students", "teachers", "text", "training", "translation")
_NAMES = {"TaughtStudent": "tf_l2t.training", "TeacherTrainer": "tf_l2t.training",
          "Teaching": "tf_l2t.training",
          "export_teacher": "tf_l2t.export", "load_teacher": "tf_l2t.export",
          "load_signatures": "tf_l2t.saved_models", "load_model": "tf_l2t.saved_models",
          "preflight": "tf_l2t.students",
          "pretrained_teacher": "tf_l2t.pretrained"}

__all__ = ["__version__", *_MODULES, *_NAMES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"tf_l2t.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    raise AttributeError(f"module 'tf_l2t' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
