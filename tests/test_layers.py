"""The shape of the package: imports point downwards, files stay short, everything public is described."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import statespace_em

PACKAGE = Path(statespace_em.__file__).parent
ROOT = PACKAGE.parent
FILES = sorted(PACKAGE.rglob("*.py"))
CHECKOUT = (ROOT / "pyproject.toml").exists()

LAYERS = {
    0: (
        *("_garbage", "_memory", "_threads", "_typing", "_validate", "boundary", "domains", "em", "errors", "kernels"),
        *("lazy", "mixing", "priors", "quasi_newton", "stopping"),
    ),
    1: ("emissions", "patterns", "predictive", "row_patterns", "start", "structure"),
    2: (
        *("containers", "core", "data", "families", "fitting", "geodesy", "labels", "matching", "reports"),
        *("conditions", "constraints", "diagnostics", "inputs", "order", "residuals", "scale", "schema", "shared"),
        *("row_entries", "row_panels", "segments", "storage", "ties"),
    ),
    3: ("model", "settings", "uncertainty"),
    4: ("many", "sequence", "static"),
    5: ("checks", "compare", "datasets", "paths", "plotting", "regimes", "testing"),
    6: ("__main__", "cli"),
}
LAYER = {name: layer for layer, names in LAYERS.items() for name in names}
ANYTHING = ("testing",)  # checks of models, for users to run
NUMBERS = {"numpy", "scipy"}
LABELLED = NUMBERS | {"pandas", "xarray"}
THIRD = {0: NUMBERS, 1: NUMBERS, 2: LABELLED | {"tqdm"}, 3: LABELLED, 4: LABELLED, 5: LABELLED, 6: LABELLED}
ALSO = {
    "plotting": {"matplotlib"},
    "cli": {"matplotlib"},
    "kernels._jit": {"numba"},
    "kernels._lanes": {"numba", "llvmlite"},
    "scale": {"dask", "distributed"},
}


def module_of(path: Path) -> str:
    """Name below the package, such as "sequence.hmm"; empty for the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def imported(path: Path) -> set[str]:
    """Full names of the modules that a file imports anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                own = whole.removeprefix("statespace_em.") in MODULES
                names.add(whole if own else str(node.module))
    return names


def ours(path: Path) -> set[str]:
    return {name.removeprefix("statespace_em.") for name in imported(path) if name.startswith("statespace_em.")}


def theirs(path: Path) -> set[str]:
    top = {name.split(".")[0] for name in imported(path)}
    return top - set(sys.stdlib_module_names) - {"statespace_em"}


def test_every_module_has_a_layer():
    assert {name.split(".")[0] for name in MODULES} - {""} <= set(LAYER)


@pytest.mark.parametrize("name", [name for name in MODULES if name])
def test_imports_point_downwards(name):
    top, path = name.split(".")[0], MODULES[name]
    layer = LAYER[top]
    for other in ours(path):
        below = other.split(".")[0]
        if below == top or top in ANYTHING:
            continue
        if layer == 4:
            assert LAYER[below] < 4, f"{name} imports {other}"  # sequence and static do not know each other
        elif layer == 5:
            assert LAYER[below] <= 2, f"{name} imports {other}"
        else:
            assert LAYER[below] <= layer, f"{name} imports {other}"


@pytest.mark.parametrize("name", [name for name in MODULES if name])
def test_third_parties(name):
    top = name.split(".")[0]
    allowed = THIRD[LAYER[top]] | ALSO.get(top, set()) | ALSO.get(name, set())
    assert theirs(MODULES[name]) <= allowed


@pytest.mark.parametrize("name", [name for name in MODULES if name.split(".")[0] == "kernels"])
def test_kernels_are_numbers_only(name):
    allowed = {"_typing", "_garbage", "_memory"} if name == "kernels._jit" else {"_typing"}
    assert {other for other in ours(MODULES[name]) if other.split(".")[0] != "kernels"} <= allowed


def test_the_loop_knows_a_protocol_and_no_models():
    assert ours(MODULES["em"]) <= {"_typing", "errors", "mixing", "stopping"}


def test_imports_have_no_cycles():
    graph = {name: ours(path) & set(MODULES) for name, path in MODULES.items() if name}
    done: set[str] = set()
    while len(done) < len(graph):
        free = {name for name in set(graph) - done if graph[name] - {name} <= done}
        assert free, f"a cycle among {sorted(set(graph) - done)}"
        done |= free


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_stay_short(path):
    assert len(path.read_text().splitlines()) <= 400


@pytest.mark.skipif(not CHECKOUT, reason="not a checkout")
def test_the_top_folder_stays_small():
    files, folders = "pyproject.toml README.md LICENSE CHANGELOG.md", "statespace_em tests notebooks datasets"
    allowed = {*files.split(), *folders.split()}
    ignored = {line.strip("/\n") for line in (ROOT / ".gitignore").read_text().splitlines()}
    found = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    assert {name for name in found - ignored if not name.endswith(".egg-info")} <= allowed


MODELS = ["GaussianHMM", "LinearGaussianSSM"]


@pytest.mark.parametrize(
    ("names", "more"),
    [
        ([name for name in statespace_em.__all__ if name not in ("plotting", "testing")], []),
        (MODELS, ["scipy.special", "scipy.linalg", "statespace_em.compare"]),
    ],
)
def test_importing_loads_nothing_slow(names, more):
    slow = ["matplotlib", "statsmodels", "sklearn", "dask", "tqdm", "IPython"]
    slow += ["scipy.stats", "scipy.optimize", "scipy.cluster", *more]
    code = f"import sys; from statespace_em import {', '.join(names)}; print([n for n in {slow} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("model", ["GaussianHMM(2)", "PoissonHMM(2)", "GaussianHMM(2, 'full')"])
def test_a_fit_does_without_what_takes_longer_to_import(model):
    code = f"import sys, statespace_em as sse; sse.{model}.fit([[1.0], [2.0], [5.0], [7.0], [6.0]] * 4, max_iter=2); "
    code += "print('scipy.stats' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_name_that_the_package_does_not_have_is_refused():
    with pytest.raises(AttributeError, match="module 'statespace_em' has no attribute 'HNM'"):
        statespace_em.HNM


def test_the_public_names_are_few_and_described():
    assert len(statespace_em.__all__) <= 40
    assert sorted(statespace_em.__all__) == sorted(set(statespace_em.__all__))
    for name in statespace_em.__all__:
        assert inspect.getdoc(getattr(statespace_em, name)), name


def undescribed(node: ast.AST, where: str) -> list[str]:
    """Public functions, classes and methods without a docstring."""
    missing = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not child.name.startswith("_"):
            if ast.get_docstring(child) is None:
                missing.append(f"{where}.{child.name}")
            if isinstance(child, ast.ClassDef):
                missing += undescribed(child, f"{where}.{child.name}")
    return missing


@pytest.mark.parametrize("name", MODULES)
def test_everything_public_has_a_docstring(name):
    tree = ast.parse(MODULES[name].read_text())
    assert ast.get_docstring(tree), name
    assert undescribed(tree, name) == []


def test_every_module_imports():
    for found in pkgutil.walk_packages([str(PACKAGE)], "statespace_em."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
