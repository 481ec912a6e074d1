# make demo | test | lint | docs | screenshots | bench | soak | wheel. Each makes its own virtual environment; PYTHON names the interpreter to make it with.
PYTHON ?= $(shell for v in python3.11 python3.12 python3.13 python3; do $$v -c "" 2>/dev/null && command -v $$v && break; done)
VENV := .venv
BENCH_VENV := .venv-bench
WHEEL_VENV := .venv-wheel
# The options of `python -m benchmarks.run`: make bench BENCH="--only mlp --quick"
BENCH ?=
RUN := runs/demo-$(shell date +%Y%m%d-%H%M%S)
export TF_CPP_MIN_LOG_LEVEL ?= 3

define NEEDS_PYTHON
@test -n "$(PYTHON)" || { echo "found no Python: install 3.11, 3.12 or 3.13, or make PYTHON=/path/to/python3.11" >&2; exit 1; }
@"$(PYTHON)" -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 13) or sys.exit("tf_l2t needs Python 3.11, 3.12 or 3.13; %s is %d.%d. Name another: make PYTHON=/path/to/python3.11" % (sys.executable, *v))'
endef

.PHONY: demo test lint docs screenshots bench soak wheel clean

$(VENV)/.installed: setup.cfg pyproject.toml
	$(NEEDS_PYTHON)
	"$(PYTHON)" -m venv "$(VENV)"
	"$(VENV)/bin/python" -m pip install --quiet --disable-pip-version-check --editable '.[translation,text,test,docs]'
	@touch $@

demo: $(VENV)/.installed
	"$(VENV)/bin/python" -m trainers.train_teacher --config configs/demo.py --workdir $(RUN)/teacher
	"$(VENV)/bin/python" -m trainers.compare --config configs/demo.py --workdir $(RUN)/table \
	  --config.compare.teacher=$(RUN)/teacher/teacher
	"$(VENV)/bin/python" -m trainers.train_student --config configs/demo.py --workdir $(RUN)/student \
	  --config.compare.teacher=$(RUN)/teacher/teacher

# In three parts, as XLA keeps whatever a process has ever compiled. The table of translators comes first: behind the
# others its tests would be taken by both processes, and each would make the table.
test: $(VENV)/.installed
	"$(VENV)/bin/python" -m pytest --numprocesses=2 --dist=worksteal tests/test_translation_compare.py tests/test_*.py
	"$(VENV)/bin/python" -m pytest --numprocesses=2 --dist=worksteal tests --ignore-glob='tests/test_*.py' --ignore=tests/training
	"$(VENV)/bin/python" -m pytest --numprocesses=2 --dist=worksteal tests/training

lint: $(VENV)/.installed
	"$(VENV)/bin/python" -m ruff check .
	"$(VENV)/bin/python" -m mypy tf_l2t trainers benchmarks
	"$(VENV)/bin/python" -m mkdocs build --site-dir "$(VENV)/site"

docs: $(VENV)/.installed
	"$(VENV)/bin/python" -m mkdocs build
	@echo "open site/index.html"

# Of the newest demo, for docs/tensorboard.md; needs Chromium and its driver (Debian: apt-get install chromium-driver).
screenshots: $(VENV)/.installed
	"$(VENV)/bin/python" -m pip install --quiet --disable-pip-version-check --editable '.[screenshots]'
	"$(VENV)/bin/python" docs/screenshots.py --runs "$(lastword $(sort $(wildcard runs/demo-*)))" --output docs

# Figures of one Python only can be compared.
$(BENCH_VENV)/.installed: setup.cfg pyproject.toml benchmarks/requirements.txt
	@test -n "$(PYTHON)" || { echo "found no Python: make bench needs 3.11; name it: make bench PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; v = sys.version_info[:2]; v == (3, 11) or sys.exit("make bench needs Python 3.11; %s is %d.%d. Name another: make bench PYTHON=/path/to/python3.11" % (sys.executable, *v))'
	"$(PYTHON)" -m venv "$(BENCH_VENV)"
	"$(BENCH_VENV)/bin/python" -m pip install --quiet --disable-pip-version-check \
	  --requirement benchmarks/requirements.txt --editable .
	@touch $@

bench: $(BENCH_VENV)/.installed
	"$(BENCH_VENV)/bin/python" -m benchmarks.run $(BENCH)

# Several hours: trainings that are killed and damaged, an hour of one whose memory is watched, and spoiled inputs.
soak: $(VENV)/.installed
	"$(VENV)/bin/python" -m benchmarks.soak

# What `pip install .` gives in an empty environment: two steps of the demo's teacher, by the commands of a checkout.
wheel:
	$(NEEDS_PYTHON)
	rm -rf "$(WHEEL_VENV)" build
	"$(PYTHON)" -m venv "$(WHEEL_VENV)"
	"$(WHEEL_VENV)/bin/python" -m pip install --quiet --disable-pip-version-check .
	cp -r trainers configs "$(WHEEL_VENV)"
	cd "$(WHEEL_VENV)" && bin/python -c "import tf_l2t; print(tf_l2t.__file__)" && \
	  bin/python -m trainers.train_teacher --config configs/demo.py --workdir run --config.teacher_training.steps=2

clean:
	rm -rf "$(VENV)" "$(BENCH_VENV)" "$(WHEEL_VENV)"
