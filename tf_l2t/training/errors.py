"""What ends a training before its time."""


class TeacherDivergedError(RuntimeError):
    """Several teacher steps in a row had no finite gradient."""


class StudentDivergedError(RuntimeError):
    """A student's loss is not finite any more."""


class ForeignStatesError(ValueError):
    """What is kept is of another training."""


class UnwritableError(OSError):
    """The disk is full, or may not be written to."""


class TerminatedError(RuntimeError):
    """The process was told to end; what it was at is kept, and goes on where it is begun again."""


class WorkerLostError(RuntimeError):
    """Another process of a cluster is gone; what was kept goes on once all are started again."""
