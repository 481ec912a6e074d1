"""A process of a cluster whose students cannot be fitted: `python -m tests.training.students_worker OUT NAME...`.

TF_CONFIG says which it is. It writes OUT: what each of the students of that name is told.
"""

import json
import os
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

import tensorflow as tf


def main(out: str, *names: str) -> None:
    strategy = tf.distribute.MultiWorkerMirroredStrategy()  # before anything else of TensorFlow's
    from tests.training.test_replicated_students import STUDENTS

    told = {}
    for name in names:
        try:
            with strategy.scope():
                STUDENTS[name]()
        except ValueError as error:
            told[name] = str(error)
    with open(out, "w") as file:
        json.dump(told, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
