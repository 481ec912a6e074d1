"""Translates lines from standard input to standard output.

    python -m trainers.translate --model runs/lstm1/best < lines.de > lines.en

An empty line stays empty. Lines are read to the end first, sorted by length and translated in batches; both sides are
UTF-8. A line that is too long is cut, and named on standard error, where every five seconds it also stands how many
lines are done.
"""

from __future__ import annotations

import sys

from absl import app, flags, logging

MODEL = flags.DEFINE_string("model", None, "The directory of a translator, best/ or last/ of a train_student run.")
BEAM_SIZE = flags.DEFINE_integer("beam_size", None, "1 for greedy decoding; by default that of the translator.")
LENGTH_PENALTY = flags.DEFINE_float("length_penalty", None, "By default that of the translator.")
PROGRESS = flags.DEFINE_bool("progress", True, "Say on standard error how many lines are done, if it takes longer.")


def main(argv: list[str]) -> None:
    from trainers.command import begin_log, fail

    begin_log()
    if len(argv) > 1:
        fail(f"unexpected arguments {argv[1:]}; options begin with --, lines come from standard input.")
    from tf_l2t.translation import load_translator
    from tf_l2t.translation.text import decoded_lines

    options = {"beam_size": BEAM_SIZE.value, "length_penalty": LENGTH_PENALTY.value}
    try:
        translator = load_translator(str(MODEL.value), **{k: v for k, v in options.items() if v is not None})
        lines = decoded_lines(sys.stdin.buffer.read(), "standard input")
    except ValueError as error:
        fail(str(error))
    if cut := translator.cut(lines):
        logging.warning("lines that with their end have more than %d subwords are cut: %s",
                        translator.decoding.longest, ", ".join(str(i + 1) for i in cut))
    from tf_l2t.training.pace import duration, every_few_seconds

    def say(done: int, total: int, left: float) -> None:
        line = f"{done:,} of {total:,} lines, {duration(left)} left"
        logging.info("%s", line)
        print(line, file=sys.stderr)

    found = translator(lines, every_few_seconds(say) if PROGRESS.value else None)
    # As UTF-8, whatever the locale says: lines come in so.
    sys.stdout.buffer.write("".join(f"{line}\n" for line in found).encode())


if __name__ == "__main__":
    flags.mark_flag_as_required("model")
    app.run(main)
