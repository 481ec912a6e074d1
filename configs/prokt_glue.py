"""A task and student of ProKT's Table 2: GLUE, bert6 or bilstm, taught by a 12-layer BERT; figures quoted in QUOTED.

    python -m trainers.compare --config configs/prokt_glue.py:sst2-bert6 --config.encoder=BERT12 \\
        --config.student.encoder=BERT6 --config.data.path=TFDS --workdir runs/sst2-bert6
    python -m trainers.distill --config configs/prokt_glue.py:mrpc-bilstm --config.encoder=BERT12 \\
        --config.data.path=TFDS --config.method.name=prokt --dry_run

BERT12 and BERT6 are directories of pre-trained encoders, TFDS one of tensorflow-datasets with glue prepared. 4 epochs
without distillation and 6 with; batches of 32. As in the paper the rate of bert6 (3e-5, 5e-5 or 1e-4; the bi-LSTM has
1e-3) and λ are chosen on dev, of every method, and prokt_tuned is the best λ.
The paper's figures are of GLUE's test sets: trainers.submit writes the files to send. The rows here are of the
validation sets. TinyBERT's first stage has as many steps again, on the train set as it is; with a larger one that
trainers.augment makes, and TinyBERT's own encoder, as in the paper, for the cells of bert6:

    --config.compare.changes="(('tinybert', (('data.augmented', 'FILE'), ('student.encoder', 'TINYBERT'))), \\
        ('tinybert_prokt', (('data.augmented', 'FILE'), ('student.encoder', 'TINYBERT'))))"
"""

import ml_collections

from configs import distill_text_base

TRAIN = {"sst2": 67_349, "mrpc": 3_668, "qqp": 363_846, "mnli": 392_702, "qnli": 104_743}
METHODS = {"bert6": ("none", "kl", "rco_kl", "prokt_0", "prokt", "tinybert", "tinybert_prokt", "pkd"),
           "bilstm": ("none", "kl", "rco_kl", "prokt_0", "prokt")}
LAMS = (0.1, 0.4, 0.5, 0.7)  # beside 0 and 0.3, for dev to choose from
RATES = {"bert6": (3e-5, 5e-5, 1e-4), "bilstm": (1e-3,)}
BATCH_SIZE = 32
DEV_SIZE = {task: max(400, round(0.02 * size)) for task, size in TRAIN.items()}
# In the order of METHODS; F1 before accuracy, matched before mismatched. TEACHERS are of BERT12 itself, and PF of the
# BERT of six layers that Turc et al. (2019) pre-trained and fine-tuned without distillation.
TEACHERS = {"sst2": "93.4", "mrpc": "88.0/83.2", "qqp": "71.4/89.2", "mnli": "84.3/83.4", "qnli": "91.1"}
PF = {"sst2": "91.8", "mrpc": "86.8/81.7", "qqp": "70.4/88.9", "mnli": "82.8/82.2", "qnli": "88.9"}
QUOTED = {
    "sst2-bert6": ("92.6", "90.8", "92.6", "92.9", "93.3", "93.1", "93.6", "92.0"),
    "mrpc-bert6": ("86.3/81.4", "86.7/81.4", "86.8/81.4", "87.1/82.3", "87.0/82.3", "87.3/82.6", "88.1/83.8",
                   "85.0/79.9"),
    "qqp-bert6": ("70.4/88.9", "70.5/88.9", "70.4/88.7", "70.7/88.9", "70.9/88.9", "71.6/89.1", "71.2/89.2",
                  "70.7/88.9"),
    "mnli-bert6": ("82.0/80.4", "81.6/80.8", "82.3/81.2", "82.5/81.3", "82.9/82.2", "84.6/83.2", "84.2/83.4",
                   "81.5/81.0"),
    "qnli-bert6": ("89.3", "88.9", "89.3", "89.4", "89.7", "90.4", "90.9", "89.0"),
    "sst2-bilstm": ("86.3", "86.4", "86.7", "86.2", "88.3"),
    "mrpc-bilstm": ("76.2/67.0", "77.7/68.1", "76.0/67.3", "80.1/71.8", "80.3/71.0"),
    "qqp-bilstm": ("60.1/80.7", "60.7/81.2", "60.1/80.4", "59.7/79.7", "60.2/80.4"),
    "mnli-bilstm": ("66.9/66.6", "68.1/67.6", "66.9/67.6", "68.4/68.3", "68.8/69.1"),
    "qnli-bilstm": ("73.2", "72.7", "72.5", "73.5", "76.1"),
}


def get_config(cell: str = "sst2-bert6") -> ml_collections.ConfigDict:
    if cell not in QUOTED:
        raise ValueError(f"the cells of Table 2 are {sorted(QUOTED)}; received {cell!r}.")
    task, student = cell.split("-")
    config = distill_text_base.get_config()
    config.data.name = f"glue/{task}"
    config.data.dev_size = DEV_SIZE[task]
    epoch = (TRAIN[task] - config.data.dev_size) // BATCH_SIZE
    config.training.batch_size = BATCH_SIZE
    config.training.num_steps = config.training.first_steps = 6 * epoch
    config.training.evaluate_every = -(-epoch // 2)  # 12 looks, so that 4 anchors have as many each
    if student == "bert6":
        config.student.name = "bert"
        config.student.options = (("num_layers", 6),)  # also of BERT12, where no BERT6 is at hand
    config.teacher_training.learning_rate = 3e-5
    compare = config.compare
    compare.task, compare.teacher = task, "bert12"
    compare.students = ((student, ()),)
    lams = tuple(f"prokt_{lam:g}" for lam in LAMS)
    compare.methods = tuple((name, methods_changes(name, epoch)) for name in (*METHODS[student], *lams))
    compare.learning_rates = RATES[student]
    compare.tuned = (("prokt_tuned", ("prokt_0", "prokt", *lams)),)
    compare.of_teacher = (("training.learning_rate", 3e-5), ("training.num_steps", 4 * epoch))
    quoted = [("teacher", TEACHERS[task]), *([("PF", PF[task])] if student == "bert6" else []),
              *zip(METHODS[student], QUOTED[cell], strict=True)]
    config.quoted = "Table 2 of the paper, GLUE's test sets: " + ", ".join(f"{name} {value}" for name, value in quoted)
    return config


def methods_changes(name: str, epoch: int) -> tuple:
    if name == "none":
        return (("method.name", "none"), ("training.num_steps", 4 * epoch))
    if name.startswith("prokt_"):
        return (("method.name", "prokt"), ("method.options", (("lam", float(name.removeprefix("prokt_"))),)))
    return (("method.name", name),)
