"""Teachers: modules that turn a student's status into the coefficients of its loss."""

from tf_l2t.teachers.attention import AttentionTeacher
from tf_l2t.teachers.base import Teacher

TEACHERS = {"attention": AttentionTeacher}

__all__ = ["TEACHERS", "AttentionTeacher", "Teacher"]
