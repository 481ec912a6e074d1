"""Measured figures: one JSON file per subject, and the tables in the documents that are made from it."""

from __future__ import annotations

import datetime
import json
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tf_l2t.training.workdir import environment, write_json

KEY = ("setting", "dev_size", "student", "loss")


def read(path: str | pathlib.Path) -> list[dict[str, Any]]:
    """The rows of a file of measured figures; none if there is no file.

    Raises:
      ValueError: if the file is of another kind.
    """
    path = pathlib.Path(path)
    if not path.exists():
        return []
    try:
        return json.loads(path.read_text())["rows"]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ValueError(f"{str(path)!r} is no file of measured figures: {error!r}.") from error


def record(path: str | pathlib.Path, rows: list[dict[str, Any]], key: Sequence[str] = KEY,
           versions: Mapping[str, str] | None = None) -> None:
    """Adds `rows` to the file, in the place of rows with the same values of `key`.

    Every row is dated; the file's date, machine and versions are those of the newest rows.

    Args:
      path: the file.
      rows: JSON values.
      key: what tells the file's rows apart.
      versions: of packages that the figures depend on besides the project's own.

    Raises:
      ValueError: if the file exists and is no file of measured figures.
    """
    path = pathlib.Path(path)
    kept = read(path)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    new = [{**row, "date": today} for row in rows]
    replaced = {tuple(row[k] for k in key) for row in new}
    kept = [row for row in kept if tuple(row[k] for k in key) not in replaced]
    path.parent.mkdir(parents=True, exist_ok=True)
    about = environment()
    about["versions"] |= versions or {}
    write_json(path, {"date": today, **about, "rows": kept + new})


def error_table(rows: list[dict[str, Any]]) -> str:
    """Measured test errors as a Markdown table."""
    lines = ["| setting | dev | student | loss | rate | test error, %, last | of the best-on-dev weights | "
             "worst teacher | students | date |", "|---|---|---|---|---|---|---|---|---|---|"]
    for row in rows:
        best = "–" if row.get("best_test_error_mean") is None else \
            f"{row['best_test_error_mean']:.2f} ± {row['best_test_error_std']:.2f}"
        rate = f"{row['learning_rate']:g}"
        if row.get("tune_rate") is not None:
            rate += f", then {row['tune_rate']:g}"
        loss = row["loss"] + "".join(f", {key} {value}" for key, value in (row.get("variant") or {}).items())
        worst = "–" if row.get("worst_teacher_error") is None else f"{row['worst_teacher_error']:.2f}"
        students = f"{row['teachers']} × {row['seeds']}" if row.get("teachers") else f"{row['seeds']}"
        lines.append(f"| {row['setting']} | {row['dev_size']} | {row['student']} | {loss} | {rate} | "
                     f"{row['test_error_mean']:.2f} ± {row['test_error_std']:.2f} | {best} | {worst} | {students} | "
                     f"{row['date']} |")
    commands = sorted({row["command"] for row in rows})
    return "\n".join([*lines, "", "Commands:", "", *(f"    {command}" for command in commands)])


def fill_tables(text: str, folder: str | pathlib.Path,
                tables: Mapping[str, Callable[[list[dict[str, Any]]], str]] | None = None) -> str:
    """`text` with everything between `<!-- measured: NAME -->` and `<!-- end -->` made anew from the rows of NAME.json.

    Args:
      text: Markdown.
      folder: of the files of measured figures.
      tables: rows -> table, by what stands in the marker: `NAME`, or `NAME PART` for one of several tables of a file.
        `error_table` for all others.

    Raises:
      ValueError: if there is no such file in `folder`.
    """
    def table(match: re.Match[str]) -> str:
        marker = match[1]
        file = pathlib.Path(folder) / f"{marker.split()[0]}.json"
        if not file.exists():
            raise ValueError(f"a document names the measured figures {marker!r}, but there is no {file}.")
        make = (tables or {}).get(marker, error_table)
        return f"<!-- measured: {marker} -->\n{make(json.loads(file.read_text())['rows'])}\n<!-- end -->"

    return re.sub(r"<!-- measured: (\w+(?: \w+)?) -->\n.*?<!-- end -->", table, text, flags=re.DOTALL)
