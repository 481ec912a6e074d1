"""The package as it is installed: a wheel, in an environment that has nothing of the checkout."""

import ast
import email
import importlib.metadata
import json
import os
import pathlib
import shutil
import site
import subprocess
import sys
import venv
import zipfile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = pathlib.Path(__file__).parent.parent
EXTRAS = ("keras_nlp", "tensorflow_text", "sentencepiece", "sacremoses", "sacrebleu", "safetensors", "mkdocs",
          "selenium", "pytest", "hypothesis", "yaml")
OTHERS = ("huggingface_hub", "socks")  # keras and urllib3 import them where they are there
USE = f"""
import sys
sys.modules.update(dict.fromkeys({EXTRAS + OTHERS}))  # as if they were not installed
""" + """
import json, pathlib
import tf_l2t
from tf_l2t.translation.text import embedded_help
teacher = tf_l2t.pretrained_teacher("noisy_digits")
typed = pathlib.Path(tf_l2t.__file__).parent / "py.typed"
found = {"file": tf_l2t.__file__, "digits": tf_l2t.data.mnist_5k().train.size, "pairs": embedded_help().size,
         "classes": teacher.num_classes, "typed": typed.is_file()}
for name in tf_l2t.__all__:
    getattr(tf_l2t, name)
loaded = {name.partition(".")[0] for name, module in sys.modules.items() if module}
print(json.dumps(found | {"loaded": sorted(loaded)}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, so that nothing of an earlier build gets in."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, folder / "source", ignore=shutil.ignore_patterns(
        ".*", "runs", "data", "build", "dist", "*.egg-info", "__pycache__", "site", "tests"))
    shutil.copytree(ROOT / "tf_l2t" / "data", folder / "source" / "tf_l2t" / "data", dirs_exist_ok=True)
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index",
                    "--wheel-dir", str(folder), str(folder / "source")], check=True)
    built, = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """An environment with the wheel; what it depends on comes from this one, of which no checkout is seen."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    packages, = folder.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    return folder / "bin" / "python"


def required(line, found=None):
    """The distributions that one needs, itself among them, as pip takes them for this Python and system."""
    found = set() if found is None else found
    one = Requirement(line)
    name = canonicalize_name(one.name)
    if (one.marker is None or one.marker.evaluate({"extra": ""})) and name not in found:
        found.add(name)
        for inner in importlib.metadata.requires(name) or ():
            required(inner, found)
    return found


def run(python, folder, *arguments):
    folder.mkdir(exist_ok=True)
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run([str(python), *arguments], cwd=folder, env=clean, check=True, capture_output=True,
                          text=True).stdout


def test_what_is_in_it(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"tf_l2t"}
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "tf_l2t").rglob("*")
               if path.is_file() and "__pycache__" not in path.parts}
    assert {name for name in names if name.startswith("tf_l2t/")} == sources
    assert sum(info.compress_size for info in zipfile.ZipFile(wheel).infolist()) < 4e6


def _about(wheel):
    archive = zipfile.ZipFile(wheel)
    name, = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    return email.message_from_string(archive.read(name).decode())


def _requirements(wheel):
    return [line for line in _about(wheel).get_all("Requires-Dist") if "extra ==" not in line]


def test_what_it_asks_for(wheel):
    about = _about(wheel)
    assert about["Requires-Python"] == "<3.14,>=3.11" and about["License"] == "Apache-2.0"
    assert set(about.get_all("Provides-Extra")) == {"translation", "text", "docs", "screenshots", "test"}
    assert {Requirement(line).name for line in _requirements(wheel)} == {
        "tensorflow", "keras", "tensorboard", "tensorflow-datasets", "importlib_resources", "numpy", "absl-py",
        "ml_collections", "matplotlib"}


@pytest.mark.parametrize("extra", ["translation", "text"])
def test_extras_bring_what_their_part_imports(wheel, extra):
    """Wherever in its modules, beside what the package itself asks for."""
    lines = [line for line in _about(wheel).get_all("Requires-Dist")]
    of_extra = [Requirement(line) for line in lines if f'extra == "{extra}"' in line]
    asked = [f"{one.name}{'[' + ','.join(one.extras) + ']' if one.extras else ''}{one.specifier}" for one in of_extra]
    allowed = set().union(*map(required, [*_requirements(wheel), *asked]))
    brought, imported = importlib.metadata.packages_distributions(), set()
    for path in (ROOT / "tf_l2t" / extra).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else \
                [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            imported |= {name.split(".")[0] for name in names}
    imported -= {*sys.stdlib_module_names, "tf_l2t"}
    missing = {name for name in imported if not allowed & {canonicalize_name(d) for d in brought.get(name, [name])}}
    assert len(asked) > 0 and imported and not missing


def test_it_works_without_the_extras(wheel, python, tmp_path):
    """And with nothing else than what it asks for, and what that asks for, so that an empty environment is enough."""
    found = json.loads(run(python, tmp_path / "elsewhere", "-c", USE).splitlines()[-1])
    loaded, brought = set(found.pop("loaded")), importlib.metadata.packages_distributions()
    allowed = set().union(*map(required, _requirements(wheel)))
    asked = {name for name in loaded if name in brought and name != "tf_l2t"}
    assert {"tensorflow", "keras", "numpy", "absl"} <= asked
    assert {name for name in asked if not allowed & set(map(canonicalize_name, brought[name]))} == set()
    assert found.pop("file").startswith(str(python.parent.parent))
    assert found == {"digits": 3500, "pairs": 6000, "classes": 10, "typed": True}


def test_the_demos_config_with_it(python, tmp_path):
    """Commands and configs are of a checkout, tf_l2t is the wheel's."""
    for name in ("trainers", "configs", "benchmarks"):
        shutil.copytree(ROOT / name, tmp_path / name)
    out = run(python, tmp_path, "-m", "trainers.train_teacher", "--config=configs/demo.py", "--dry_run",
              "--timed_steps=0")
    assert "3,500 train, 500 dev, 1,000 test" in out and "engine: " in out
