"""Writes the files that GLUE's site takes, by a network that distill trained.

    python -m trainers.submit --config configs/prokt_glue.py:sst2-bert6 --config.encoder=ENCODER \\
        --config.data.path=TFDS --network=runs/sst2/best.keras --workdir runs/submission

Writes NAME.tsv to the work directory, one for every unlabelled set of the task.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable

import ml_collections
from absl import flags

from tf_l2t.students import check_examples, load_network
from tf_l2t.text import write_submission
from trainers import command, text

NETWORK = flags.DEFINE_string("network", None, "A .keras file of distill.")


def prepare(config: ml_collections.ConfigDict, workdir: str) -> Callable[[], None]:
    if config.get("task") != "text_distillation" or not NETWORK.value or not workdir:
        raise ValueError("give a config of text distillation, --network and --workdir.")
    return prepare_submission(config, workdir, NETWORK.value)


def prepare_submission(config: ml_collections.ConfigDict, workdir: str, file: str) -> Callable[[], None]:
    """The work that predicts the unlabelled sets of config.data by the network in `file`.

    Raises:
      ValueError: for a task without such sets, no file, or a network of other classes, inputs or words.
    """
    data = text.load_text(config)
    if not data.task.unlabelled:
        raise ValueError(f"{data.task.name!r} has no set without labels; those of GLUE have.")
    if not pathlib.Path(file).is_file():
        raise ValueError(f"there is no network at {file!r}.")
    network = load_network(file)
    if network.output_shape[-1] != len(data.task.labels):
        raise ValueError(f"the network in {file!r} tells {network.output_shape[-1]} classes apart, the task has "
                         f"{len(data.task.labels)}.")
    check_examples(network, data.splits.train.x, f"{data.task.name!r} in word pieces")
    text.check_wordpieces(config, pathlib.Path(file).parent, "the network")

    def work() -> None:
        bar = int(command.shows_bars())
        for name, examples in data.task.unlabelled.items():
            outputs = network.predict(data.encode(examples), batch_size=500, verbose=bar)
            file = write_submission(workdir, name, outputs.argmax(axis=-1), data.task.labels)
            command.result(str(file), submission=file)

    return work


if __name__ == "__main__":
    command.main(prepare, ("text_distillation",))
