"""Translates lines from standard input to standard output.

    python -m trainers.translate --model runs/lstm1/best < lines.de > lines.en

Lines and translations are plain text; a translator of Moses' tokens or of lower case (IWSLT-14) makes tokens of what it
reads and plain text of what it writes, unless --as_trained says that both are in its own form. An empty line stays
empty. Lines are read to the end first, sorted by length and translated in batches; both sides are UTF-8. A line that is
too long is cut, and named on standard error, where every five seconds it also stands how many lines are done.
"""

from __future__ import annotations

import os
import sys

from absl import app, flags, logging

MODEL = flags.DEFINE_string("model", None, "The directory of a translator, best/ or last/ of a train_student run.")
BEAM_SIZE = flags.DEFINE_integer("beam_size", None, "1 for greedy decoding; by default that of the translator.")
LENGTH_PENALTY = flags.DEFINE_float("length_penalty", None, "By default that of the translator.")
AS_TRAINED = flags.DEFINE_bool("as_trained", False, "Lines and translations are in the form of the training's text.")
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
    if not AS_TRAINED.value:
        lines = translator.form.of_plain(lines)
    if unknown := translator.unknown(lines):
        logging.warning("lines with characters that the translator does not know: %s",
                        ", ".join(str(i + 1) for i in unknown))
    if cut := translator.cut(lines):
        logging.warning("lines that with their end have more than %d subwords are cut: %s",
                        translator.decoding.longest, ", ".join(str(i + 1) for i in cut))
    from tf_l2t.training.pace import duration, every_few_seconds

    def say(done: int, total: int, left: float) -> None:
        line = f"{done:,} of {total:,} lines, {duration(left)} left"
        logging.info("%s", line)
        print(line, file=sys.stderr)

    found = translator(lines, every_few_seconds(say) if PROGRESS.value else None)
    if not AS_TRAINED.value:
        found = translator.form.to_plain(found)
    try:  # as UTF-8, whatever the locale says: lines come in so
        sys.stdout.buffer.write("".join(f"{line}\n" for line in found).encode())
        sys.stdout.flush()
    except BrokenPipeError:  # who reads has had enough; at its end Python would write once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


if __name__ == "__main__":
    flags.mark_flag_as_required("model")
    app.run(main)
