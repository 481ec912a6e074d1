"""Every field of a config, with its default. Experiments start from here and change what is theirs."""

import ml_collections

DIGIT_PAIRS = ((4, 9), (3, 5), (0, 1), (6, 7))  # two that look alike, two that noise of "shift" mixes up


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.seed = 0  # of the students that train the teacher

    config.data = data = ml_collections.ConfigDict()
    data.name = "mnist_5k"  # "mnist_5k" (embedded), "mnist" (full), "idx" (any in its format), "cifar10", "cifar100"
    data.path = ""  # original files, or a folder of them; "" for tensorflow-datasets
    data.dev_size = 500
    data.train_size = 0  # as many train examples beside dev sets of any size; 0 for all that dev leaves
    data.test_size = 1000  # of mnist_5k; full MNIST has its own test set
    data.balance = False  # of full MNIST: dev and test with the same number of digits of every class
    data.like_cifar = False  # pad images of one channel to 32 x 32 x 3
    data.recipe = ""  # "l2t_dlf", "prokt" or "digits": normalisation and augmentation, see tf_l2t.data.RECIPES
    data.split_seed = 0
    data.noise = "shift"  # the wrong label is the next class, or "uniform": any other
    data.noise_fraction = 0.0  # of the train labels
    data.noise_seed = 0
    data.long_tail = 1.0  # size of the largest train class by that of the smallest

    config.student = student = ml_collections.ConfigDict()
    student.name = "mlp"  # see tf_l2t.students.STUDENTS
    student.activation = "relu"
    student.hidden = 500  # of the MLP
    student.options = ()  # (name, value) of further arguments, such as (("depth", 10), ("growth", 6)) of "densenet_bc"

    config.training = training = ml_collections.ConfigDict()  # one student run
    training.num_steps = 300
    training.batch_size = 50
    training.learning_rate = 0.1
    training.decay = "linear"  # to 0 over num_steps, or "cosine", "constant", "drops:0.5,0.75" (by 10, twice)
    training.momentum = 0.9

    config.features = features = ml_collections.ConfigDict()
    features.refresh_every = 20  # student steps for which the status is held
    features.dev_sample_size = 500

    config.teacher = teacher = ml_collections.ConfigDict()
    teacher.name = "attention"  # see tf_l2t.teachers.TEACHERS
    teacher.num_keys = 10  # of "attention" and the diagonal ones
    teacher.hidden = 32  # of "mlp"
    teacher.options = ()  # (name, value) of further arguments
    teacher.loss = "mixture"  # or "soft", "stable", "paper": see tf_l2t.losses.TAUGHT_FORMS
    teacher.ignored = ()  # names of features that it does not see, see tf_l2t.features; "dev_precision" for all of them
    teacher.class_counts = False  # start from logit adjustment by the train set's class sizes, for long tails
    teacher.seed = 0

    config.teacher_training = outer = ml_collections.ConfigDict()
    outer.steps = 80
    outer.num_steps = 0  # of the student runs that train the teacher; 0 for training.num_steps
    outer.curriculum = ()  # (num_steps, teacher steps) of stages before, such as ((100, 30),): from short runs to long
    outer.train_size = 0  # of the train examples, so many for the teacher's students; 0 for all
    outer.learning_rate = 0.01  # of Adam
    outer.decay = "cosine"  # as training.decay, over steps
    outer.epsilon = 1e-8
    outer.damping = 10.0  # Adam's epsilon is at least this by the number of dev examples
    outer.objective = "log_likelihood"  # or "calibrated_log_likelihood", "relaxed_accuracy"
    outer.penalty = 0.004  # of classes treated unlike, see tf_l2t.teachers.Teacher.penalty
    outer.clip_norm = 1.0  # of one rollout's gradient; 0 for no limit
    outer.rollouts = 1
    outer.judge = "objective"  # by which the best teacher is chosen on dev; or "measure", the exact one
    outer.rollback = -1.0  # go back to the best teacher when validation falls by more; below 0 for never
    outer.max_dropped = 3  # teacher steps in a row without a finite gradient, then back to the best teacher
    outer.adjoint_limit = 1e8  # rollouts whose adjoints grow by more are left out; 0 for no limit
    outer.strategy = ""  # or "mirrored": the devices of this machine; "multi_worker": the processes of TF_CONFIG
    outer.distribute = "rollouts"  # over them; or "batch", see TeacherTrainer.compile
    outer.hvp = "forward_over_reverse"  # or "reverse_over_reverse", "saved_residuals", "auto"
    outer.xla = True  # compile students' steps where they suit it; False for short runs, sooner made than compiled
    outer.schedule = "every_k"  # or "store_all", "binomial:SNAPSHOTS"
    outer.memory_budget = ""  # such as "500MB", in the place of a schedule
    outer.truncate = 0  # sweep back through so many last steps only; 0 for all
    outer.validation_freq = 5
    outer.validation_rollouts = 2
    outer.profile = ()  # first and last teacher step, from 0, to be profiled for TensorBoard

    config.compare = compare = ml_collections.ConfigDict()
    compare.teacher = ""  # an exported teacher, for the taught rows; "" to train num_teachers
    compare.num_teachers = 0  # of seeds 0, 1, …, each trained before the table
    compare.dev_sizes = ()  # one table for each; () for data.dev_size alone
    compare.setting = ""  # the name under which --measured records the results
    compare.rows = ("cross_entropy", "dev_only", "train_tuned", "taught", "taught_tuned")
    compare.learning_rates = (0.01, 0.03, 0.1, 0.2, 0.3, 0.5)
    compare.tune_rates = (0.003, 0.01, 0.03, 0.1, 0.2, 0.3)
    compare.tune_steps = 100
    compare.seeds = 3  # students reported, of every teacher
    compare.selection_seeds = 2
    compare.num_folds = 5
    compare.evaluate_every = 50
    compare.pairs = ()  # classes, names or numbers, whose coefficients reports and TensorBoard draw: ((0, 1),)
    compare.epochs = ()  # of a student's run at which it draws them, such as (20, 40, 60); () for curves

    config.quoted = ""  # figures of a paper, which dry runs and reports repeat
    config.quick = False  # run the whole pipeline in minutes: with quick_changes
    config.quick_changes = ()  # (field, value), such as (("training.num_steps", 30),), but for fields that are typed
    config.quick_data = ()  # further ones, for data that is always at hand; unless data.path is given

    config.ablation = ()  # of trainers.ablate: (name, ((field, value), …)) of every variant
    return config.lock()
