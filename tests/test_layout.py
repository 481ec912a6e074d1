"""Imports point one way (the layers of the design), and heavy modules are loaded late."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
# A module may import from its own layer and from the layers below it.
LAYERS = [
    {"hypergradient"},
    {"losses", "objectives"},
    {"students", "teachers", "data", "features", "files", "garbage", "options"},
    {"distillation", "translation", "text"},
    {"training", "export", "plotting", "pretrained", "report", "saved_models", "teacher_card"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def layer_of(path: pathlib.Path) -> str:
    return path.relative_to(ROOT / "tf_l2t").parts[0].removesuffix(".py")


def imported(path: pathlib.Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


MODULES = [p for p in sorted((ROOT / "tf_l2t").rglob("*.py")) if p != ROOT / "tf_l2t" / "__init__.py"]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path):
    mine = LEVEL[layer_of(path)]
    for name in imported(path):
        parts = name.split(".")
        assert parts[0] not in ("trainers", "configs"), f"{path} imports {name}"
        if parts[0] == "tf_l2t" and len(parts) > 1 and parts[1] in LEVEL:
            assert LEVEL[parts[1]] <= mine, f"{path} imports {name} from a layer above"


def test_the_engine_imports_tensorflow_and_numpy_only():
    allowed = {"tensorflow", "numpy", "tf_l2t", *sys.stdlib_module_names}
    for path in (ROOT / "tf_l2t" / "hypergradient").glob("*.py"):
        outside = {name.split(".")[0] for name in imported(path)} - allowed
        assert not outside, f"{path} imports {outside}"


def test_planning_needs_no_tensorflow():
    path = ROOT / "tf_l2t" / "hypergradient" / "schedules.py"
    assert {name.split(".")[0] for name in imported(path)} <= {*sys.stdlib_module_names}


def test_importing_the_package_loads_nothing_heavy():
    code = ("import sys, tf_l2t\n"
            "heavy = {'tensorflow', 'keras', 'matplotlib', 'tensorflow_datasets'} & set(sys.modules)\n"
            "assert not heavy, heavy; assert tf_l2t.TeacherTrainer and tf_l2t.losses.stable_loss")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_unknown_names_are_attribute_errors():
    import tf_l2t

    with pytest.raises(AttributeError, match="nothing"):
        tf_l2t.nothing  # noqa: B018
    assert set(tf_l2t.__all__) <= set(dir(tf_l2t))
