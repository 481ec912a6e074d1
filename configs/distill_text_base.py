"""Every field of a text distillation config, with its default: the protocol of ProKT's Table 2."""

import ml_collections

from configs import distill_base


def get_config() -> ml_collections.ConfigDict:
    config = distill_base.get_config().unlock()
    config.task = "text_distillation"
    config.encoder = ""  # a directory of a BERT encoder: the vocabulary, and the weights where networks name none

    config.data = data = ml_collections.ConfigDict()
    data.name = "tsv"  # or "glue/sst2", "glue/mrpc", "glue/qqp", "glue/mnli", "glue/qnli"
    data.path = ""  # a folder of train.tsv, valid.tsv, test.tsv; of GLUE, tensorflow-datasets' data directory
    data.dev_size = 0  # examples of train that dev takes; 0 for a folder that has valid.tsv
    data.split_seed = 0
    data.length = 128  # in word pieces, with [CLS] and [SEP]
    data.f1 = False  # of a folder: report F1 of the second class too
    data.augmented = ""  # a file in place of train.tsv, as trainers.augment writes it

    def network(name: str) -> ml_collections.ConfigDict:
        # "bilstm" or "bert"; options are those of tf_l2t.students.bilstm and bert_classifier; of "bert" its weights.
        return ml_collections.ConfigDict({"name": name, "options": (), "encoder": ""})

    config.student = network("bilstm")
    config.teacher = teacher = network("bert")
    teacher.path = teacher.first_path = ""  # as in distill_base.py

    config.method.name = "kl"
    training = config.training
    training.optimizer = "adam"
    training.learning_rate = 1e-3  # 3e-5, 5e-5 or 1e-4 for "bert"
    training.decay = "linear"
    training.weight_decay = 0.0
    training.clip_norm = 1.0
    training.batch_size = 32
    config.teacher_training.learning_rate = 3e-5
    return config.lock()
