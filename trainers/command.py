"""What the commands share: flags, configs turned into objects, errors without a traceback."""

from __future__ import annotations

import contextlib
import errno
import functools
import inspect
import json
import os
import pathlib
import shlex
import signal
import sys
import types
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, NoReturn

import ml_collections
import tensorflow as tf
from absl import app, flags, logging
from ml_collections import config_flags

from tf_l2t.data import (
    Splits,
    cifar,
    corrupt_labels,
    fingerprint,
    idx_images,
    like_cifar,
    long_tail,
    mnist,
    mnist_5k,
    prepared,
)
from tf_l2t.students.loading import DamagedNetworkError
from tf_l2t.training import (
    ClusterRefusedError,
    ForeignStatesError,
    StudentDivergedError,
    TeacherDivergedError,
    TerminatedError,
    UnwritableError,
    WorkerLostError,
)
from tf_l2t.training.pace import json_line
from tf_l2t.training.rates import learning_rate
from trainers import fields

CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="A file of configs/; --config.FIELD=VALUE overrides a field.")
WORKDIR = flags.DEFINE_string("workdir", None, "A new directory for everything that the run writes.")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the plan, with what is predicted of it, and stop.")
TIMED_STEPS = flags.DEFINE_integer("timed_steps", 8, "Steps that a dry run times; 0, of a teacher, for memory alone.")
VERBOSE = flags.DEFINE_integer("verbose", 1, "1 for a progress bar, or a line at every look, with the time left; 2 for "
                               "lines of JSON in their place, results among them; 0 for none, but results.",
                               lower_bound=0, upper_bound=2)

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)


def main(prepare: Callable[[ml_collections.ConfigDict, str], Callable[[], None]], tasks: Sequence[str] = ("",),
         dry_run: bool = False) -> None:
    """Runs a command in two phases; `tasks` says what its configs are of, `dry_run` whether it has --dry_run.

    `prepare(config, workdir)` checks everything, makes the work directory last, and returns the work. Bad input ends
    in one sentence and exit code 2 before any work; so do a full disk, states of another training, damaged files and
    a training that diverged, at any time. Other errors in the work itself keep their traceback. Work that was told to
    end, or lost the other processes of its cluster, and goes on with the same command, ends with exit code 75
    (EX_TEMPFAIL).
    """
    flags.mark_flag_as_required("config")  # what needs a directory says so

    def run(argv: list[str]) -> None:
        begin_log()
        signal.signal(signal.SIGTERM, _end)
        if len(argv) > 1:
            fail(f"unexpected arguments {argv[1:]}; options begin with --.")
        if DRY_RUN.value and not dry_run:
            fail("this command has no --dry_run; distill, train_teacher and compare have one.")
        try:
            try:
                fields.check_task(CONFIG.value, tasks)
                typed = config_flags.get_override_values(flags.FLAGS["config"])
                work = prepare(checked(CONFIG.value, typed), WORKDIR.value or "")
            except ValueError as error:
                fail(str(error))
            work()
        except (ClusterRefusedError, DamagedNetworkError, ForeignStatesError, RefusedError, StudentDivergedError,
                TeacherDivergedError, UnwritableError) as error:
            fail(str(error))
        except (TerminatedError, WorkerLostError) as error:
            logging.info("%s", error)
            print(error, file=sys.stderr)
            sys.exit(os.EX_TEMPFAIL)
        except tf.errors.OpError as error:
            if not any(reason in error.message for reason in map(os.strerror, UNWRITABLE)):
                raise
            fail(f"something cannot be written: {error.message}")
        except MemoryError as error:
            fail(str(error) or "this machine has too little memory.")
        except OSError as error:
            if error.errno not in UNWRITABLE:
                raise
            fail(f"{error.filename or WORKDIR.value!r} cannot be written: {error.strerror}.")

    app.run(run, flags_parser=_parse)


class RefusedError(ValueError):
    """What a part of a work was given is not what it needs."""


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Around the checks of a part of a work: their ValueErrors end it with one sentence, as those before it."""
    try:
        yield
    except ValueError as error:
        raise RefusedError(str(error)) from error


def part_of_work(prepare: Callable[..., Callable[[], None]], *arguments: Any) -> Callable[[], None]:
    """The work of a part of a work, whose checks are `refusals`; nothing else holds what it trains."""
    with refusals():
        return prepare(*arguments)


def read_json(path: pathlib.Path) -> Any:
    """A file of JSON that this command wrote before.

    Raises:
      RefusedError: if it is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RefusedError(f"{str(path)!r} is damaged: {error}. Move {str(path.parent)!r} away, and what it held is "
                           "made again.") from error


def _end(number: int, frame: Any) -> None:
    """Ends the command with a code that says so, wherever it is; within steps, which are kept, SIGTERM is deferred."""
    signal.signal(number, signal.SIG_DFL)
    print("told to end (SIGTERM); what is kept is kept, and the same command goes on.", file=sys.stderr)
    sys.exit(os.EX_TEMPFAIL)


def begin_log() -> None:
    """Warnings go through absl's log, to standard error; with --log_dir everything goes there, progress as well."""
    folder = flags.FLAGS.log_dir
    if folder:
        if not os.path.isdir(folder) or not os.access(folder, os.W_OK):
            fail(f"--log_dir must be a directory that can be written to; received {folder!r}.")
        logging.get_absl_handler().use_absl_log_file()
        if not flags.FLAGS["stderrthreshold"].present:
            logging.set_stderrthreshold("warning")  # they are not to be missed
    if not flags.FLAGS["verbosity"].present:  # TensorFlow's notes on every file it saves help nobody at a terminal
        logging.set_verbosity(logging.INFO if folder else logging.WARNING)
    warnings.showwarning = lambda message, *_, **__: logging.warning("%s", message)
    logging.info("%s", command_line())


def shows_bars() -> bool:
    """Whether --verbose asks for progress bars; outside of a command nothing does."""
    return flags.FLAGS.is_parsed() and VERBOSE.value == 1


def result(text: str, **values: Any) -> None:
    """Prints what a command has found: `text`, or with --verbose=2 the values as a line of JSON."""
    logging.info("%s", text)
    as_json = flags.FLAGS.is_parsed() and VERBOSE.value == 2
    print(json_line(values) if as_json else text, flush=True)


def _parse(argv: list[str]) -> list[str]:
    try:
        rest = flags.FLAGS(argv)
        plain(CONFIG.value)  # a file that failed to load says so only when it is looked at
        return rest
    except (AttributeError, KeyError, TypeError, ValueError, ImportError, OSError, SyntaxError) as error:
        fail(f"the configuration is not valid: {error}. The fields and their defaults are in configs/base.py.")
    except flags.Error as error:  # what a config file raises comes with its traceback, the sentence last
        message = str(error).strip()
        fail(message.splitlines()[-1] if "Traceback" in message else message)


def fail(message: str) -> NoReturn:
    """Ends the command: one sentence, exit code 2."""
    logging.info("error: %s", message)
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def command_line() -> str:
    """The command, as it can be typed again."""
    name = sys.modules["__main__"].__spec__.name if sys.modules["__main__"].__spec__ else sys.argv[0]
    return f"python -m {name} {shlex.join(sys.argv[1:])}"


def changed(config: ml_collections.ConfigDict, changes: Iterable[tuple[str, Any]]) -> ml_collections.ConfigDict:
    """A copy of the config with the named fields changed.

    Raises:
      ValueError: for a field that is not there, or a value of another type.
    """
    copied = config.copy_and_resolve_references().lock()
    try:
        copied.update_from_flattened_dict(dict(changes))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the config cannot be changed: {error}") from error
    return copied


def checked(config: ml_collections.ConfigDict, typed: Collection[str] = ()) -> ml_collections.ConfigDict:
    """The config that a command runs: the `quick` variant if it asks for that, but for the fields that were `typed`.

    Raises:
      ValueError: for a field that holds what no such field holds.
    """
    fields.check(config)
    config = quick(config, typed)
    fields.check(config)
    return config


def quick(config: ml_collections.ConfigDict, typed: Collection[str] = ()) -> ml_collections.ConfigDict:
    """The config, or with config.quick its small variant, which needs no data beside the embedded digits. The fields
    of `typed`, as "training.num_steps", stay as they are.

    Raises:
      ValueError: if it has none.
    """
    if not config.quick:
        return config
    if not config.quick_changes:
        raise ValueError("this config has no quick variant; those of configs/table2.py have.")
    changes = (*config.quick_changes, *(() if config.data.path else config.quick_data))
    return changed(config, [(field, value) for field, value in changes if field not in typed])


def plain(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The config as JSON values."""
    return {key: plain(value) if isinstance(value, ml_collections.ConfigDict) else
            list(value) if isinstance(value, tuple) else value for key, value in config.items()}


def load_splits(config: ml_collections.ConfigDict) -> Splits:
    """The data of config.data; configs of the same data get the same arrays."""
    return _load_splits(json.dumps(plain(config.data)))


@functools.lru_cache(maxsize=3)
def _load_splits(described: str) -> Splits:
    data = types.SimpleNamespace(**json.loads(described))
    if data.name == "mnist_5k":
        splits = mnist_5k(data.dev_size, data.test_size, data.split_seed)
    elif data.name == "mnist":
        splits = mnist(data.path or None, data.dev_size, data.split_seed, data.train_size or None, data.balance)
    elif data.name == "idx":
        splits = idx_images(data.path, data.dev_size, data.split_seed, data.train_size or None)
    elif data.name in ("cifar10", "cifar100"):
        splits = cifar(data.name, data.path or None, data.dev_size, data.split_seed, data.train_size or None)
    else:
        raise ValueError("config.data.name must be 'mnist_5k', 'mnist', 'idx', 'cifar10' or 'cifar100'; received "
                         f"{data.name!r}.")
    if data.like_cifar:
        splits = like_cifar(splits)
    if data.recipe:
        splits = prepared(splits, data.recipe)
    if data.long_tail != 1:
        splits = long_tail(splits, data.long_tail, data.noise_seed)
    return corrupt_labels(splits, data.noise, data.noise_fraction, data.noise_seed) if data.noise_fraction else splits


def describe(splits: Splits) -> dict[str, Any]:
    return {**splits.about, "fingerprint": fingerprint(splits)}


def student_fn(config: ml_collections.ConfigDict, splits: Splits) -> Callable[[], Any]:
    return network_fn(config.student, splits, "config.student")


def network_fn(network: ml_collections.ConfigDict, splits: Splits, where: str) -> Callable[[], Any]:
    """Builds the network that a part of a config, found there as `where`, names.

    Raises:
      ValueError: for an unknown one, or options that it does not take.
    """
    from tf_l2t.students import STUDENTS

    if network.name not in STUDENTS:
        raise ValueError(f"{where}.name must be one of {sorted(STUDENTS)}; received {network.name!r}.")
    build: Any = STUDENTS[network.name]
    shape = splits.train.x.shape[1:]
    options = {"activation": network.activation, **dict(network.options)}
    if network.name == "mlp":
        options["hidden"] = network.hidden
    known = inspect.signature(build).parameters
    if not set(options) <= set(known):
        raise ValueError(f"{where}.options: the student {network.name!r} takes {sorted(known)}; received "
                         f"{sorted(options)}.")
    return lambda: build(num_classes=splits.num_classes, input_shape=shape, **options)


def student_label(config: ml_collections.ConfigDict) -> str:
    """The student's name in measured figures, with its width if that is not the paper's."""
    wide = config.student.name == "mlp" and config.student.hidden != 500
    options = "".join(f" {key} {value}" for key, value in config.student.options)
    return (f"{config.student.name}{config.student.hidden}" if wide else config.student.name) + options


def student_optimizer(config: ml_collections.ConfigDict, rate: float | None = None,
                      num_steps: int | None = None) -> Any:
    """The student's SGD, at config.training.learning_rate or the given `rate`, over its steps or the given ones."""
    import keras

    training = config.training
    rate = training.learning_rate if rate is None else rate
    return keras.optimizers.SGD(learning_rate(rate, training.decay, num_steps or training.num_steps),
                                momentum=training.momentum)
