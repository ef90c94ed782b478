"""Inputs whose effects rows cannot tell: a warning names the columns, and nothing else changes."""

import warnings

import numpy as np
import pandas as pd
import pytest

import statespace_em as sse
from statespace_em.errors import DataWarning

RNG = np.random.default_rng(3)
N = 80
X = RNG.normal(size=N)
Y = RNG.normal(size=N).cumsum() + RNG.normal(size=N) + 2.0 * X
LEVEL = {"transition": [[1]], "observation": [[1]], "initial": "diffuse"}
DECAYING = {"transition": [["phi"]], "observation": [[1]], "initial": "stationary"}


def table(**columns):
    return pd.DataFrame(columns)


ONE, STEP = np.ones(N), (np.arange(N) >= 30) * 1.0
LOST = {
    "twice": (LEVEL | {"observation_input": "free"}, table(a=X, b=2.0 * X), "'a', 'b'"),
    "sum": (LEVEL | {"observation_input": "free"}, table(a=X, b=STEP, c=X - STEP, d=X**2), "'a', 'b', 'c'"),
    "zero": (LEVEL | {"state_input": "free"}, table(x=X, none=0 * X), "'none'"),
    "constant beside a level": (LEVEL | {"observation_input": "free"}, table(one=ONE, x=X), "'one'"),
    "constant beside a first mean": (
        LEVEL | {"observation_input": "free", "initial": "fixed", "measurement_cov": [[1.0]]}, table(one=ONE, x=X),
        "'one'",
    ),
    "constant beside an offset": (
        DECAYING | {"observation_input": "free", "observation_offset": "free"}, table(one=ONE, x=X), "'one'"
    ),
    "constant beside an offset of the states": (
        LEVEL | {"state_input": "free", "state_offset": "free"}, table(one=ONE, x=X), "'one'"
    ),
    "steps and their sum": (
        LEVEL | {"state_input": [["p", 0]], "observation_input": [[0, "q"]]},
        table(x=X, total=np.append(0.0, X.cumsum()[:-1])), "'x', 'total'",
    ),
}  # fmt: skip
TOLD = {
    "step": (LEVEL | {"observation_input": "free"}, table(x=X, step=STEP)),
    "both sides": (LEVEL | {"state_input": "free", "observation_input": "free"}, table(x=X)),
    "constant and a decaying state": (DECAYING | {"observation_input": "free"}, table(one=ONE, x=X)),
    "late": (LEVEL | {"observation_input": "free"}, table(x=X, late=(np.arange(N) == N - 1) * 1.0)),
    "nearly": (LEVEL | {"observation_input": "free"}, table(x=X, y=X + 1e-3 * STEP)),
}


@pytest.mark.parametrize(("settings", "inputs", "named"), LOST.values(), ids=LOST)
def test_columns_that_make_up_for_each_other_are_named(settings, inputs, named):
    with pytest.warns(DataWarning, match=f"do not tell the effects? of the inputs? {named}: "):
        model = sse.LinearGaussianSSM(**settings).fit(Y, inputs=inputs, n_starts=1)
    assert model.converged_


@pytest.mark.parametrize(("settings", "inputs"), TOLD.values(), ids=TOLD)
def test_columns_that_rows_tell_bring_no_warning(settings, inputs):
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        sse.LinearGaussianSSM(**settings).fit(Y, inputs=inputs, n_starts=1)


def test_without_the_column_the_likelihood_is_the_same():
    model = sse.LinearGaussianSSM(**LEVEL, observation_input="free")
    less = model.fit(Y, inputs=table(a=X)).score(Y, inputs=table(a=X))
    with pytest.warns(DataWarning, match="leave a column out"):
        more = model.fit(Y, inputs=LOST["twice"][1]).score(Y, inputs=LOST["twice"][1])
    assert more == pytest.approx(less, abs=1e-6)


def test_rows_that_are_missing_tell_nothing():
    """A dummy of rows that were not seen, and of a panel whose other sequence sees them."""
    gone = Y.copy()
    gone[:10] = np.nan
    inputs = table(x=X, early=(np.arange(N) < 10) * 1.0)
    model = sse.LinearGaussianSSM(**LEVEL, observation_input="free")
    with pytest.warns(DataWarning, match="of the input 'early'"):
        model.fit(gone, inputs=inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        model.fit([gone, Y], inputs=inputs)
