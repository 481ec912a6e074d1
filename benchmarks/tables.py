"""The layout of engine.json's rows, and the tables made from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.objectives import spearman

Rows = list[dict[str, Any]]

KEY = ("student", "batch", "steps", "library", "schedule", "hvp", "jit", "allocator")
FIGURES = ("ms_per_step", "plain_ms_per_step", "peak_mb", "compile_s")
MEMORY_STEPS = (100, 300, 1000, 3000, 10_000)
PEERS = {"jax": "JAX", "torchopt": "TorchOpt", "higher": "higher"}
WORK = {"mlp": (20, 200), "lenet": (500, 20)}
MACHINE_MB = 24 * 1024
NEAR = 3  # BLEU between students that are hard to rank


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _commands(rows: Rows) -> list[str]:
    """What made the rows, as lines of code."""
    return [f"    {command}" for command in sorted({row["command"] for row in rows})]


def setting_name(row: dict[str, Any]) -> str:
    """Library and setting in one phrase."""
    name = {"tf_l2t": "tf_l2t", **PEERS}[row["library"]]
    how = [row["schedule"], row["hvp"], "XLA" if row["jit"] and row["library"] == "tf_l2t" else None,
           None if row["allocator"] == "default" else row["allocator"]]
    return f"{name}, {', '.join(part for part in how if part)}"


def _fastest(rows: Rows, library: str) -> float | None:
    times = [row["ms_per_step"] for row in rows if row["library"] == library and row["ms_per_step"] is not None]
    return min(times, default=None)


def times_table(rows: Rows, student: str) -> str:
    """Every setting's time and memory on one student, the fastest first."""
    batch, steps = WORK[student]
    rows = [row for row in rows if (row["student"], row["batch"], row["steps"]) == (student, batch, steps)]
    if not rows:
        return "No figures yet."
    rows = sorted(rows, key=lambda row: (row["ms_per_step"] is None, row["ms_per_step"]))
    best = {name: _fastest(rows, name) for name in PEERS}
    lines = ["| library, setting | plain, ms a step | with the teacher's gradient | ratio | "
             + " | ".join(f"÷ {name}" for name in PEERS.values()) + " | peak, MB | compile, s |",
             "|---|" + "---|" * (5 + len(PEERS))]
    for row in rows:
        time, plain = row["ms_per_step"], row["plain_ms_per_step"]
        ratios = [None if time is None or best[name] is None else time / best[name] for name in PEERS]
        lines.append(" | ".join([
            f"| {setting_name(row)}", _number(plain), _number(time) if time is not None else row.get("note", "–"),
            _number(None if time is None else time / plain), *map(_number, ratios), _number(row["peak_mb"], 0),
            _number(row["compile_s"], 1)]) + " |")
    return "\n".join([*lines, "", *_commands(rows)])


def slope_mb(points: list[tuple[int, float]]) -> float | None:
    """Megabytes a step between the last two measured (T, MB)."""
    if len(points) < 2:
        return None
    (t0, m0), (t1, m1) = sorted(points)[-2:]
    return (m1 - m0) / (t1 - t0)


def memory_table(rows: Rows) -> str:
    """Peak memory against T, with the slope at the end and where it leads."""
    rows = [row for row in rows if row["student"] == "mlp" and row["steps"] in MEMORY_STEPS]
    if not rows:
        return "No figures yet."
    settings: dict[str, dict[int, dict[str, Any]]] = {}
    for row in rows:
        settings.setdefault(setting_name(row), {})[row["steps"]] = row
    lines = ["| library, setting | " + " | ".join(f"T = {t:,}" for t in MEMORY_STEPS)
             + " | MB a step | 24 GB at T = | predicted ÷ measured |",
             "|---|" + "---|" * (len(MEMORY_STEPS) + 3)]
    for name, found in settings.items():
        cells = []
        for t in MEMORY_STEPS:
            row = found.get(t, {})
            predicted = row.get("predicted_mb")
            cells.append(f"({predicted:,.0f})" if predicted else _number(row.get("peak_mb"), 0))
        points = [(t, row["peak_mb"]) for t, row in found.items() if row["peak_mb"] is not None]
        slope, end = slope_mb(points), "–"
        # With √T states kept the slope falls as T grows: a straight line from it leads nowhere.
        linear = not next(iter(found.values()))["schedule"].startswith(("every_k", "binomial"))
        if slope and slope > 0 and linear:
            t, peak = max(points)
            end = f"{t + (MACHINE_MB - peak) / slope:,.0f}"
        planned = [row["planned_mb"] / row["peak_mb"] for _, row in sorted(found.items()) if row.get("planned_mb")]
        lines.append(f"| {name} | {' | '.join(cells)} | {_number(slope)} | {end} | "
                     + (f"{min(planned):.2f} … {max(planned):.2f} |" if planned else "– |"))
    return "\n".join([*lines, "", *_commands(rows)])


def fit_table(rows: Rows) -> str:
    """`TaughtStudent.fit` beside Keras's `fit`."""
    found: dict[tuple[str, int, bool], dict[str, dict[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["student"], row["batch"], row["jit"]), {})[row["loss"]] = row
    lines = ["| student | batch | jit_compile | cross entropy, ms a step | taught, ms a step | ratio |",
             "|---|---|---|---|---|---|"]
    for (student, batch, jit), pair in found.items():
        plain, taught = pair["cross_entropy"]["ms_per_step"], pair["taught"]["ms_per_step"]
        lines.append(f"| {student} | {batch} | {jit} | {_number(plain)} | {_number(taught)} | "
                     f"{_number(taught / plain)} |")
    return "\n".join([*lines, "", "    python -m benchmarks.fit"])


def first_call_table(rows: Rows) -> str:
    """Seconds until the first gradient, and memory; the smallest student first."""
    titles = ("student", "weights", "batch", "mode", "XLA", "preflight, s", "trace and compile, s", "later calls, s",
              "peak, MB", "predicted, MB")
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for row in sorted(rows, key=lambda row: row["weights"]):
        seconds = (_number(row["preflight_s"], 1), _number(row["compile_s"], 1), _number(row["seconds"], 2))
        cells = (row["student"], f"{row['weights']:,}", row["batch"], row["hvp"], "yes" if row["jit"] else "no",
                 *seconds, f"{row['peak_mb']:,}", f"{row['predicted_mb']:,}")
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join([*lines, "", "    python -m benchmarks.first_call"])


def translation_fit_table(rows: Rows) -> str:
    """`fit_translator` beside Keras's `fit`, and decoding."""
    decoding = {row["student"]: row for row in rows if row["what"] == "decoding"}
    titles = ("student", "`fit_translator`, ms a step", "Keras `fit`, ms a step", "ratio", "training, tokens / s",
              "greedy, positions / s", "beam 5, positions / s")
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for row in (row for row in rows if row["what"] == "fit"):
        own, plain, decoded = row["ms_per_step"], row["keras_ms_per_step"], decoding[row["student"]]
        speeds = (row["tokens_per_second"], *(decoded[f"beam{k}_positions_per_second"] for k in (1, 5)))
        lines.append(f"| {row['student']} | {own:,.0f} | {plain:,.0f} | {_number(own / plain)} | "
                     f"{' | '.join(f'{speed:,}' for speed in speeds)} |")
    return "\n".join([*lines, "", *_commands([row for row in rows if row["what"] != "teacher_step"])])


def teacher_step_table(rows: Rows) -> str:
    """Time and memory of a translation teacher's step against T."""
    rows = [row for row in rows if row["what"] == "teacher_step"]
    lines = ["| student | T | seconds | seconds / T | trace and compile, s | peak, MB |", "|---|---|---|---|---|---|"]
    for row in sorted(rows, key=lambda row: (row["student"], row["steps"])):
        lines.append(f"| {row['student']} | {row['steps']} | {_number(row['seconds'], 1)} | "
                     f"{_number(row['seconds'] / row['steps'])} | {_number(row['compile_s'], 1)} | "
                     f"{row['peak_mb']:,} |")
    return "\n".join([*lines, "", *_commands(rows)])


def prokt_step_table(rows: Rows) -> str:
    """A step of ProKT beside the sum of its parts."""
    lines = ["| teacher | student | step of teacher, ms | of student | forward passes | sum | step of ProKT | ratio |",
             "|---|---|---|---|---|---|---|---|"]
    for row in rows:
        passes = row["teacher_forward_ms"] + row["student_forward_ms"]
        figures = (row["teacher_ms"], row["student_ms"], passes, row["parts_ms"], row["prokt_ms"])
        lines.append(f"| {row['teacher']} | {row['student']} | {' | '.join(_number(ms, 1) for ms in figures)} | "
                     f"{_number(row['ratio'])} |")
    return "\n".join([*lines, "", "    python -m benchmarks.distillation"])


# Of a training that is disturbed, in the order of the table.
OUTCOMES = ("SIGKILL at a random moment", "SIGKILL within a step", "SIGKILL while a state is written",
            "SIGKILL at the end", "SIGTERM", "files damaged", "trainings", "bytes")


def reliability_table(rows: Rows) -> str:
    """What was done to trainings and inputs, and what was lost by it."""
    done: dict[str, dict[str, Any]] = {}
    for row in rows:
        name, _, what = row["what"].partition(": ")
        done.setdefault(name, {})[what] = row
    memory = [row for parts in done.values() if (row := parts.pop("memory", None))]
    faults = {name: row for name, parts in done.items() if (row := parts.pop("faults in the numbers", None))}
    inputs = done.pop("fuzz", {})
    kinds = sorted({what for parts in done.values() for what in parts}, key=OUTCOMES.index)
    heads = ["bytes compared" if kind == "bytes" else kind for kind in kinds]
    lines = [f"| training | {' | '.join(heads)} | lost |", "|---" * (len(kinds) + 2) + "|"]
    for name, parts in done.items():
        if parts:
            tried = [f"{parts[kind]['tried']:,}" if kind in parts else "–" for kind in kinds]
            lines.append(f"| {name} | {' | '.join(tried)} | {max(row['lost'] for row in parts.values())} |")
    if inputs:
        total = [sum(row[count] for row in inputs.values()) for count in ("tried", "lost")]
        lines += ["", "| fuzz test | inputs | lost |", "|---|---|---|",
                  *(f"| `{test}` | {row['tried']:,} | {row['lost']} |" for test, row in inputs.items()),
                  f"| together | {total[0]:,} | {total[1]} |"]
    lines += [f"\nFaults in the numbers of {name}: {row['tried']:,} injected, {row['tried'] - row['lost']:,} counted."
              for name, row in faults.items()]
    lines += [f"\nResident memory of a teacher's training: {row['first_mb']:,} MB, and {row['growth_percent']:+.2f} % "
              f"from minute 10 to minute {row['minutes']:.0f}, in {row['teacher_steps']:,} teacher steps and "
              f"{row['rollbacks']} rollbacks." for row in memory]
    return "\n".join([*lines, "", "    python -m benchmarks.soak"])


def scaling_table(rows: Rows) -> str:
    """Teacher steps on one and two processes."""
    steps = {(row["way"], row["processes"], row["rollouts"]): row for row in rows if row["what"] == "teacher step"}
    lines = ["| spread over processes | rollouts | one process, s | two, s | speedup | sent in a step, all processes |",
             "|---|---|---|---|---|---|"]
    for (way, processes, rollouts), row in steps.items():
        if processes == 2:
            alone = steps[way, 1, rollouts]["seconds_per_step"]
            lines.append(f"| {way} | {rollouts} | {alone:.3f} | {row['seconds_per_step']:.3f} | "
                         f"{alone / row['seconds_per_step']:.2f} | {row['bytes_per_step']:,} bytes |")
    return "\n".join([*lines, "", "    python -m benchmarks.scaling"])


def reduction_table(rows: Rows) -> str:
    """All-reduces by size and number of processes."""
    found = {(row["floats"], row["processes"]): row["ms"] for row in rows if row["what"] == "all-reduce"}
    counts = sorted({processes for _, processes in found})
    lines = [f"| float32 numbers | {' | '.join(f'{count} processes, ms' for count in counts)} |",
             "|---" * (1 + len(counts)) + "|"]
    lines += [f"| {size:,} | {' | '.join(f'{found[size, count]:,.1f}' for count in counts)} |"
              for size in sorted({size for size, _ in found})]
    return "\n".join([*lines, "", "    python -m benchmarks.scaling"])


# Of a teacher step: dθ, the figures of its rollouts, whether a callback stops, whether the step could be kept, whether
# one of the processes is to end.
REDUCTIONS = 5


def scaling_model_table(rows: Rows) -> str:
    """What the model of docs/scaling.md says of R replicas with a rollout each, with the constants of the rows."""
    reduced = {(row["floats"], row["processes"]): row["ms"] / 1000 for row in rows if row["what"] == "all-reduce"}
    smallest, largest = min(size for size, _ in reduced), max(size for size, _ in reduced)
    hop, rate = reduced[smallest, 2] / 2, 4 * largest / reduced[largest, 2]
    (noise,) = (row for row in rows if row["what"] == "noise")
    (alone,) = (row["seconds_per_step"] for row in rows if row["what"] == "teacher step"
                and (row["way"], row["processes"], row["rollouts"]) == ("rollouts", 1, 1))
    size = 4 * noise["floats"]

    def reduction(replicas: int) -> float:
        return REDUCTIONS * 2 * (replicas - 1) * hop + 2 * (replicas - 1) / replicas * size / rate

    def speedup(replicas: int, rollout: float) -> float:
        steps = (1 + noise["noise_scale"] / replicas) / (1 + noise["noise_scale"])
        return rollout / (steps * (rollout + reduction(replicas)))

    rollouts = (alone, 60.0, 3600.0)
    lines = ["| replicas | all-reduces, s | " + " | ".join(f"rollouts of {r:,.2g} s" if r < 1 else
                                                          f"of {r:,.0f} s" for r in rollouts) + " |",
             "|---" * (2 + len(rollouts)) + "|"]
    for replicas in (1, 2, 4, 8, 16, 64, 256, 1024, 4096):
        lines.append(f"| {replicas:,} | {reduction(replicas):.3f} | " +
                     " | ".join(f"{speedup(replicas, r):.2f}" for r in rollouts) + " |")
    about = (f"Times as fast to the same teacher as one replica; α = {1000 * hop:.2f} ms, β = {rate / 1e6:,.0f} MB/s, "
             f"S = {size:,} bytes, B = {noise['noise_scale']:.1f}.")
    return "\n".join([*lines, "", about])


def objectives_table(rows: Rows) -> str:
    """How a teacher's objectives rank students."""
    from tf_l2t.training.translation_objectives import OBJECTIVES  # late: it loads TensorFlow

    bleu = [row["bleu"] for row in rows]
    near = [row for row in rows if row["bleu"] >= max(bleu) - NEAR]
    names = [name for name in OBJECTIVES if all(name in row for row in rows)]
    groups = (rows, near) if len(near) > 2 else (rows,)  # two say nothing
    ranks = {name: [spearman([row[name] for row in some], [row["bleu"] for row in some]) for some in groups]
             for name in names}
    lines = [f"| objective | rank correlation with BLEU | within {NEAR} BLEU of the best |", "|---|---|---|",
             *(f"| `{name}` | {' | '.join(_number(rank, 3) for rank in (*ranks[name], None)[:2])} |"
               for name in sorted(names, key=lambda name: ranks[name][::-1], reverse=True))]
    pairs = " or ".join(f"{count:,}" for count in sorted({row["dev_pairs"] for row in rows}))
    about = (f"{len(rows)} translators of greedy BLEU {min(bleu):.1f} to {max(bleu):.1f}, {len(near)} of them within "
             f"{NEAR} of the best; {pairs} dev pairs.")
    return "\n".join([*lines, "", about, "", *_commands(rows)])


TABLES: dict[str, Callable[[Rows], str]] = {
    "engine mlp": lambda rows: times_table(rows, "mlp"),
    "engine lenet": lambda rows: times_table(rows, "lenet"),
    "engine memory": memory_table,
    "fit": fit_table,
    "first_call": first_call_table,
    "translation_cost fit": translation_fit_table,
    "translation_cost teacher": teacher_step_table,
    "objectives": objectives_table,
    "distillation_cost": prokt_step_table,
    "reliability": reliability_table,
    "scaling steps": scaling_table,
    "scaling reductions": reduction_table,
    "scaling model": scaling_model_table,
}
