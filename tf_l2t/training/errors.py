"""What ends a training before its time."""

from collections.abc import Sequence


class TeacherDivergedError(RuntimeError):
    """Several teacher steps in a row had no finite gradient."""


class StudentDivergedError(RuntimeError):
    """A student's loss is not finite any more."""


class ForeignStatesError(ValueError):
    """What is kept is of another training.

    Args:
      message: what is said.
      differ: in what they differ, by the keys of their identities.
    """

    def __init__(self, message: str, differ: Sequence[str] = ()):
        super().__init__(message)
        self.differ = list(differ)


class ClusterRefusedError(ValueError):
    """Another process of a cluster cannot go on."""


class UnwritableError(OSError):
    """The disk is full, or may not be written to."""


class TerminatedError(RuntimeError):
    """The process was told to end; what it was at is kept, and goes on where it is begun again."""


class WorkerLostError(RuntimeError):
    """Another process of a cluster is gone; what was kept goes on once all are started again."""
