"""A process of a cluster that trains a teacher: `python -m tests.training.worker OUT STATES WAY SEED STUDENT STOP`.

TF_CONFIG says which it is. It writes OUT: the teacher's weights, the history, and the bytes that it sent. A callback of
the first process stops the training after so many steps; 0 for none.
"""

import json
import os
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

import tensorflow as tf


def main(out: str, states: str, way: str, seed: str, student: str, stop: str) -> None:
    strategy = tf.distribute.MultiWorkerMirroredStrategy()  # before anything else of TensorFlow's
    import keras

    import tf_l2t
    from tests import tiny
    from tests.training.test_teacher_trainer import DEV, noisy_train
    from tf_l2t.training import TeacherTrainer, TerminatedError, WorkerLostError

    class Steps(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            print(f"step {epoch}", flush=True)
            if strategy.cluster_resolver.task_id == 0 and epoch + 1 == int(stop):
                self.model.stop_training = True

    trainer = TeacherTrainer(getattr(tiny, student), tf_l2t.teachers.AttentionTeacher(3, 6, num_keys=4), num_steps=12,
                             batch_size=12, refresh_every=5, seed=int(seed),
                             student_optimizer=keras.optimizers.SGD(0.05, momentum=0.9))
    trainer.compile(keras.optimizers.Adam(0.01), rollouts=3 if way == "rollouts" else 1, penalty=0.01,
                    strategy=strategy, distribute=way, jit=False)
    try:
        history = trainer.fit(noisy_train(), DEV, 6, validation_freq=3, validation_rollouts=3, verbose=0,
                              callbacks=[Steps()], checkpoint_dir=states or None)
    except (ValueError, TerminatedError, WorkerLostError) as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        sys.exit(75)
    with open(out, "w") as file:
        json.dump({"weights": [w.tolist() for w in trainer.get_weights()],
                   "bytes": trainer._options.replicas.bytes_sent,
                   "history": {name: values for name, values in history.history.items() if name != "seconds"}}, file)


main(*sys.argv[1:])
