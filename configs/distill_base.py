"""Every field of a distillation config, with its default: the protocol of ProKT's Tables 1 and 3, on MNIST."""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.task = "distillation"
    config.seed = 0  # of the student, its batches, and a teacher that is trained along

    config.data = base.get_config().data.unlock()  # as in base.py
    config.data.name = "mnist"
    config.data.like_cifar = True
    config.data.recipe = "digits"
    config.data.dev_size = 5000

    def network(name: str) -> ml_collections.ConfigDict:
        return ml_collections.ConfigDict({"name": name, "activation": "relu", "hidden": 500, "options": ()})

    config.student = network("resnet8")  # as in base.py
    config.teacher = teacher = network("resnet20")
    teacher.path = ""  # a directory that distill wrote: its network, its anchors; "" for a new one, trained along
    teacher.first_path = ""  # another, of the first phase of "tinybert_prokt"; "" for the teacher as it begins

    config.method = method = ml_collections.ConfigDict()
    method.name = "kd"  # see tf_l2t.distillation.METHODS; "none" trains a student, or a teacher, by itself
    method.options = ()  # (name, value), such as (("temperature", 2.0),): see tf_l2t.distillation.method

    config.training = training = ml_collections.ConfigDict()
    training.num_steps = 20_000
    training.first_steps = 2500  # of the phase before, of methods that have one; there the rate does not fall
    training.first_learning_rate = 0.0  # of that phase; 0 for learning_rate
    training.evaluate_every = 1000  # steps between two looks at dev
    training.batch_size = 64
    training.optimizer = "coupled_sgd"  # or "adam"
    training.learning_rate = 0.05
    training.decay = "drops:0.625,0.75,0.875"  # after epochs 150, 180 and 210 of 240
    training.momentum = 0.9
    training.weight_decay = 5e-4  # in the gradient of "coupled_sgd"; of "adam" beside it, as AdamW's
    training.clip_norm = 0.0  # of the whole gradient; 0 for no limit
    training.anchors = 0  # checkpoints kept, evenly, for "rco"; 0 for none

    config.teacher_training = outer = ml_collections.ConfigDict()  # of a teacher that is trained along
    outer.learning_rate = 0.05

    config.compare = compare = ml_collections.ConfigDict()  # of trainers.compare
    compare.task = ""  # the name of data and budget in measured figures
    compare.teacher = ""  # of the teacher there
    compare.of_teacher = ()  # (field, value): what is changed where the teacher is trained by itself
    compare.students = ()  # (name, ((field, value), ...)): what is changed in this config
    compare.methods = ()  # as students
    compare.changes = ()  # as methods: what is changed besides for some of them
    compare.learning_rates = ()  # every method has them all, its row is the one best on dev; () for training's alone
    compare.tuned = ()  # (name, methods): a row more, of the one of these that is best on dev
    compare.skipped = ()  # (student, method) that are left out
    compare.seeds = 3
    config.quoted = ""  # the paper's figures, said in the report

    config.quick = False
    config.quick_changes = ()
    config.quick_data = ()
    return config.lock()
