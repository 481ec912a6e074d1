"""What translation students cost: `fit_translator` beside plain Keras `fit`, decoding, and a teacher step against T.

    python -m benchmarks.translation
    python -m benchmarks.translation --students lstm1 --steps 10 25 50 100 200

Embedded text, 4,000 subwords, batches of 32. A teacher step is one hypergradient (reverse over reverse, √T snapshots),
in a process of its own. Rows go to docs/measured/translation_cost.json.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from benchmarks.memory import repeated

ROOT = pathlib.Path(__file__).parent.parent
STUDENTS = ("lstm1", "lstm2", "transformer")
VOCABULARY, LONGEST, BATCH, DEV, FIT_STEPS = 4000, 50, 32, 128, 60
TEACHER_STEPS = (10, 25, 50, 100, 200)
KEY = ("student", "what", "steps")


def text_and_subwords() -> tuple[Any, Any]:
    from tf_l2t.translation import Subwords, embedded_help, split_text

    text = split_text(embedded_help(), 500, 500, 0)
    return text, Subwords.train((*text.train.source, *text.train.target), VOCABULARY)


def measure_fit(name: str, repetitions: int) -> dict[str, Any]:
    """Milliseconds a step of `fit_translator`, its looks left out and its files counted, and of Keras `fit`, which is
    handed the same batches ready made; in turn. `fit` returns before its last steps are through, which are waited for.
    Python's garbage collection, seconds that fall on either of the two, is left out.
    """
    import keras
    import tensorflow as tf

    from tf_l2t.students import TRANSLATORS
    from tf_l2t.training.translator_fit import fit_translator, translation_dataset
    from tf_l2t.translation import TokenLoss, bucketed_batches, encode_pairs

    text, subwords = text_and_subwords()
    batches = bucketed_batches(encode_pairs(subwords, text.train, LONGEST, too_long="drop"), BATCH)
    ready = list(translation_dataset(batches, 0, 0, FIT_STEPS))
    signature = ((tf.TensorSpec([BATCH, None], tf.int32), tf.TensorSpec([BATCH, None], tf.int32)),
                 tf.TensorSpec([BATCH, None], tf.int32))
    tokens = sum(int(tf.math.count_nonzero(target)) for _, target in ready)

    def compiled() -> Any:
        model = TRANSLATORS[name](VOCABULARY)
        model.compile(keras.optimizers.Adam(1e-3), loss=TokenLoss("mle"))
        return model

    own, plain = compiled(), compiled()
    times: dict[str, list[float]] = {"fit_translator": [], "keras": []}
    gc.disable()
    for repetition in range(repetitions + 1):  # the first compiles
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            own.optimizer.iterations.assign(0)
            fit_translator(own, batches, seed=0, num_steps=FIT_STEPS, evaluate_every=FIT_STEPS,
                           evaluate=lambda model: {"bleu": 0.0}, best=lambda model: None, path=folder, verbose=0)
            own_ms = (time.perf_counter() - start) * 1000 / FIT_STEPS
        start = time.perf_counter()
        plain.fit(tf.data.Dataset.from_generator(lambda: iter(ready), output_signature=signature), verbose=0,
                  shuffle=False)
        plain.get_weights()
        plain_ms = (time.perf_counter() - start) * 1000 / FIT_STEPS
        if repetition:
            times["fit_translator"].append(own_ms)
            times["keras"].append(plain_ms)
    gc.enable()
    own_ms, plain_ms = (statistics.median(times[who]) for who in ("fit_translator", "keras"))
    return {"student": name, "what": "fit", "steps": FIT_STEPS, "repetitions": repetitions,
            "ms_per_step": round(own_ms, 1), "keras_ms_per_step": round(plain_ms, 1),
            "tokens_per_second": round(tokens * 1000 / (own_ms * FIT_STEPS))}


def measure_decoding(name: str) -> dict[str, Any]:
    """Positions per second of 512 sentences: new weights, which hardly ever end a sentence, at every one's limit."""
    import tensorflow as tf

    from tf_l2t.students import TRANSLATORS
    from tf_l2t.translation import Decoding, TextTranslator, encode_pairs
    from tf_l2t.translation.decoding import length_limits

    text, subwords = text_and_subwords()
    encoded = encode_pairs(subwords, text.train.take(range(512)), LONGEST, too_long="truncate")
    positions = int(tf.reduce_sum(length_limits(tf.constant(encoded.source))))
    speeds = {}
    model = TRANSLATORS[name](VOCABULARY)
    for beam_size in (1, 5):
        translator = TextTranslator(model, subwords, Decoding(beam_size=beam_size))
        translator.tokens(encoded)
        start = time.perf_counter()
        translator.tokens(encoded)
        speeds[f"beam{beam_size}_positions_per_second"] = round(positions / (time.perf_counter() - start))
    return {"student": name, "what": "decoding", "steps": 0, "repetitions": 1, **speeds}


def measure_teacher_step(name: str, steps: int) -> dict[str, Any]:
    """Seconds and peak memory of one hypergradient over `steps` student steps, from this process."""
    import tensorflow as tf

    from tf_l2t.hypergradient import hypergradient, initial_state, sgd
    from tf_l2t.students import TRANSLATORS, FunctionalTranslator
    from tf_l2t.teachers import DiagonalTeacher
    from tf_l2t.training.translation_problem import translation_problem
    from tf_l2t.translation import encode_pairs

    text, subwords = text_and_subwords()
    train = encode_pairs(subwords, text.train, LONGEST, too_long="drop")
    dev = encode_pairs(subwords, text.dev.take(range(DEV)), LONGEST, too_long="truncate")
    student = FunctionalTranslator(lambda: TRANSLATORS[name](VOCABULARY))
    problem = translation_problem(student, train, dev, form="stable", objective="log_expected_bleu",
                                  optimizer=sgd(0.1), num_steps=steps, batch_size=BATCH)
    run = hypergradient(problem, DiagonalTeacher(VOCABULARY, 3, loss="stable"), hvp="reverse_over_reverse",
                        schedule="every_k")
    state = initial_state(problem, *student.init(0))
    seeds = itertools.count()
    seconds, peak_mb = repeated(lambda: tf.nest.map_structure(lambda t: t.numpy(), run(state, next(seeds)).gradient), 2)
    return {"student": name, "what": "teacher_step", "steps": steps, "repetitions": 1, "seconds": round(seconds[1], 1),
            "compile_s": round(seconds[0] - seconds[1], 1), "peak_mb": peak_mb}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.translation", description="Cost of translation.")
    parser.add_argument("--one", nargs=2, metavar=("STUDENT", "STEPS"),
                        help="print the row of one teacher step as JSON, record nothing")
    parser.add_argument("--students", nargs="+", default=STUDENTS, choices=STUDENTS)
    parser.add_argument("--steps", nargs="*", type=int, default=TEACHER_STEPS, help="T of teacher steps")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--output", default=str(ROOT / "docs" / "measured" / "translation_cost.json"))
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(measure_teacher_step(chosen.one[0], int(chosen.one[1]))))
        return
    from tf_l2t.training.measured import record
    from trainers.command import command_line

    def keep(row: dict[str, Any]) -> None:
        record(chosen.output, [{**row, "command": command_line()}], key=KEY)
        print(row, flush=True)

    for name in chosen.students:
        keep(measure_fit(name, chosen.repetitions))
        keep(measure_decoding(name))
        for steps in chosen.steps:
            command = [sys.executable, "-m", "benchmarks.translation", "--one", name, str(steps)]
            result = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
            keep(json.loads(result.stdout.splitlines()[-1]))


if __name__ == "__main__":
    main()
