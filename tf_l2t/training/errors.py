"""What ends a training that goes nowhere."""


class TeacherDivergedError(RuntimeError):
    """Several teacher steps in a row had no finite gradient."""


class StudentDivergedError(RuntimeError):
    """A student's loss is not finite any more."""
