"""Student networks, and the adapter that makes any Keras model one."""

from tf_l2t.students.functional import FunctionalStudent, check_classifier
from tf_l2t.students.mnist import lenet, mlp

STUDENTS = {"mlp": mlp, "lenet": lenet}

__all__ = ["STUDENTS", "FunctionalStudent", "check_classifier", "lenet", "mlp"]
