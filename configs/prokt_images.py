"""A pair of ProKT's Tables 1 and 3 on CIFAR-100, by every method; accuracies quoted from there are in QUOTED.

    python -m trainers.compare --config configs/prokt_images.py:resnet32x4-shufflenet_v2 \\
        --config.data.path=DIRECTORY --workdir runs/resnet32x4-shufflenet_v2
    python -m trainers.distill --config configs/prokt_images.py:vgg13-mobilenet_v2 --config.data.path=DIRECTORY \\
        --config.method.name=prokt --dry_run

The recipe is RepDistiller's: batches of 64, 240 epochs, rate 0.05, or 0.01 for MobileNetV2 and ShuffleNets, divided by
10 after 150, 180 and 210. Ours are a dev set of 5,000 train images, and λ = 0.3: the paper names none. These are for a
GPU.
"""

import ml_collections

from configs import distill_base

EPOCHS, TRAIN_SIZE, BATCH_SIZE = 240, 45_000, 64
METHODS = ("none", "kd", "fitnet", "at", "sp", "cc", "vid", "rkd", "pkt", "ab", "ft", "nst", "rco", "prokt", "crd",
           "crd_kd", "crd_prokt")
SLOW = ("mobilenet_v2", "shufflenet_v1", "shufflenet_v2")  # at a fifth of the rate
# Test accuracy in %: the teacher's, then in the order of METHODS.
QUOTED = {
    "vgg13-mobilenet_v2": (74.64, 64.6, 67.37, 64.14, 59.40, 66.30, 64.86, 65.56, 64.52, 67.13, 66.06, 61.78, 58.16,
                           68.42, 68.79, 69.73, 69.94, 69.59),
    "resnet50-mobilenet_v2": (79.34, 64.6, 67.35, 63.16, 58.58, 68.08, 65.43, 67.57, 64.43, 66.52, 67.20, 60.99, 64.96,
                              68.95, 69.32, 69.11, 69.54, 69.93),
    "resnet50-vgg8": (79.34, 70.36, 73.81, 70.69, 71.84, 73.34, 70.25, 70.30, 71.50, 73.01, 70.65, 70.29, 71.28, 73.85,
                      73.88, 74.30, 74.58, 75.14),
    "resnet32x4-shufflenet_v1": (79.42, 70.5, 74.07, 73.59, 71.73, 73.48, 71.14, 73.38, 72.28, 74.10, 73.55, 71.75,
                                 74.12, 75.62, 75.79, 75.11, 75.12, 76.0),
    "resnet32x4-shufflenet_v2": (79.42, 71.82, 74.45, 73.54, 72.73, 74.56, 71.29, 73.40, 73.21, 74.69, 74.31, 72.50,
                                 74.68, 76.26, 75.59, 75.65, 76.05, 76.86),
    "wrn_40_2-shufflenet_v1": (75.61, 70.5, 74.83, 73.73, 73.32, 74.52, 71.38, 73.61, 72.21, 73.89, 73.34, 72.03, 74.89,
                               75.53, 76.02, 76.05, 76.27, 76.76),
}


def get_config(pair: str = "resnet32x4-shufflenet_v2") -> ml_collections.ConfigDict:
    if pair not in QUOTED:
        raise ValueError(f"the pairs of Tables 1 and 3 are {sorted(QUOTED)}; received {pair!r}.")
    teacher, student = pair.split("-")
    config = distill_base.get_config()
    config.data.name, config.data.like_cifar, config.data.recipe = "cifar100", False, "prokt"
    config.teacher.name, config.student.name = teacher, student
    steps = TRAIN_SIZE // BATCH_SIZE
    config.training.num_steps = EPOCHS * steps
    config.training.first_steps = 30 * steps
    config.training.evaluate_every = 4 * steps
    config.training.learning_rate = 0.01 if student in SLOW else 0.05
    compare = config.compare
    compare.task, compare.teacher = "cifar100", teacher
    compare.students = ((student, ()),)
    compare.methods = tuple((name, (("method.name", name),)) for name in METHODS)
    compare.of_teacher = (("training.learning_rate", 0.05),)
    of_teacher, *others = QUOTED[pair]
    config.quoted = f"Tables 1 and 3 of the paper, test accuracy in %: teacher {of_teacher}, " + ", ".join(
        f"{name} {figure}" for name, figure in zip(METHODS, others, strict=True))
    return config
