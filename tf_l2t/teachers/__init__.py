"""Teachers: modules that turn a student's status into the coefficients of its loss."""

from tf_l2t.teachers.attention import AttentionTeacher, DiagonalTeacher, SharedDiagonalTeacher
from tf_l2t.teachers.base import Teacher
from tf_l2t.teachers.mlp import MLPTeacher
from tf_l2t.teachers.static import StaticTeacher

TEACHERS = {"attention": AttentionTeacher, "diagonal": DiagonalTeacher, "shared_diagonal": SharedDiagonalTeacher,
            "mlp": MLPTeacher, "static": StaticTeacher}
"""Classes of teachers by the name that a config gives."""

__all__ = ["TEACHERS", "AttentionTeacher", "DiagonalTeacher", "MLPTeacher", "SharedDiagonalTeacher", "StaticTeacher",
           "Teacher"]
