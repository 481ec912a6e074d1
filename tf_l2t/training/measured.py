"""Measured figures: one JSON file per subject, and the tables in the documents that are made from it."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tf_l2t.training.rows import ORACLES, ROWS
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


def check(path: str | pathlib.Path, key: Sequence[str] = KEY) -> None:
    """Raises ValueError unless `record` may write rows of this `key` to the file."""
    found = [tuple(row.get(name) for name in key) for row in read(path)]
    if any(None in values for values in found) or len(set(found)) < len(found):
        raise ValueError(f"{str(path)!r} holds figures of another kind: {list(key)} do not tell its rows apart. Record "
                         "in another file.")


def record(path: str | pathlib.Path, rows: list[dict[str, Any]], key: Sequence[str] = KEY,
           versions: Mapping[str, str] | None = None) -> None:
    """Adds `rows` to the file, in the place of rows with the same values of `key`.

    Processes that record at the same time wait for each other. Every row is dated; the file's date, machine and
    versions are those of the newest rows.

    Args:
      path: the file.
      rows: JSON values.
      key: what tells the file's rows apart.
      versions: of packages that the figures depend on besides the project's own.

    Raises:
      ValueError: if the file exists and is no file of measured figures, or one of another kind.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone_in(path.parent):
        _record(path, rows, key, versions)


@contextlib.contextmanager
def _alone_in(directory: pathlib.Path) -> Iterator[None]:
    """Waits for other processes that record in the directory."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _record(path: pathlib.Path, rows: list[dict[str, Any]], key: Sequence[str], versions: Mapping[str, str] | None
            ) -> None:
    check(path, key)
    kept = read(path)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    new = [{**row, "date": today} for row in rows]
    replaced = {tuple(row[k] for k in key) for row in new}
    kept = [row for row in kept if tuple(row[k] for k in key) not in replaced]
    about = environment()
    about["versions"] |= versions or {}
    write_json(path, {"date": today, **about, "rows": kept + new})


def amend(path: str | pathlib.Path, changes: list[dict[str, Any]], key: Sequence[str] = KEY) -> None:
    """Puts further values into rows that the file has, found by `key`; their dates and the file's stay.

    Args:
      path: the file.
      changes: the values of `key`, and new ones; those of no row of the file are left out.
      key: some of the rows' names.

    Raises:
      ValueError: as `read`.
      FileNotFoundError: if there is no file.
    """
    found = {tuple(change[name] for name in key): change for change in changes}
    path = pathlib.Path(path)
    with _alone_in(path.parent):
        rows = [row | found.get(tuple(row.get(name) for name in key), {}) for row in read(path)]
        write_json(path, json.loads(path.read_text()) | {"rows": rows})


def error_table(rows: list[dict[str, Any]], setting: str | None = None) -> str:
    """Measured test errors, of one setting or all, as a Markdown table."""
    rows = [row for row in rows if setting in (None, row["setting"])]
    if not rows:
        return "No figures yet."
    lines = ["| setting | dev | student | loss | rate | test error, %, last | of the best-on-dev weights | "
             "worst teacher | students | date |", "|---|---|---|---|---|---|---|---|---|---|"]
    for row in rows:
        rate = f"{row['learning_rate']:g}"
        if row.get("tune_rate") is not None:
            rate += f", then {row['tune_rate']:g}"
        loss = row["loss"] + "".join(f", {key} {value}" for key, value in (row.get("variant") or {}).items())
        students = f"{row['teachers']} × {row['seeds']}" if row.get("teachers") else f"{row['seeds']}"
        lines.append(f"| {row['setting']} | {row['dev_size']} | {row['student']} | {loss} | {rate} | {_error(row)} | "
                     f"{_error(row, 'best_test_error')} | {_worst(row)} | {students} | {row['date']} |")
    return "\n".join([*lines, *_commands(rows)])


class Group(NamedTuple):
    """The rows of one setting, dev size and student, by what they know.

    Attributes:
      key: setting, dev size, student.
      named: all rows, by `loss`.
      fixed: losses that see train alone.
      seeing: rivals that see dev too.
      oracles: what knows more than the data, in the order of `ORACLES`.
    """

    key: tuple[Any, ...]
    named: dict[str, dict[str, Any]]
    fixed: list[dict[str, Any]]
    seeing: list[dict[str, Any]]
    oracles: list[list[dict[str, Any]]]


def groups(rows: list[dict[str, Any]]) -> list[Group]:
    """Measured rows of comparisons, by setting, dev size and student."""
    found: dict[tuple[Any, ...], dict[str, dict[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["setting"], row["dev_size"], row["student"]), {})[row["loss"]] = row
    made = []
    for key, named in found.items():
        rivals = [row for loss, row in named.items() if loss in ROWS and not ROWS[loss].taught]
        plain = [row for row in rivals if not ROWS[row["loss"]].oracle]
        made.append(Group(key, named, [row for row in plain if not ROWS[row["loss"]].sees_dev],
                          [row for row in plain if ROWS[row["loss"]].sees_dev],
                          [[row for row in rivals if ROWS[row["loss"]].oracle == known] for known in ORACLES]))
    return made


def summary_table(rows: list[dict[str, Any]]) -> str:
    """One line per setting, dev size and student: the taught loss beside the best of every kind of rival."""
    lines = ["| setting | dev | student | cross entropy | best fixed loss | **taught** | best rival that sees dev | "
             f"**taught, then tuned** | {' | '.join(ORACLES)} |", "|---|---|---|---|---|---|---|---|---|---|"]
    for key, named, fixed, seeing, oracles in groups(rows):
        others = [] if [row["loss"] for row in fixed] == ["cross_entropy"] else fixed
        cells = [_best([named.get("cross_entropy")], False), _best(others), _best([named.get("taught")], False),
                 _best(seeing), _best([named.get("taught_tuned")], False), *(_best(known, False) for known in oracles)]
        lines.append(f"| {' | '.join([*map(str, key), *cells])} |")
    return "\n".join(lines)


RATIOS = ("taught by cross entropy", "taught by best fixed loss", "tuned by best rival that sees dev",
          "tuned by true noise")


def ratios(group: Group) -> tuple[float | None, ...]:
    """The errors of the taught loss, alone and then tuned on dev, by those of rivals: as `RATIOS`; None for no row."""
    def ratio(loss: str, rivals: Sequence[dict[str, Any]]) -> float | None:
        if loss not in group.named or not rivals:
            return None
        return group.named[loss]["test_error_mean"] / min(row["test_error_mean"] for row in rivals)

    plain = [group.named["cross_entropy"]] if "cross_entropy" in group.named else []
    return (ratio("taught", plain), ratio("taught", group.fixed), ratio("taught_tuned", group.seeing),
            ratio("taught_tuned", group.oracles[0]))


def ratio_table(rows: list[dict[str, Any]]) -> str:
    """`ratios` of every setting, dev size and student in which something is taught, as a Markdown table."""
    lines = [f"| setting | dev | student | {' | '.join(RATIOS)} |", "|---|---|---|---|---|---|---|"]
    for group in groups(rows):
        if "taught" in group.named:
            cells = ["–" if value is None else f"{value:.3f}" for value in ratios(group)]
            lines.append(f"| {' | '.join([*map(str, group.key), *cells])} |")
    return "\n".join(lines)


def ablation_table(rows: list[dict[str, Any]]) -> str:
    """Variants of a teacher as a Markdown table."""
    lines = ["| variant | rate | test error, %, last | of the best-on-dev weights |", "|---|---|---|---|"]
    lines += [f"| {row['ablation']} | {row['learning_rate']:g} | {_error(row)} | {_error(row, 'best_test_error')} |"
              for row in rows]
    return "\n".join([*lines, *_commands(rows)])


def _error(row: dict[str, Any], name: str = "test_error") -> str:
    mean = row.get(f"{name}_mean")
    return "–" if mean is None else f"{mean:.2f} ± {row[f'{name}_std']:.2f}"


def _worst(row: dict[str, Any]) -> str:
    error = row.get("worst_teacher_error")
    return "–" if error is None else f"{error:.2f} (number {row['worst_teacher']})"


def _best(rows: Sequence[dict[str, Any] | None], name: bool = True) -> str:
    found = [row for row in rows if row is not None]
    if not found:
        return "–"
    best = min(found, key=lambda row: row["test_error_mean"])
    return _error(best) + (f" ({best['loss']})" if name else "")


def _commands(rows: list[dict[str, Any]]) -> list[str]:
    commands = sorted({row["command"] for row in rows})
    return ["", "Commands:", "", *(f"    {command}" for command in commands)]


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
