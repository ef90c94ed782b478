"""Kernels are compiled once each: whatever the order of the user's arrays in memory, they are called with one."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import statespace_em.kernels

KERNELS = Path(statespace_em.kernels.__file__).parent
PACKAGE = KERNELS.parent

SCRIPT = """
import importlib, pkgutil
import numpy as np
import pandas as pd
import statespace_em as sse
import statespace_em.kernels as kernels

rng = np.random.default_rng(0)
y = pd.DataFrame(rng.standard_normal((60, 2)).cumsum(0), columns=["a", "b"])
rotation = np.asfortranarray([[0.9, 0.2], [-0.2, 0.8]])
frozen = np.array([[1.0, 0.3], [0.3, 1.0]]).T
frozen.flags.writeable = False
lgssm = sse.LinearGaussianSSM(2)
given = lgssm.parameters(
    transition=rotation, process_cov=frozen, observation=rotation.T, measurement_cov=frozen[::-1, ::-1],
    initial_mean=np.ones((2, 2))[:, 0], initial_cov=frozen,
)
gappy = y.copy()
gappy.iloc[::7, 0] = np.nan
for model, params in ((lgssm, None), (lgssm, given)):
    model.fit(gappy, start=params, max_iter=3, tol=0.0)
    params = model.params_ if params is None else params
    for data in (y, gappy):
        model.filter(data, params), model.e_step(data, params), model.decode(data, params)
        model.score(data, params), model.sample(5, params)
sse.designs.local_trend().fit(y["a"], max_iter=3, tol=0.0)  # pandas marks the values as read-only
for family in ("diagonal", "full"):
    model = sse.GaussianHMM(2, family)
    model.fit(y, max_iter=3, n_starts=1, tol=0.0)
    for data in (y, gappy):
        model.filter(data), model.e_step(data), model.decode(data), model.score(data)
seen = set()
for found in pkgutil.iter_modules(kernels.__path__):
    for name, kernel in vars(importlib.import_module(f"statespace_em.kernels.{found.name}")).items():
        if getattr(kernel, "signatures", None) and not kernel.targetoptions.get("no_cpython_wrapper"):
            if kernel not in seen:
                seen.add(kernel)
                for signature in kernel.signatures:
                    kinds = {(kind.layout, kind.mutable) for kind in signature if hasattr(kind, "layout")}
                    print(found.name, name, len(kernel.signatures), *sorted(kinds - {("C", True)}))
"""


@pytest.fixture(scope="module")
def called():
    """What kernels were called with: one line for each signature, with its arrays that are not as all should be."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_every_kernel_is_compiled_for_one_layout(called):
    assert any(line.startswith("adjoint_rows backward_rows") for line in called)
    inside = ("viterbi best_of",)  # by other kernels with a column, by Python with a row
    assert [line for line in called if not line.endswith(" 1") and not line.startswith(inside)] == []


def doorless():
    """Names of functions that Python must not call, by module."""
    for path in KERNELS.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            marks = node.decorator_list if isinstance(node, ast.FunctionDef) else []
            if {"bare", "part", "part_sums", "inlined"} & {getattr(mark, "id", "") for mark in marks}:
                yield path.stem, node.name


def test_parts_of_kernels_are_called_by_kernels_only():
    parts = set(doorless())
    assert ("steady", "filter_rows") in parts
    for path in PACKAGE.rglob("*.py"):
        if path.parent == KERNELS:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert (node.value.id, node.attr) not in parts, path
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("statespace_em.kernels."):
                named = {(node.module.rpartition(".")[2], alias.name) for alias in node.names}
                assert not named & parts, path
