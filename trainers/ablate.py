"""Trains one teacher for every variant of a config, and compares the students that they teach.

    python -m trainers.ablate --config configs/ablation_shifted.py --workdir runs/ablation

The same command goes on with a run that was stopped. Writes manifest.json, table.md, and for every variant what
`trainers.compare` writes of a dev size.
"""

from __future__ import annotations

from collections.abc import Callable

import ml_collections

from tf_l2t.training import measured
from tf_l2t.training.pace import Pace, tell
from tf_l2t.training.workdir import resume_workdir
from trainers import command
from trainers.compare import MEASURED, Table, check_measured, measured_row

KEY = (*measured.KEY, "ablation")


def prepare(config: ml_collections.ConfigDict, workdir: str) -> Callable[[], None]:
    check_measured(config, KEY)
    if not config.ablation:
        raise ValueError("config.ablation names no variant; see configs/ablation_shifted.py.")
    if len({name for name, _ in config.ablation}) < len(config.ablation):
        raise ValueError(f"config.ablation names a variant twice: {[name for name, _ in config.ablation]}.")
    tables = {name: Table(command.changed(config, changes), []) for name, changes in config.ablation}
    about = command.describe(next(iter(tables.values())).splits)
    folder = resume_workdir(workdir, command.command_line(), command.plain(config), about)

    def work() -> None:
        rows, pace = [], Pace(len(tables))
        for number, (name, table) in enumerate(tables.items()):
            tell({"variant": name}, command.VERBOSE.value, pace.left(number))
            results = table.run(folder / f"variant{number}").results
            new = [{**measured_row(table.config, result), "ablation": name} for result in results]
            rows += new
            if MEASURED.value:
                measured.record(MEASURED.value, new, KEY)
        (folder / "table.md").write_text(measured.ablation_table(rows) + "\n", encoding="utf-8")
        command.result(measured.ablation_table(rows), rows=rows)

    return work


if __name__ == "__main__":
    command.main(prepare)
