"""The loops that users call, Keras style."""

from tf_l2t.training.callbacks import TaughtStudentSummaries, TeacherSummaries
from tf_l2t.training.errors import (
    ClusterRefusedError,
    ForeignStatesError,
    StudentDivergedError,
    TeacherDivergedError,
    TerminatedError,
    UnwritableError,
    WorkerLostError,
)
from tf_l2t.training.optimizers import inner_optimizer
from tf_l2t.training.problem import classification_problem
from tf_l2t.training.taught_student import TaughtStudent
from tf_l2t.training.teacher_trainer import TeacherTrainer
from tf_l2t.training.teaching import Teaching

__all__ = ["ClusterRefusedError", "ForeignStatesError", "StudentDivergedError", "TaughtStudent",
           "TaughtStudentSummaries", "TeacherDivergedError", "TeacherSummaries", "TeacherTrainer", "Teaching",
           "TerminatedError", "UnwritableError", "WorkerLostError", "classification_problem", "inner_optimizer"]
