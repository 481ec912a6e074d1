"""Whatever a config says, a command says no in a sentence, or has a training, which comes to an end that is told.

As in test_fuzz.py, `--hypothesis-profile=soak` tries many more examples.
"""

import contextlib
import pathlib

import hypothesis
import ml_collections
import pytest
from absl import flags
from hypothesis import given
from hypothesis import strategies as st

from configs import ablation_shifted, compare_distill_mnist, compare_translation, demo, distill_mnist, translation_demo
from tf_l2t import pretrained
from tf_l2t.training import StudentDivergedError, TeacherDivergedError
from trainers import ablate, command, compare, distill, train_baseline, train_student, train_teacher

# What is typed: small, none, negative, at the edges of its type, of another type. Sizes that are merely large are no
# mistakes, and memory is not what is tested.
VALUES = {
    bool: st.booleans(),
    int: st.one_of(st.integers(-3, 60), st.sampled_from((-2**63, -2**31, -10**6))),
    float: st.one_of(st.floats(), st.sampled_from((0.0, -1.0, 0.5, 1e-300, 1e30, float("nan"), float("inf")))),
    str: st.one_of(st.text(max_size=8), st.sampled_from((
        "", "mlp", "lenet", "attention", "diagonal", "static", "stable", "paper", "soft", "cosine", "constant",
        "drops:0.5", "drops:2", "drops:", "cosine:0.1", "linear:3", "shift", "uniform", "digits", "prokt", "kd", "crd",
        "rco", "lstm1", "transformer", "adam", "sgd", "risk", "mle", "taught", "500MB", "1 byte", "binomial:3",
        "binomial:0", "store_all", "auto", "reverse_over_reverse", "log_likelihood", "expected_bleu", "mirrored",
        "batch", "../..", "/dev/null", "\0"))),
    tuple: st.recursive(st.one_of(st.integers(-2, 9), st.floats(), st.text(max_size=4),
                                  st.sampled_from(("units", "depth", "num_layers", "lam", "dropout"))),
                        lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=6).map(
                            lambda value: value if isinstance(value, tuple) else (value,)),
}
NOISY_DIGITS = str(pathlib.Path(pretrained.__file__).parent / "noisy_digits")
EMBEDDED = (("data.name", "mnist_5k"), ("data.train_size", 200))
COMMANDS = {
    "teacher": (train_teacher.prepare, demo, ()),
    "baseline": (train_baseline.prepare, demo, ()),
    "table": (compare.prepare, demo, (("compare.num_teachers", 1),)),
    "distillation": (distill.prepare, distill_mnist, EMBEDDED),
    "table of distillation": (compare.prepare, compare_distill_mnist, (*EMBEDDED, ("data.balance", False))),
    "table of translation": (compare.prepare, compare_translation, (
        ("data.name", "libreoffice_help"), ("data.path", ""), ("data.vocabulary", 400))),
    "student of a teacher": (train_student.prepare, demo, (("compare.teacher", NOISY_DIGITS),)),
    "ablation": (ablate.prepare, ablation_shifted, EMBEDDED),
    "translation": (train_student.prepare, translation_demo, ()),
    "teacher of translation": (train_teacher.prepare, translation_demo, ()),
}


def leaves(config, prefix=""):
    for name, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", type(value)


@pytest.fixture(autouse=True, scope="module")
def _flags():
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # parsing would miss the required flags of every command that was imported


def prepared(data, name, changes, workdir, most, left_alone=("task",)):
    """What a command would do by its config with some fields changed; None if it says that it would not."""
    prepare, module, fixed = COMMANDS[name]
    config = command.changed(module.get_config(), (*fixed, *changes))
    fields = sorted(field for field in leaves(config) if not field[0].startswith(left_alone))
    chosen = data.draw(st.lists(st.sampled_from(fields), min_size=1, max_size=most, unique=True))
    given_values = [(field, data.draw(VALUES[kind], label=field)) for field, kind in chosen if kind in VALUES]
    try:
        return prepare(command.checked(command.changed(config, given_values)), str(workdir))
    except ValueError as error:
        assert len(str(error)) > 10 and not workdir.exists()
        return None


@pytest.mark.parametrize("name", COMMANDS)
@hypothesis.settings(max_examples=max(6, hypothesis.settings().max_examples // 8))
@given(data=st.data())
def test_configs(tmp_path_factory, name, data):
    work = prepared(data, name, (), tmp_path_factory.mktemp("run") / "new", 3)
    assert work is None or callable(work)


TINY = (("data.dev_size", 30), ("data.test_size", 30))
TRAININGS = {
    "teacher": (*TINY, ("training.num_steps", 6), ("teacher_training.steps", 2), ("teacher_training.truncate", 0),
                ("teacher_training.validation_freq", 1)),
    "baseline": (*TINY, ("training.num_steps", 6), ("compare.evaluate_every", 3)),
    "distillation": (*TINY, ("student.name", "mlp"), ("teacher.name", "mlp"), ("method.name", "prokt"),
                     ("training.num_steps", 8), ("training.evaluate_every", 4)),
    "translation": (("data.dev_size", 20), ("data.test_size", 20), ("training.num_steps", 6),
                    ("training.evaluate_every", 3), ("student.options", (("units", 8),))),
}


@pytest.mark.parametrize("name", TRAININGS)
def test_the_trainings_can_begin(tmp_path, name):
    """As they are, so that it is the changes that are tried below."""
    prepare, module, fixed = COMMANDS[name]
    config = command.changed(module.get_config(), (*fixed, *TRAININGS[name]))
    assert callable(prepare(command.checked(config), str(tmp_path / "new")))


@pytest.mark.parametrize("name", TRAININGS)
@hypothesis.settings(max_examples=max(2, hypothesis.settings().max_examples // 40))
@given(data=st.data())
def test_trainings(tmp_path_factory, name, data):
    """Those that could begin are begun, with what a config says of networks, losses, optimizers and steps."""
    workdir = tmp_path_factory.mktemp("run") / "new"
    work = prepared(data, name, TRAININGS[name], workdir, 1, ("task", "data.", "quick"))
    if work:
        with contextlib.suppress(StudentDivergedError, TeacherDivergedError):
            work()
        assert (workdir / "manifest.json").is_file()
