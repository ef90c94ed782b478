"""Effects of inputs that change from row to row: the same as offsets with the inputs among their factors."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from lgssm_cases import oracle_of
from oracles_gaussian import posterior

import statespace_em as sse
from statespace_em.errors import DataError, ParameterError

T, HORIZON = 30, 3
RNG = np.random.default_rng(0)
U = RNG.normal(size=(T + HORIZON, 2)) + 0.4
W = RNG.uniform(0.5, 3.0, T + HORIZON)
LATE = np.arange(T + HORIZON) >= 17
FIXED = {
    "transition": [[0.8]], "observation": [[1], [0.5]], "measurement_cov": "diagonal", "process_cov": [["q"]],
    "initial": "known", "initial_mean": [0.3], "initial_cov": [[2.0]],
}  # fmt: skip
OPTIONS = {"max_iter": 12, "tol": 0.0, "n_starts": 1, "accelerate": False}


def effects():
    """Inputs with effects of every kind, and the offsets that they come to."""
    inputs = {
        "state_input": [[{"s": W}, W]],
        "observation_input": [[np.where(LATE, "after", "before"), 0], [{"c": W, "d": 1}, 0.5]],
    }
    a, b = U.T
    offsets = {
        "state_offset": [{"s": W * a, "known": W * b}],
        "observation_offset": [{"after": LATE * a, "before": ~LATE * a}, {"c": W * a, "d": a, "half": 0.5 * b}],
    }
    return inputs, offsets


def known_offsets(offsets):
    """Offsets of which the parts that are known are numbers."""
    part = {"known": 1.0, "half": 1.0}
    return {
        name: [
            {word: f for word, f in entry.items() if word not in part}
            | {1: sum(f for word, f in entry.items() if word in part)} if set(entry) & set(part) else entry
            for entry in entries
        ]
        for name, entries in offsets.items()
    }  # fmt: skip


def data(missing=0.15):
    rng = np.random.default_rng(1)
    state, y = 0.0, np.empty((T, 2))
    for t in range(T):
        y[t] = [state + (2.0 if LATE[t] else -1.0) * U[t, 0], 0.5 * state + (0.7 * W[t] + 0.2) * U[t, 0]]
        y[t] += 0.3 * rng.normal(size=2)
        state = 0.8 * state - 0.6 * W[t] * U[t, 0] + W[t] * U[t, 1] + rng.normal()
    y[rng.random(y.shape) < missing] = np.nan
    return y


@pytest.fixture(scope="module")
def both():
    inputs, offsets = effects()
    y = data()
    driven = sse.LinearGaussianSSM(**FIXED, **inputs).fit(y, inputs=U, **OPTIONS)
    start = driven.params_
    shifted = sse.LinearGaussianSSM(**FIXED, **known_offsets(offsets))
    return driven, shifted, start, y


def dense(params):
    b, d = (np.einsum("tpk,tk->tp", params[name].values, U) for name in ("state_input", "observation_input"))
    return oracle_of(params, state_offset=b[:T], observation_offset=d[:T])


def test_answers_are_those_of_the_dense_oracle(both):
    driven, _, params, y = both
    exact = posterior(y, dense(params))
    found = driven.e_step(y, inputs=U)
    assert driven.score(y, inputs=U) == pytest.approx(exact.log_likelihood, rel=1e-10)
    np.testing.assert_allclose(found.gamma, exact.mean, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(driven.filter(y, inputs=U).filtered, exact.filtered_mean, rtol=1e-9, atol=1e-10)
    assert dict(params["observation_input"].sizes) == {"time": T + HORIZON, "feature": 2, "input": 2}


def test_a_fit_is_that_of_offsets_with_the_inputs_among_their_factors(both):
    driven, shifted, params, y = both
    other = shifted.fit(y, start=offsets_of(shifted, params, y), **OPTIONS)
    own = sse.LinearGaussianSSM(**FIXED, **effects()[0]).fit(y, inputs=U, start=params, **OPTIONS)
    np.testing.assert_allclose(own.trace_, other.trace_, rtol=1e-9)
    assert (np.diff(driven.trace_["objective"]) > -1e-9).all()
    one, two = (model.summary()["value"].droplevel(["row", "column"]) for model in (own, other))
    for word in ("q", "s", "before", "after", "c", "d"):
        assert one[word] == pytest.approx(two[word], rel=1e-7)
    ahead, same = own.forecast(y, HORIZON, inputs=U), other.forecast(y, HORIZON)
    np.testing.assert_allclose(ahead["mean"], same["mean"], rtol=1e-7)
    best = sse.LinearGaussianSSM(**FIXED, **effects()[0]).fit(y, inputs=U, start=params)
    errors = best.standard_errors(y, inputs=U, of="named")
    for name, value in other.standard_errors(y, offsets_of(other, best.params_, y), of="named").items():
        np.testing.assert_allclose(errors[name], value, rtol=1e-3, err_msg=str(name))
    one, two = (
        model.m_step(y, model.e_step(y, **given), **given) for model, given in ((own, {"inputs": U}), (other, {}))
    )
    np.testing.assert_allclose(np.einsum("tpk,tk->tp", one["state_input"], U), two["state_offset"], rtol=1e-7)


def offsets_of(model, params, y):
    """Start of the model with offsets at the same values."""
    value = {name: params[name] for name in params if not name.endswith("_input")}
    b, d = (np.einsum("tpk,tk->tp", params[name].values, U) for name in ("state_input", "observation_input"))
    coords = {"time": np.arange(T + HORIZON)}
    return xr.Dataset(
        value | {
            "state_offset": (("time", "state"), b, {}), "observation_offset": (("time", "feature"), d, {}),
        }, coords,
    )  # fmt: skip


def test_gradients_are_differences(both):
    driven, _, params, y = both
    model = sse.LinearGaussianSSM(**FIXED, **effects()[0])._with_inputs(U, y)
    core, tree, batch, *_ = model._prepare(y, params)
    statistics = core.e_step(tree, batch)[0]
    slope = core.score_vector(tree, statistics, tree)
    origin = core.to_vector(tree, tree)
    for j in range(len(origin)):
        step = np.zeros(len(origin))
        step[j] = 1e-5
        ends = [core.e_step(core.from_vector(origin + sign * step, tree), batch)[1] for sign in (1, -1)]
        assert slope[j] == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5, abs=1e-5)


def test_streams_take_effects_with_their_row(both):
    driven, _, params, y = both
    stream = driven.stream()
    steps = [stream.update(row, inputs=u) for row, u in zip(y, U)]
    np.testing.assert_allclose([step.filtered for step in steps], driven.filter(y, inputs=U).filtered, rtol=1e-9)
    other = driven.stream()
    given = {name: [params[name].values[t] for t in range(T)] for name in ("state_input", "observation_input")}
    again = [
        other.update(row, inputs=u, matrices={name: rows[t] for name, rows in given.items()})
        for t, (row, u) in enumerate(zip(y, U))
    ]
    np.testing.assert_allclose([s.filtered for s in again], [s.filtered for s in steps], rtol=1e-12)


def test_known_effects_are_taken_as_they_are():
    y = data(0.0)
    known = np.einsum("t,ij->tij", W, [[1.0, 0.0], [0.0, 0.5]])
    model = sse.LinearGaussianSSM(**FIXED, observation_input=known).fit(y, inputs=U)
    moved = y - np.einsum("tij,tj->ti", known[:T], U[:T])
    other = sse.LinearGaussianSSM(**FIXED).fit(moved)
    assert model.score(y, inputs=U) == pytest.approx(other.score(moved), rel=1e-12)
    assert model.n_parameters_ == other.n_parameters_ == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"state_input": [[{"s": W[:9]}, 0]]}, r"state_input is given for 9 rows, but y has 30: .*\(time, state, inp"),
        (
            {"observation_input": [[{"o": 1.0 * (np.arange(T + HORIZON) >= T)}, 0], [0, 0]]},
            "'o' in rows after the last",
        ),
        (
            {"observation_input": [[{"o": W}, 0], [0, 0]], "measurement_cov": [[{"r": LATE}, 0], [0, 1]]},
            "observation_input has a free entry for feature 0 in row 0, where measurement_cov has no noise",
        ),
    ],
)
def test_effects_that_cannot_be_are_refused(changes, message):
    with pytest.raises((DataError, ParameterError), match=message):
        sse.LinearGaussianSSM(**{**FIXED, **changes}).fit(data(), inputs=U)
