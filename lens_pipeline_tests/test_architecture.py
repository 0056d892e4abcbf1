"""The rules that keep the tree readable and safe, as tests."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lens_pipeline.defs.sections import SECTIONS

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "lens_pipeline"
MODULES = sorted(PACKAGE.rglob("*.py"))
MAY_EXPORT = {PACKAGE / "storage" / "__init__.py"}
BANNED_CALLS = {
    "eval",
    "exec",
    "pickle.load",
    "pickle.loads",
    "torch.load",
    "torch.save",
    "joblib.load",
    "yaml.load",
    "np.load",
}


def trees() -> list[tuple[Path, ast.Module]]:
    return [(path, ast.parse(path.read_text())) for path in MODULES]


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


# What takes a tenth of a second or more to load, and no process needs that only looks at what there is.
_LOADED_WHEN_USED = {
    *("torch", "timm", "mlflow", "optuna", "lenstronomy", "numba", "matplotlib", "astropy", "sklearn", "jinja2"),
    *("scipy.stats", "scipy.optimize", "scipy.interpolate", "scipy.spatial", "scipy.ndimage", "scipy.signal"),
}


def test_loading_the_definitions_imports_no_library_that_only_an_asset_or_a_child_process_needs() -> None:
    script = "import sys, lens_pipeline.definitions; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert sorted(_LOADED_WHEN_USED & set(done.stdout.split())) == []


def test_package_markers_are_empty_but_for_the_one_that_offers_read_table() -> None:
    assert [p for p in MODULES if p.name == "__init__.py" and p not in MAY_EXPORT and p.read_text().strip()] == []


def test_every_module_says_what_it_is_for() -> None:
    silent = [p for p, tree in trees() if p.name != "__init__.py" and not ast.get_docstring(tree)]
    assert silent == []


def test_no_file_is_read_with_pickle_and_no_shell_is_started() -> None:
    found = []
    for path, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                name = dotted(node.func)
                shell = any(k.arg == "shell" and getattr(k.value, "value", None) is True for k in node.keywords)
                if name in BANNED_CALLS or shell:
                    found.append(f"{path.name}:{node.lineno} {name}")
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
                found += [
                    f"{path.name}:{node.lineno} {n}" for n in names if n.split(".")[0] in ("pickle", "joblib", "dill")
                ]
    assert found == []


def test_no_import_falls_back_on_another_and_no_path_is_edited() -> None:
    found = []
    for path, tree in trees():
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.ExceptHandler)
                and node.type is not None
                and "ImportError" in ast.unparse(node.type)
            ):
                found.append(f"{path.name}:{node.lineno}")
            if isinstance(node, ast.Attribute) and dotted(node) == "sys.path":
                found.append(f"{path.name}:{node.lineno}")
    assert found == []


def test_the_tests_mirror_the_tree() -> None:
    rooms = {p.name for p in PACKAGE.iterdir() if p.is_dir() and (p / "__init__.py").exists()} | {"reliability"}
    mirrored = {p.name for p in (ROOT / "lens_pipeline_tests").iterdir() if p.is_dir() and p.name != "__pycache__"}
    assert rooms == mirrored


@pytest.mark.parametrize("asset", list(SECTIONS))
def test_every_declared_setting_is_read_somewhere(asset: str) -> None:
    section = SECTIONS[asset]
    home = Path(sys.modules[section.__module__].__file__ or "")
    read = {
        node.attr
        for path, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Load)
        and (path != home or dotted(node) != node.attr)
        if not (path == home and dotted(node).startswith("self."))
    }
    assert sorted(set(section.model_fields) - read) == []


@pytest.mark.parametrize("asset", list(SECTIONS))
def test_every_setting_says_what_it_means_and_numbers_have_a_range(asset: str) -> None:
    silent = [name for name, field in SECTIONS[asset].model_fields.items() if not field.description]
    unbounded = [
        name
        for name, field in SECTIONS[asset].model_fields.items()
        if field.annotation in (int, float) and not field.metadata
    ]
    assert (silent, unbounded) == ([], [])


def test_nothing_in_the_tree_names_a_package_registry_or_a_path_of_one_machine() -> None:
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()
    banned = ["py" + "pi.org", "pythonhosted" + ".org", "/ro" + "ot/", "/wo" + "rk/", "index" + "-url"]
    found = []
    for name in listed:
        path = ROOT / name
        if path.is_file() and path.suffix not in (".png", ".fits", ".parquet"):
            text = path.read_text(errors="replace")
            found += [f"{name}: {word}" for word in banned if word in text]
    assert found == []


def test_the_lock_for_cuda_12_differs_in_torch_and_what_that_brings_along_alone() -> None:
    pinned = {name: set(_pins(ROOT / name)) for name in ("requirements.lock", "requirements-cuda12.lock")}
    differing = {pin.split("==")[0].split("[")[0] for pin in set.symmetric_difference(*pinned.values())}
    assert {name for name in differing if not name.startswith(("nvidia-", "cuda-"))} == {
        "torch",
        "torchvision",
        "triton",
    }
    assert "torch==2.10.0" in pinned["requirements-cuda12.lock"]


def _pins(lock: Path) -> list[str]:
    return re.findall(r"^(\S+==\S+)", lock.read_text(), re.MULTILINE)
