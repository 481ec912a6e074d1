"""Student networks, the adapter that makes any Keras model one, and a check of what a teacher needs of it."""

from tf_l2t.students.functional import FunctionalStudent, check_classifier
from tf_l2t.students.mnist import lenet, mlp
from tf_l2t.students.preflight import LayerReport, PreflightReport, choose_hvp, preflight

STUDENTS = {"mlp": mlp, "lenet": lenet}

__all__ = ["STUDENTS", "FunctionalStudent", "LayerReport", "PreflightReport", "check_classifier", "choose_hvp", "lenet",
           "mlp", "preflight"]
