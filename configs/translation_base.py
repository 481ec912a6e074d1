"""Every field of a translation config, with its default. Experiments start from here and change what is theirs."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.task = "translation"
    config.seed = 0  # of the student and its batches

    config.data = data = ml_collections.ConfigDict()
    data.name = "parallel"  # a folder of train.de, valid.de, …; "tsv", "iwslt14", "libreoffice_help", "tfds:NAME"
    data.path = ""
    # Endings or names of languages. Of "tsv" the first column is the source, whatever they say; the target's language
    # says how its BLEU is measured.
    data.source = "de"
    data.target = "en"
    data.tokenized = ""  # "moses": the text is Moses' tokens; "iwslt14" knows, and so does a folder's about.json
    data.variant = "short"  # of "iwslt14": the L2T-DLF paper's, of at most 50 words; or "fairseq"
    data.dev_size = 500  # of "tsv" and "libreoffice_help"
    data.test_size = 500
    data.split_seed = 0
    data.lower = False  # subwords make lower case of all text
    data.vocabulary = 25_000  # joint subwords, trained on the train side
    # Of train pairs in subwords; longer ones are left out. The paper's are of at most 50 words, hardly ever so many.
    data.max_length = 100

    config.student = student = ml_collections.ConfigDict()
    student.name = "lstm1"  # "lstm2", "transformer": see tf_l2t.students.TRANSLATORS
    student.options = ()  # (name, value) of further arguments, such as (("dropout", 0.2),)

    config.training = training = ml_collections.ConfigDict()
    training.start = ""  # a directory that train_student wrote, to start from its student; "" for a new one
    training.loss = "mle"  # "label_smoothing"; "taught"; or one of tf_l2t.training.sequence_student.SEQUENCE_LOSSES
    training.loss_options = ()  # (name, value), such as (("num_candidates", 8),)
    training.teacher = ""  # of "taught": the directory of an exported teacher
    training.optimizer = "sgd"  # or "adam"
    training.learning_rate = 0.1
    training.decay = "constant"  # as in base.py; or "cosine:0.1", which first rises for a tenth of the steps
    training.momentum = 0.0
    # Of the whole gradient; 0 for no limit. The paper names none; its loss, a sum over a sentence, diverges without.
    training.clip_norm = 1.0
    training.batch_size = 32
    training.num_steps = 20_000
    training.stop_at = 0  # ends the run at that step, though its rate falls over num_steps; 0 for their end
    training.evaluate_every = 2000
    training.keep_every = 0  # looks between the translators that are kept in kept/STEP; 0 keeps none
    training.dev_sample_size = 500  # dev pairs that are translated at every look; 0 for all

    config.features = features = ml_collections.ConfigDict()
    features.refresh_every = 20  # student steps for which the status is held
    features.sample_size = 100  # train and dev pairs whose BLEU is looked at

    config.teacher = teacher = ml_collections.ConfigDict()
    teacher.name = "diagonal"  # or "shared_diagonal"
    teacher.num_keys = 5
    teacher.options = ()  # (name, value) of further arguments
    teacher.loss = "paper"  # or "stable", "mixture", "soft": see tf_l2t.losses.TAUGHT_FORMS
    teacher.seed = 0

    config.teacher_training = outer = ml_collections.ConfigDict()  # as in base.py
    outer.steps = 50
    outer.num_steps = 200  # of the student runs that train the teacher
    outer.curriculum = ()
    outer.dev_size = 500  # dev pairs on which M is measured; 0 for all
    outer.learning_rate = 1e-4
    outer.decay = "constant"
    outer.epsilon = 1e-8
    outer.damping = 0.0
    outer.objective = "expected_bleu"  # or another of tf_l2t.training.translation_objectives.OBJECTIVES
    outer.penalty = 0.0
    outer.clip_norm = 1.0
    outer.rollouts = 1
    outer.judge = "objective"  # by which the best teacher is chosen on dev; or "measure", BLEU
    outer.rollback = -1.0
    outer.max_dropped = 3  # teacher steps in a row without a finite gradient, then back to the best teacher
    outer.adjoint_limit = 1e8  # rollouts whose adjoints grow by more are left out; 0 for no limit
    outer.strategy = ""  # or "mirrored": the devices of this machine; "multi_worker": the processes of TF_CONFIG
    outer.distribute = "rollouts"  # over them; or "batch", see TeacherTrainer.compile
    outer.hvp = "reverse_over_reverse"  # LSTMs are loops
    outer.xla = True  # where it suits; not where sentences are of all lengths
    outer.schedule = "every_k"
    outer.memory_budget = ""
    outer.truncate = 0
    outer.validation_freq = 5
    outer.validation_rollouts = 2
    outer.profile = ()

    config.decoding = decoding = ml_collections.ConfigDict()  # of the test set, beside greedy decoding
    decoding.beam_size = 5
    decoding.length_penalty = 1.0
    decoding.longest = 200  # subwords of a source line; longer ones are cut
    decoding.batch_size = 64

    config.compare = compare = ml_collections.ConfigDict()  # of trainers.compare: every loss from the same start
    compare.students = ("lstm1",)
    compare.changes = ()  # (student, ((field, value), …)): what some students have other than this config
    compare.losses = ("mle", "taught")  # "mle" is maximum likelihood for as many further steps
    compare.more_losses = ()  # (student, (loss, …)): behind these, of some students alone
    compare.start = "best"  # of the start's translators, or "last"
    compare.loss_options = ()  # (loss, ((name, value), …))
    compare.optimizer = "sgd"  # of the second part of a run
    compare.decay = "linear"
    compare.learning_rates = (0.1,)
    compare.num_steps = 1000
    compare.evaluate_every = 250
    compare.seeds = 2

    config.quoted = ""
    config.quick = False
    config.quick_changes = ()
    config.quick_data = ()
    return config.lock()
