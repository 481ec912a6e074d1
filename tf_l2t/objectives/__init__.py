"""What a teacher maximises, and the exact measures that are reported."""

from tf_l2t.objectives.classification import (
    accuracy,
    calibrated_log_likelihood,
    class_precision,
    log_likelihood,
    relaxed_accuracy,
    running_accuracy,
)

OBJECTIVES = {"relaxed_accuracy": relaxed_accuracy, "log_likelihood": log_likelihood,
              "calibrated_log_likelihood": calibrated_log_likelihood}
"""What a teacher of classifiers may ascend, by name: (labels, logits) -> M."""

__all__ = ["OBJECTIVES", "accuracy", "calibrated_log_likelihood", "class_precision", "log_likelihood",
           "relaxed_accuracy", "running_accuracy"]
