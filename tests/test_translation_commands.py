"""`trainers.train_student` of a translation config, on the embedded text, at a tiny size."""

import json
import os
import subprocess
import sys
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from configs import (
    translation_lstm1,
    translation_lstm1_adam,
    translation_lstm2,
    translation_transformer,
    translation_transformer_adam,
)
from tests.commands import ROOT, run_module
from tests.event_files import tags
from tf_l2t.students import AttentionLSTM, Transformer
from tf_l2t.teachers import DiagonalTeacher
from tf_l2t.training.translator_fit import translation_dataset
from tf_l2t.training.workdir import read_sealed
from tf_l2t.translation import (
    ParallelText,
    TextForm,
    TextTranslator,
    bucketed_batches,
    embedded_help,
    encode_pairs,
    load_translator,
    report_bleus,
    split_text,
    token_nll,
)
from trainers import command, translation, translation_teacher
from trainers.translator_fit import compiled_alone, prepare_translator

SMALL = {"data.name": "libreoffice_help", "data.vocabulary": 400, "data.dev_size": 20, "data.test_size": 25,
         "data.max_length": 30, "student.options": (("units", 8), ("dropout", 0.1)), "training.num_steps": 6,
         "training.evaluate_every": 2, "training.dev_sample_size": 10, "training.batch_size": 8,
         "decoding.beam_size": 2, "decoding.longest": 12}
ARGUMENTS = [f"--config.{field}={value}" for field, value in SMALL.items()]
FILES = ["best", "checkpoints", "examples.txt", "history.json", "last", "manifest.json", "results.json", "tensorboard"]


def run(workdir, *arguments, config="configs/translation_lstm1.py"):
    return run_module("trainers.train_student", "--config", config, "--workdir", str(workdir), *arguments)


def prepare(workdir, base=translation_lstm1, **changes):
    """The command in this process; fields are written with __ for a dot."""
    changes = SMALL | {name.replace("__", "."): value for name, value in changes.items()}
    return prepare_translator(command.changed(base.get_config(), changes.items()), str(workdir), 0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    done = run(workdir, *ARGUMENTS)
    assert done.returncode == 0, done.stderr
    return workdir, done


def test_files_and_figures(whole):
    workdir, done = whole
    assert sorted(p.name for p in workdir.iterdir() if not p.name.startswith(".")) == FILES
    manifest = json.loads((workdir / "manifest.json").read_text())
    assert manifest["config"]["training"]["num_steps"] == 6 and len(manifest["data"]["fingerprint"]) == 64
    assert manifest["command"].startswith("python -m trainers.train_student --config configs/translation_lstm1.py")
    history = json.loads((workdir / "history.json").read_text())
    assert [record["step"] for record in history] == [2, 4, 6]
    assert all(record["loss"] > 0 and record["tokens_per_second"] > 0 and 0 <= record["bleu"] <= 100
               for record in history)
    assert done.stdout.count("step ") == 3 and "test BLEU of the best weights, greedy:" in done.stdout

    results = read_sealed(workdir / "results.json")
    expected = {f"{which}_{how}" for which in ("last", "best") for how in ("greedy", "beam2")}
    assert set(results) == {*expected, "tokens_per_second", "dev_bleu", "truncated_dev", "truncated_test"}
    config = command.changed(translation_lstm1.get_config(), SMALL.items())
    text = translation.load_text(config)
    assert text.test.size == 25
    subwords = translation.train_subwords(config, text)
    assert results["truncated_test"] == sum(len(subwords.encode(line)) > 11 for line in text.test.source) > 0
    assert results["truncated_dev"] == sum(
        len(subwords.encode(line)) > 11 for line in translation.sample(text.dev, 10).source)
    assert f"{results['truncated_test']} of test" in done.stdout
    for which in ("last", "best"):
        for how, beam_size in (("greedy", 1), ("beam2", 2)):
            found = load_translator(workdir / which, beam_size=beam_size)(text.test.source)
            result = results[f"{which}_{how}"]
            assert result.pop("tokens_per_second") > 0 and set(result) == {"detokenized", "tokenized_lower"}
            for kind, (score, signature) in report_bleus(found, text.test.target, "en").items():
                assert result[kind]["score"] == pytest.approx(score, abs=1e-9)
                assert result[kind]["signature"] == signature and "|version:" in signature
            assert "|case:mixed|eff:no|tok:13a|" in result["detokenized"]["signature"]
            assert "|case:lc|eff:no|tok:none|" in result["tokenized_lower"]["signature"]
    last = load_translator(workdir / "last")
    assert last.decoding.beam_size == 2 and last.subwords.size == 400

    examples = (workdir / "examples.txt").read_text(encoding="utf-8").strip().split("\n\n")
    assert len(examples) == 20 == len(set(examples))
    greedy = dict(zip(text.test.source, load_translator(workdir / "best")(text.test.source), strict=True))
    for example in examples:
        source, reference, translated = (line.split(maxsplit=1)[1:] for line in example.splitlines())
        place = text.test.source.index(source[0])
        assert reference == [text.test.target[place]]
        assert (translated or [""])[0].strip() == greedy[source[0]].strip()


def test_tensorboard_shows_every_look(whole):
    history = json.loads((whole[0] / "history.json").read_text())
    found = tags(whole[0] / "tensorboard")
    assert set(found) == {f"student/{name}" for name in history[0] if name != "step"}
    for tag, values in found.items():
        expected = {record["step"]: record[tag.removeprefix("student/")] for record in history}
        assert list(values) == [2, 4, 6]
        assert values == pytest.approx(expected, rel=1e-6)


def test_a_run_that_was_stopped_goes_on_with_the_same_weights(whole, tmp_path, monkeypatch):
    workdir, _ = whole
    score = translation.Scores.__call__
    looks = []

    def stopped(self):
        looks.append(self)
        if len(looks) == 2:
            raise KeyboardInterrupt
        return score(self)

    monkeypatch.setattr(translation.Scores, "__call__", stopped)
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path / "run")()
    assert [r["step"] for r in json.loads((tmp_path / "run" / "history.json").read_text())] == [2]
    monkeypatch.setattr(translation.Scores, "__call__", score)
    prepare(tmp_path / "run")()
    history, expected = (json.loads((path / "history.json").read_text()) for path in (tmp_path / "run", workdir))
    assert [(r["step"], r["bleu"]) for r in history] == [(r["step"], r["bleu"]) for r in expected]
    # One process ran on another number of cores than the other, maybe: bits are compared in `test_translator_fit`.
    for name in ("last", "best"):
        for a, b in zip(*(load_translator(path / name).model.weights for path in (tmp_path / "run", workdir)),
                        strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    results, theirs = (read_sealed(path / "results.json") for path in (tmp_path / "run", workdir))
    for figures in (results, theirs):
        for speed in (figures, *(v for v in figures.values() if isinstance(v, dict))):
            speed.pop("tokens_per_second")
    assert results == theirs
    # Another config may not go on there.
    with pytest.raises(ValueError, match="another config"):
        prepare(tmp_path / "run", training__learning_rate=0.2)


def test_a_run_may_start_from_another(whole, tmp_path):
    workdir, _ = whole
    prepare(tmp_path / "run", training__start=str(workdir / "last"), training__num_steps=1, training__learning_rate=0.0,
            training__evaluate_every=1, training__keep_every=1)()
    started, first = (load_translator(path) for path in (tmp_path / "run" / "last", workdir / "last"))
    assert started.subwords.proto == first.subwords.proto
    assert not (workdir / "kept").exists() and [p.name for p in (tmp_path / "run" / "kept").iterdir()] == ["1"]
    assert load_translator(tmp_path / "run" / "kept" / "1").subwords.fingerprint == first.subwords.fingerprint
    for a, b in zip(started.model.trainable_weights, first.model.trainable_weights, strict=True):
        np.testing.assert_array_equal(a, b)
    results = read_sealed(tmp_path / "run" / "results.json")
    for decoding in ("greedy", "beam2"):  # the best weights are the last, and translate once, as the speeds say
        assert results[f"last_{decoding}"] == results[f"best_{decoding}"]


def test_a_run_from_a_start_is_a_function_of_the_seed_and_of_the_start(whole, tmp_path):
    workdir, _ = whole
    start = load_translator(workdir / "last")
    start.save(tmp_path / "start")
    changes = SMALL | {"training.start": str(tmp_path / "start")}
    first, again, other = (translation.start_of(command.changed(translation_lstm1.get_config(),
                                                                [*changes.items(), ("seed", seed)])).model
                           for seed in (1, 1, 2))
    ids = np.full((2, 5), 7)
    found = [model((ids, ids), training=True).numpy() for model in (first, again, other)]  # with dropout
    np.testing.assert_array_equal(found[0], found[1])
    assert (found[0] != found[2]).any()
    np.testing.assert_array_equal(first((ids, ids)), start.model((ids, ids)))

    prepare(tmp_path / "run", training__start=str(tmp_path / "start"))
    prepare(tmp_path / "run", training__start=str(tmp_path / "start"))
    start.model.logits_bias.assign_add(np.ones(400))
    start.save(tmp_path / "start")
    with pytest.raises(ValueError, match="another data"):
        prepare(tmp_path / "run", training__start=str(tmp_path / "start"))


def test_students_and_optimizers_of_the_config(tmp_path):
    prepare(tmp_path / "run", translation_lstm1_adam, training__num_steps=2, student__name="transformer",
            student__options=(("num_layers", 1), ("width", 8), ("hidden", 8), ("num_heads", 2)), decoding__beam_size=1,
            training__dev_sample_size=3, data__test_size=4)()
    assert isinstance(load_translator(tmp_path / "run" / "last").model, Transformer)
    optimizer = translation.student_optimizer(translation_lstm1_adam.get_config(), 2)
    assert isinstance(optimizer, keras.optimizers.Adam) and optimizer.global_clipnorm == 5
    optimizer.iterations.assign(2)
    assert float(optimizer.learning_rate) == 0  # linear decay has come to its end


@pytest.mark.parametrize(("module", "kind", "sizes"), [
    (translation_lstm1, AttentionLSTM, {"units": 256, "num_layers": 1, "dropout": 0.0}),
    (translation_lstm2, AttentionLSTM, {"units": 256, "num_layers": 2, "dropout": 0.0}),
    (translation_transformer, Transformer, {"num_layers": 6, "width": 256, "hidden": 1024, "num_heads": 4,
                                            "dropout": 0.0, "normalize_first": False}),
])
def test_the_paper_is_the_default(module, kind, sizes):
    config = module.get_config()
    training, outer, teacher = config.training, config.teacher_training, config.teacher
    assert (training.optimizer, training.learning_rate, training.momentum, training.decay, training.batch_size,
            training.clip_norm, training.loss, config.data.vocabulary) == (
        "sgd", 0.1, 0.0, "constant", 32, 1.0, "mle", 25_000)
    assert (outer.steps, outer.num_steps, outer.learning_rate, outer.decay, outer.epsilon, outer.damping,
            outer.penalty, outer.truncate, outer.curriculum) == (50, 200, 1e-4, "constant", 1e-8, 0.0, 0.0, 0, ())
    assert (teacher.name, teacher.num_keys, teacher.loss, outer.objective, outer.judge) == (
        "diagonal", 5, "paper", "expected_bleu", "objective")
    model = translation.student_fn(config, 30)()
    assert isinstance(model, kind) and {name: model.get_config()[name] for name in sizes} == sizes
    assert isinstance(translation_teacher.new_teacher(config, 30), DiagonalTeacher)


@pytest.mark.parametrize(("module", "vocabulary"), [(translation_lstm1, 1000), (translation_transformer, 400)])
def test_the_default_learns(module, vocabulary):
    """The paper's sizes and optimizer, on short sentences: nats per token are below those of the uniform distribution
    behind 40 steps. (Without clipping they are above 15.)"""
    config = command.changed(module.get_config(), [("data.name", "libreoffice_help"), ("data.vocabulary", vocabulary),
                                                   ("data.max_length", 16)])
    text = translation.load_text(config)
    subwords = translation.train_subwords(config, text)
    batches = bucketed_batches(encode_pairs(subwords, text.train, 16, too_long="drop"), 32)
    student = compiled_alone(config, translation.new_student(config, subwords.size))
    student.fit(translation_dataset(batches, 0, 0, 40), verbose=0)
    source, target = batches(1, 0)
    tokens = np.count_nonzero(target)
    loss = float(tf.reduce_sum(token_nll(target, student((source, target))))) / tokens
    assert loss < np.log(vocabulary) - 0.3


def test_the_rate_falls_over_the_steps_that_move_the_student():
    config = command.changed(translation_lstm1_adam.get_config(), [
        ("student.options", (("units", 4),)), ("training.loss", "actor_critic"), ("training.num_steps", 100),
        ("training.loss_options", (("critic_steps", 20),))])
    rate = compiled_alone(config, translation.new_student(config, 30)).optimizer._learning_rate
    assert [float(rate(step)) for step in (0, 40, 80)] == pytest.approx([0.002, 0.001, 0])


def test_a_transformer_that_trains_well():
    config = translation_transformer_adam.get_config()
    student = translation.new_student(command.changed(config, [
        ("student.options", (*config.student.options, ("num_layers", 1), ("width", 8), ("hidden", 8)))]), 30)
    model = compiled_alone(config, student)
    assert model.normalize_first and model.dropout == 0.1 and isinstance(model.optimizer, keras.optimizers.Adam)
    rate = model.optimizer._learning_rate
    assert [float(rate(step)) for step in (0, 900, 1800)] == pytest.approx([0, 0.0005, 0.001])
    assert float(rate(18_000)) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("changes", "match"), [
    ({"data__name": "parallel"}, "config.data.path"),
    ({"data__name": "wmt"}, "'libreoffice_help'.*'wmt'"),
    ({"student__name": "gru"}, "lstm1.*lstm2.*transformer.*gru"),
    ({"student__options": (("wings", 2),)}, "wings"),
    ({"student__options": (("dropout", 2.0),)}, "dropout"),
    ({"training__loss": "hinge"}, "hinge.*mle"),
    ({"student__options": (("unroll", True),)}, "unroll=False"),
    ({"data__tokenized": "yes"}, "'moses'; received 'yes'"),
    ({"data__target": "fr"}, "'de' and 'en'.*received 'de' and 'fr'"),
    ({"training__loss": "actor_critic"}, "critic_steps=1000, 6 steps"),
    ({"training__loss": "actor_critic", "training__num_steps": 2000, "training__stop_at": 6},
     "critic_steps=1000, 6 steps"),
    ({"training__stop_at": 7}, "stop_at is one of .* received 7, 6"),
    ({"training__loss": "risk", "training__loss_options": (("num_candidates", "8"),)}, "num_candidates of risk must"),
    ({"training__loss": "risk", "training__loss_options": (("num_candidates", 2.5),)}, "a whole number; received 2.5"),
    ({"training__loss": "label_smoothing", "training__loss_options": (("smoothing", "x"),)}, "label_smoothing"),
    ({"training__loss": "mixer", "training__loss_options": (("baseline_optimizer", "adan"),)}, "adan"),
    ({"training__loss": "actor_critic", "training__loss_options": (("critic", "lstm"),)}, "the critic must be"),
    ({"training__loss": "mixer"}, "6000 steps.*received 6 steps"),
    ({"training__optimizer": "lbfgs"}, "'sgd' or 'adam'"),
    ({"training__optimizer": "adam", "training__momentum": 0.9}, "momentum=0"),
    ({"training__decay": "step"}, "decay"),
    ({"training__num_steps": 0}, "number of steps|num_steps"),
    ({"training__evaluate_every": 0}, "evaluate_every"),
    ({"training__batch_size": 0}, "batch_size"),
    ({"training__start": "nowhere"}, "nowhere"),
    ({"data__name": "tsv", "data__path": "▅"}, r"▅ \(target\), line 37 holds \['▅'\]"),
    ({"data__vocabulary": 1_000_000}, "1000000.*at most"),
    ({"data__vocabulary": 10}, "size=10"),
    ({"data__max_length": 1}, "max_length"),
    ({"decoding__beam_size": 0}, "beam_size"),
    ({"decoding__longest": 1}, "longest"),
    ({"decoding__batch_size": 0}, "batch_size"),
])
def test_bad_configs_are_refused_before_any_work(changes, match, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pairs = ["Haus\thouse"] * 50
    pairs[36] += " ▅"  # for train, of which five are left
    (tmp_path / "▅").write_text("\n".join(pairs))
    with pytest.raises(ValueError, match=match):
        prepare(tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_what_is_spoken_in_lower_case_is_compared_in_lower_case():
    class Lower:
        form, subwords = TextForm("de", "en"), types.SimpleNamespace(lower=True)

        def __call__(self, lines):
            return ["the house is in berlin ."] * len(lines)

    text = ParallelText(("Das Haus ist in Berlin.",), ("The House is in Berlin .",))
    scored = translation.Scores(text, Lower())()
    assert {name: (round(bleu.score, 9), "case:lc" in bleu.signature) for name, bleu in scored.bleus.items()} == {
        "detokenized": (100, True), "tokenized_lower": (100, True)}
    Lower.subwords.lower = False
    assert translation.Scores(text, Lower())().bleus["detokenized"].score < 50


@pytest.mark.parametrize(("changes", "match"), [
    ({"data__source": "en", "data__target": "de"}, "text of 'de' to 'en'.* config's is 'en' to 'de'"),
    ({"data__tokenized": "moses"}, "tokenized=''.*tokenized='moses'"),
    ({"data__lower": True}, "upper and lower case; the config's is .* lower case")])
def test_a_start_of_other_text_is_refused(changes, match, whole, tmp_path):
    with pytest.raises(ValueError, match=match):
        prepare(tmp_path / "run", training__start=str(whole[0] / "best"), **changes)


def test_how_the_text_is_written(monkeypatch):
    config = translation_lstm1.get_config()
    text = split_text(embedded_help().take(range(9)), 2, 2)
    assert translation.form_of(config, text) == TextForm("de", "en", "", False)
    about = {"tokenized": "moses", "lower": True}
    assert translation.form_of(config, text._replace(about=about)) == TextForm("de", "en", "moses", True)
    changed = command.changed(config, [("data.tokenized", "moses")])
    assert translation.form_of(changed, text) == TextForm("de", "en", "moses", False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install sacrebleu\[ja\]"):
        translation.form_of(command.changed(config, [("data.target", "ja")]), text)


def test_the_embedded_text_in_the_other_direction():
    there, back = (translation.load_text(command.changed(translation_lstm1.get_config(), [
        *SMALL.items(), ("data.source", source), ("data.target", target)]))
        for source, target in (("de", "en"), ("en", "de")))
    assert (there.test.source, there.test.target) == (back.test.target, back.test.source)
    assert there.test.source != there.test.target


def test_bad_input_ends_in_one_sentence(tmp_path):
    """As processes: exit code 2, no traceback; files of unequal length are named with the line."""
    for part, lines in (("train", 5), ("valid", 3), ("test", 3)):
        for language in ("de", "en"):
            (tmp_path / f"{part}.{language}").write_text("Guten Tag .\n" * lines)
    with (tmp_path / "train.de").open("a") as file:
        file.write("Noch einer .\n")
    for arguments, words in (
            (["--config.data.name=parallel", "--config.data.path="], ["config.data.path"]),
            (["--config.data.name=parallel", f"--config.data.path={tmp_path}"], ["train.de", "train.en", "Line 6",
                                                                            "6 lines"]),
            (["--config.training.lr=1"], ["lr"])):
        done = run(tmp_path / "run", *ARGUMENTS, *arguments)
        assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
        message = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert len(message) == 1 and all(word in message[0] for word in words), done.stderr
        assert not (tmp_path / "run").exists()


def test_a_teacher_its_student_and_lines(whole, tmp_path):
    """train_teacher from the start that train_student wrote, train_student by it, translate: in processes."""
    start = [f"--config.training.start={whole[0] / 'best'}"]
    small = ["--config.teacher_training.steps=1", "--config.teacher_training.num_steps=2",
             "--config.teacher_training.dev_size=10", "--config.teacher_training.validation_freq=0",
             "--config.features.sample_size=5", "--config.teacher.loss=stable", "--verbose=0"]
    done = run_module("trainers.train_teacher", "--config", "configs/translation_lstm1.py",
                      "--workdir", str(tmp_path / "teacher"), *ARGUMENTS, *start, *small)
    assert done.returncode == 0, done.stderr
    history = json.loads((tmp_path / "teacher" / "history.json").read_text())
    assert 0 < history["objective"][0] < 1 and history["gradient_norm"][0] > 0 and "dev_bleu" in history

    teacher = f"--config.training.teacher={tmp_path / 'teacher' / 'teacher'}"
    done = run(tmp_path / "taught", *ARGUMENTS, *start, "--config.training.loss=taught", teacher,
               "--config.features.sample_size=5")
    assert done.returncode == 0, done.stderr
    looks = json.loads((tmp_path / "taught" / "history.json").read_text())
    assert [look["step"] for look in looks] == [2, 4, 6] and {"token_loss", "dev_bleu"} <= set(looks[0])
    # The teacher has seen 10 dev pairs, the student looks at the first 5 of all.
    assert "the status of this student is not what the teacher" in done.stderr and "other is: dev." in done.stderr
    shown = tags(tmp_path / "taught" / "tensorboard")["coefficients"]
    assert sorted(shown) == [2, 4, 6] and all(values[:, 2].sum() == 400 for values in shown.values())

    # Another seed of the split is another train side, so other subwords, as many.
    done = run(tmp_path / "other", *ARGUMENTS, "--config.data.split_seed=1", "--config.training.loss=taught", teacher)
    assert done.returncode == 2 and "other subwords" in done.stderr and not (tmp_path / "other").exists(), done.stderr

    lines = "Ja.\n\nSpeichern Sie das Dokument, das Sie geöffnet haben.\n"
    translator = load_translator(tmp_path / "taught" / "best", beam_size=1)
    spoken = translator.subwords.pieces.index("ö")  # all that it says, which no ASCII can write
    translator.model.logits_bias.assign_add(100.0 * (np.arange(400) == spoken))
    model = translator.save(tmp_path / "loud")
    done = subprocess.run([sys.executable, "-m", "trainers.translate", "--model", str(model)], cwd=ROOT,
                          input=lines.encode(), capture_output=True, check=False,
                          env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    found = done.stdout.decode()
    assert found.split("\n") == [*translator(lines.split("\n")[:3]), ""] and "ööö" in found
    assert b"more than 12 subwords are cut: 3\n" in done.stderr and b"left" not in done.stderr

    for arguments, given, said in ((["--beam_size=0"], "Ja.", "beam_size"), (["Ja."], "", "unexpected arguments"),
                                   ([], "Ja.\n\udce4\n", "standard input, line 2: byte 0xe4 is not UTF-8"),
                                   ([f"--model={tmp_path}"], "Ja.", "student.keras")):
        done = run_module("trainers.translate", "--model", str(model), *arguments, stdin=given)
        assert done.returncode == 2 and said in done.stderr and not done.stdout, done.stderr
        assert "Traceback" not in done.stderr

    # A reader that has gone away, and a translator of Moses' tokens in lower case.
    with subprocess.Popen([sys.executable, "-m", "trainers.translate", "--model", str(model)], cwd=ROOT,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as gone:
        gone.stdout.close()
        _, said = gone.stdin.write(lines.encode() * 9000), gone.stdin.close()
        said = gone.stderr.read().decode()
    assert gone.returncode == 1 and "Traceback" not in said and "BrokenPipe" not in said, said
    form = TextForm("de", "en", "moses", True)
    moses = TextTranslator(translator.model, translator.subwords, translator.decoding, form).save(tmp_path / "moses")
    line = "Das Dokument - ist's da? ☃"
    for arguments, expected in (([], form.to_plain(translator(form.of_plain([line])))),
                                (["--as_trained"], translator([line]))):
        done = run_module("trainers.translate", "--model", str(moses), "--beam_size=1", *arguments, stdin=line)
        assert done.returncode == 0 and done.stdout == expected[0] + "\n", done.stderr
        assert "characters that the translator does not know: 1\n" in done.stderr
