"""What was known on a day does not depend on what came later, to the bit; and how far hindsight is from it."""

import numpy as np
import pytest
from hmm_cases import FAMILIES, case
from hypothesis import given, settings
from hypothesis import strategies as st

import statespace_em as sse


def same_bits(left, right):
    for name in left.data_vars:
        if left[name].dtype.kind == "f":
            rows = right[name].isel({left[name].dims[0]: slice(left[name].shape[0])})
            assert left[name].values.tobytes() == rows.values.tobytes(), name


@settings(max_examples=12, deadline=None)
@given(
    kind=st.sampled_from(FAMILIES),
    n_states=st.integers(1, 9),
    n_rows=st.integers(1, 30),
    n_later=st.integers(1, 30),
    seed=st.integers(0, 1000),
)
def test_appended_rows_change_no_bit(kind, n_states, n_rows, n_later, seed):
    model, params, y = case(kind, n_states, n_rows + n_later, seed, holes=True)
    levels = None if kind in ("categorical", "channels") else [0.1]
    for ask in (
        lambda rows: model.filter(rows, params),
        lambda rows: model.one_step(rows, params, quantiles=levels),
        lambda rows: model.residuals(rows, params, seed=1),
    ):
        same_bits(ask(y[:n_rows]), ask(y))
    lag = 2
    if n_rows > lag:
        lagged = model.fixed_lag(y[:n_rows], lag, params).isel(time=slice(n_rows - lag))
        same_bits(lagged, model.fixed_lag(y, lag, params))


@settings(max_examples=6, deadline=None)
@given(n_rows=st.integers(1, 30), n_later=st.integers(1, 30), seed=st.integers(0, 1000))
def test_appended_rows_change_no_bit_of_a_linear_gaussian_model(n_rows, n_later, seed):
    rng = np.random.default_rng(seed)
    model = sse.LinearGaussianSSM(2)
    params = model.parameters(
        transition=0.9 * np.eye(2) + 0.1 * rng.normal(size=(2, 2)), observation=rng.normal(size=(2, 2)),
        process_cov=np.eye(2), measurement_cov=0.5 * np.eye(2), initial_mean=[0, 0], initial_cov=3 * np.eye(2),
    )  # fmt: skip
    y = rng.normal(size=(n_rows + n_later, 2))
    y[rng.random(y.shape) < 0.2] = np.nan
    for ask in (
        lambda rows: model.filter(rows, params),
        lambda rows: model.one_step(rows, params, quantiles=[0.1]),
        lambda rows: model.residuals(rows, params),
    ):
        same_bits(ask(y[:n_rows]), ask(y))


def test_hindsight_differs_from_what_was_known():
    """Fault of users: trading on smoothed labels. A toy rule earns what nobody could have earned."""
    model = sse.GaussianHMM(["calm", "turbulent"], "diagonal")
    params = model.parameters(
        initial=[0.5, 0.5], transition=[[0.98, 0.02], [0.05, 0.95]], mean=[[0.08], [-0.15]], var=[[0.6], [4.0]]
    )
    returns = model.sample(20_000, params, seed=1)["y"].values[:, 0]
    known = model.filter(returns, params)
    hindsight = model.smooth(returns, params)["smoothed"].sel(state="calm").values > 0.5
    at_the_time = known["filtered"].sel(state="calm").values > 0.5
    before = known["predicted"].sel(state="calm").values > 0.5
    assert 0.03 < (hindsight != at_the_time).mean() < 0.15
    earned = {name: (returns * held).sum() for name, held in (("hindsight", hindsight), ("before", before))}
    assert earned["hindsight"] > 1.2 * earned["before"] > 0.0


@pytest.mark.parametrize("horizon", [1, 3])
def test_a_forecast_starts_after_the_last_row(horizon):
    """Fault of a peer: a forecast that begins at the last row."""
    model, params, y = case("diagonal", 2, 25, 3)
    ahead = model.forecast(y, horizon, params)["predicted"].values[-1]
    blank = np.vstack([y, np.full((horizon, 2), np.nan)])
    np.testing.assert_allclose(ahead, model.filter(blank, params)["predicted"].values[-1], rtol=1e-12)
