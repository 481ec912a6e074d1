"""A cell of Table 2 of the L2T-DLF paper: a ResNet, WRN or DenseNet on CIFAR-10 or CIFAR-100, with all four losses.

    python -m trainers.compare --config configs/table2.py:resnet8-cifar10 --workdir runs/resnet8-cifar10 \\
        --config.data.path=DIRECTORY

The cells: resnet8, resnet20 and resnet32 with cifar10 and cifar100; wrn_40_10 and densenet_bc_190_40 with cifar10.
Error rates quoted from the paper (Table 2) are in QUOTED; `trainers.train_teacher --dry_run` prints them with the plan.

From appendix B.2: batches of 128, momentum 0.9, rate 0.1, divided by 10 after 40 and 60 epochs, flips and crops of
mirrored images, the mean of every pixel subtracted; 100 teacher steps. Not in the paper: the length of a run (here 80
epochs), the split (45,000 / 5,000), weight decay (here none), how far back a sweep goes (here the last fifth of a run).
DenseNet has batches of 16 and the rate 0.0125, in proportion: a sweep is predicted to fit 40 GB. The taught loss is
in the soft form, which does better on true labels than the paper's (docs/teaching.md); with "-paper" behind the cell's
name it is the paper's, with relaxed accuracy and Adam(1e-4, epsilon 1e-8) as there.

A teacher optimization step of resnet8 runs 28,000 student steps: these are for a GPU. `--config.quick` runs the whole
pipeline in minutes with a shallow network of the same kind: on 3,500 of the data set's images where
`--config.data.path` says where it is, or else on embedded digits, padded to 32 x 32 x 3.
"""

import ml_collections

from configs import base

# (cross entropy, smooth, large-margin softmax, taught), error rates in %.
QUOTED = {
    "resnet8-cifar10": (12.45, 12.08, 11.34, 10.82), "resnet8-cifar100": (39.79, 39.52, 38.93, 38.27),
    "resnet20-cifar10": (8.75, 8.53, 8.02, 7.63), "resnet20-cifar100": (32.33, 32.01, 31.65, 30.97),
    "resnet32-cifar10": (7.51, 7.42, 7.01, 6.95), "resnet32-cifar100": (30.38, 30.12, 29.56, 29.25),
    "wrn_40_10-cifar10": (3.80, 3.81, 3.69, 3.42), "densenet_bc_190_40-cifar10": (3.54, 3.48, 3.37, 3.08),
}
# Shallow networks of the same kind, for --config.quick.
SHALLOW = {"resnet": ("resnet", (("depth", 8), ("widths", (4, 4, 8, 16)))),
           "wrn": ("wide_resnet", (("depth", 10), ("width", 1))),
           "densenet": ("densenet_bc", (("depth", 10), ("growth", 4)))}
QUICK_DATA = (("data.name", "mnist_5k"), ("data.like_cifar", True), ("data.recipe", "digits"), ("data.train_size", 0),
              ("compare.pairs", ((4, 9), (3, 5))))
EPOCHS, TRAIN_SIZE, BATCH_SIZE = 80, 45_000, 128
# Batch and memory where 128 and 8 GB are not enough: with 128 DenseNet-BC-190-40 is predicted to need 165 GB.
ROOM = {"wrn_40_10": (128, "28GB"), "densenet_bc_190_40": (16, "32GB")}
# Figure 4 of the paper: otter and baby with classes like them and unlike them; of those the paper's text names dolphin
# and boy, the others are ours.
PAIRS = {"cifar100": (("otter", "dolphin"), ("otter", "seal"), ("otter", "rocket"), ("otter", "clock"),
                      ("baby", "boy"), ("baby", "girl"), ("baby", "bridge"), ("baby", "tractor")),
         "cifar10": (("cat", "dog"), ("automobile", "truck"), ("cat", "truck"), ("dog", "ship"))}


def get_config(cell: str = "resnet8-cifar10") -> ml_collections.ConfigDict:
    name = cell.removesuffix("-paper")
    if name not in QUOTED:
        raise ValueError(f"the cells of Table 2 are {sorted(QUOTED)}, each with -paper or without; received {cell!r}.")
    student, data = name.split("-")
    config = base.get_config()
    config.data.name = data
    config.data.recipe = "l2t_dlf"
    config.data.dev_size = 5_000
    config.student.name = student
    batch_size, memory_budget = ROOM.get(student, (BATCH_SIZE, "8GB"))
    config.training.num_steps = EPOCHS * TRAIN_SIZE // batch_size
    config.training.batch_size = batch_size
    config.training.learning_rate = 0.1 * batch_size / BATCH_SIZE
    config.training.decay = "drops:0.5,0.75"
    config.features.refresh_every = 100
    config.features.dev_sample_size = 2_000
    config.teacher.loss = "soft"
    outer = config.teacher_training
    outer.steps = 100
    outer.objective = "calibrated_log_likelihood"
    outer.learning_rate = 0.003
    outer.penalty = 0.001
    outer.truncate = config.training.num_steps // 5
    outer.memory_budget = memory_budget
    if cell.endswith("-paper"):
        config.teacher.loss, outer.objective = "paper", "relaxed_accuracy"
        outer.learning_rate, outer.decay = 1e-4, "constant"
        outer.damping = outer.penalty = outer.clip_norm = 0.0
    config.compare.setting = f"table2_{data}" + "_paper" * cell.endswith("-paper")
    config.compare.num_teachers = 1
    config.compare.rows = ("cross_entropy", "smooth", "large_margin", "label_smoothing", "untaught", "taught")
    config.compare.learning_rates = (0.01, 0.03, 0.1)
    config.compare.evaluate_every = config.training.num_steps // EPOCHS
    config.compare.pairs = PAIRS[data]
    config.compare.epochs = (20, 40, 60)
    config.quoted = "Table 2 of the paper, error in %: " + ", ".join(
        f"{loss} {error}" for loss, error in zip(("cross entropy", "smooth", "large-margin", "taught"), QUOTED[name],
                                                 strict=True))
    config.quick_changes = quick_changes(student)
    config.quick_data = QUICK_DATA
    return config


def quick_changes(student: str) -> tuple[tuple[str, object], ...]:
    shallow, options = SHALLOW[next(kind for kind in SHALLOW if student.startswith(kind))]
    return (
        ("data.dev_size", 500), ("data.train_size", 3500), ("student.name", shallow), ("student.options", options),
        ("training.num_steps", 60), ("training.batch_size", 16),
        ("features.refresh_every", 20), ("features.dev_sample_size", 100), ("teacher_training.steps", 2),
        ("teacher_training.truncate", 20), ("teacher_training.memory_budget", "1GB"),
        ("teacher_training.validation_freq", 2), ("teacher_training.validation_rollouts", 1),
        ("compare.learning_rates", (0.1,)), ("compare.seeds", 1), ("compare.selection_seeds", 1),
        ("compare.rows", ("cross_entropy", "smooth", "taught")), ("compare.evaluate_every", 30),
        ("compare.epochs", (0.1, 0.2)), ("compare.setting", ""))
