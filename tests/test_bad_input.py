"""Bad input gets a typed error that names value, place and remedy, before any work is done."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import statespace_em as sse
from statespace_em import em
from statespace_em.data import Batch
from statespace_em.errors import (
    DataError,
    DataWarning,
    FileFormatError,
    ImpossibleObservationError,
    NotFittedError,
    ParameterError,
    SingularInnovationError,
    StateSpaceError,
)
from statespace_em.families import check_rows

NAN = np.nan
STATES = ["calm", "stress"]
DAYS = pd.date_range("2020-01-01", periods=40, name="day")
REAL = pd.DataFrame(np.random.default_rng(0).normal(size=(40, 2)), DAYS, ["a", "b"])
COUNTS = pd.DataFrame(np.random.default_rng(1).poisson(3.0, (40, 2)).astype(float), DAYS, ["a", "b"])
SYMBOLS = pd.Series(np.random.default_rng(2).choice(list("xy"), 40), DAYS, name="a")
CHAIN = {"initial": [0.5, 0.5], "transition": [[0.9, 0.1], [0.2, 0.8]]}
MEAN = [[0.0, 0.0], [1.0, 1.0]]
EYE = np.eye(2)

MODELS = {
    "full": (sse.GaussianHMM(STATES), {**CHAIN, "mean": MEAN, "cov": np.array([EYE, EYE])}, REAL),
    "tied": (sse.GaussianHMM(STATES, "tied"), {**CHAIN, "mean": MEAN, "cov": EYE}, REAL),
    "diagonal": (sse.GaussianHMM(STATES, "diagonal"), {**CHAIN, "mean": MEAN, "var": np.ones((2, 2))}, REAL),
    "spherical": (sse.GaussianHMM(STATES, "spherical"), {**CHAIN, "mean": MEAN, "var": np.ones(2)}, REAL),
    "poisson": (sse.PoissonHMM(STATES), {**CHAIN, "rate": np.ones((2, 2))}, COUNTS),
    "categorical": (sse.CategoricalHMM(STATES, symbols="xy"), {**CHAIN, "prob": [[0.5, 0.5], [0.1, 0.9]]}, SYMBOLS),
    "mixture": (sse.Mixture(STATES, sse.emissions.Poisson()), {"weight": [0.5, 0.5], "rate": np.ones((2, 2))}, COUNTS),
    "linear": (
        sse.LinearGaussianSSM(STATES),
        {
            **dict.fromkeys(("transition", "process_cov", "observation", "measurement_cov", "initial_cov"), EYE),
            "initial_mean": [0.0, 0.0],
        },
        REAL,
    ),
}
NUMERIC = [name for name in MODELS if name != "categorical"]
NOISE = re.compile(r"np\.|Timestamp\(|Index\(|dtype|array\(|\"'|'\"")


@pytest.fixture(autouse=True)
def no_work(monkeypatch):
    """Count the fits that begin: an error must come before."""
    begun = []
    original = em.run_starts
    monkeypatch.setattr(em, "run_starts", lambda *args, **kwargs: (begun.append(1), original(*args, **kwargs))[1])
    return begun


def refused(begun, error, message, *calls):
    for call in calls:
        with pytest.raises(error, match=message) as caught:
            call()
        assert issubclass(error, StateSpaceError)
        assert not NOISE.search(str(caught.value)), caught.value
        assert not begun


def everywhere(name, y):
    """Every way to hand y to a model."""
    model, arrays, _ = MODELS[name]
    params = model.parameters(**arrays)
    asked = [lambda: model.score(y, params), lambda: model.e_step(y, params)]
    if name != "mixture":
        asked += [lambda: model.decode(y, params), lambda: model.filter(y, params)]
        asked += [lambda: model.forecast(y, 1, params)]
    return lambda: model.fit(y), lambda: model.fit(y, start=params), *asked


# observations


@pytest.mark.parametrize("name", NUMERIC)
@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinities(no_work, name, value):
    y = MODELS[name][2].copy()
    y.iloc[3, 1] = value
    message = rf"^{value} is not finite \(column 'b', day 2020-01-04\): correct it, or mark it missing with NaN\.$"
    refused(no_work, DataError, message, *everywhere(name, y))


@pytest.mark.parametrize("name", sorted({*NUMERIC} - {"poisson", "mixture"}))
def test_numbers_whose_square_overflows(no_work, name):
    y = MODELS[name][2].astype(float)
    y.iloc[3, 1] = -1e200
    message = r"^-1e\+200 is too large: its square is beyond floating point \(column 'b', day 2020-01-04\): change its"
    refused(no_work, DataError, message, *everywhere(name, y))


@pytest.mark.parametrize("name", NUMERIC)
def test_text_among_numbers(no_work, name):
    y = MODELS[name][2].astype(object)
    y.iloc[39, 0] = "n/a"
    message = r"^'n/a' is not a number \(column 'a', day 2020-02-09\): convert it, mark it missing with NaN, or use"
    refused(no_work, DataError, message, *everywhere(name, y))


@pytest.mark.parametrize("name", MODELS)
def test_shapes(no_work, name):
    refused(no_work, DataError, r"^y has shape \(2, 2, 2\), expected \(N,\) or", *everywhere(name, np.zeros((2, 2, 2))))
    refused(no_work, DataError, r"^y has no rows: pass at least one\.$", *everywhere(name, MODELS[name][2][:0]))


@pytest.mark.parametrize("name", NUMERIC)
def test_a_column_too_many_or_missing(no_work, name):
    model, arrays, y = MODELS[name]
    params = model.parameters(**arrays)
    message = r"^y has 3 columns, but the parameters are of 2 \(0, 1\): pass as many"
    refused(no_work, DataError, message, lambda: model.score(y.assign(c=1.0), params))
    named = params.assign_coords(feature=["a", "c"])
    message = r"^y has no column 'c', only 'a', 'b': add or rename it, or fit again"
    refused(no_work, DataError, message, lambda: model.score(y, named), lambda: model.fit(y, start=named))


@pytest.mark.parametrize("name", MODELS)
def test_order_of_time(no_work, name):
    y = MODELS[name][2]
    message = r"^day 2020-01-02 occurs more than once: average or drop the duplicates\.$"
    refused(no_work, DataError, message, *everywhere(name, y.iloc[[0, 1, 1, 2]]))
    message = r"^day 2020-01-02 comes after 2020-01-03: sort y first, or build the model with unsorted='sort'\.$"
    refused(no_work, DataError, message, *everywhere(name, y.iloc[[0, 2, 1, 3]]))


def test_unsorted_rows_are_sorted_when_told():
    model, arrays, y = MODELS["full"]
    sorting = sse.GaussianHMM(STATES, unsorted="sort")
    params = model.parameters(**arrays)
    assert sorting.score(y[::-1], params) == model.score(y, params)
    assert sorting.e_step(y[::-1], params).indexes["day"].equals(DAYS)


@pytest.mark.parametrize("name", ["poisson", "mixture"])
def test_counts(no_work, name):
    y = COUNTS.copy()
    y.iloc[0, 1] = -2.0
    message = r"^-2 is negative, but counts are expected \(column 'b', day 2020-01-01\): correct it, or mark it missing"
    refused(no_work, DataError, message, *everywhere(name, y))
    refused(no_work, DataError, r"column 'b', day 2020-01-01 of sequence 'u'\)", *everywhere(name, {"u": y}))
    y.iloc[0, 1] = 2.5
    message = (
        r"^2.5 is not a whole number, but counts are expected \(column 'b', day 2020-01-01\): use a model for real"
    )
    refused(no_work, DataError, message, *everywhere(name, y))


def test_an_unseen_symbol(no_work):
    y = SYMBOLS.copy()
    y.iloc[5] = "w"
    message = (
        r"^the symbol 'w' \(column 'a', day 2020-01-06\) is not among 'x', 'y': mark it missing, or fit with symbols="
    )
    refused(no_work, DataError, message, *everywhere("categorical", y))


@pytest.mark.parametrize(
    ("model", "y"),
    [
        (sse.GaussianHMM(3, "diagonal"), [1.0, 1.0, 2.0, 2.0]),
        (sse.PoissonHMM(3), [1, 1, 2, 2]),
        (sse.CategoricalHMM(3), list("xxyy")),
        (sse.Mixture(3, sse.emissions.Poisson()), [1, 1, 2, 2]),
    ],
    ids=lambda x: type(x).__name__,
)
def test_fewer_distinct_rows_than_states(no_work, model, y):
    refused(no_work, DataError, r"fewer different rows \(2\) than states \(3\): ask for fewer", lambda: model.fit(y))


def test_rows_that_are_alike_at_the_beginning_only_are_enough():
    y = np.repeat([0.0, 1.0, 2.0], 100)[:, None]
    check_rows(Batch(y, np.array([0, 300])), 3)
    with pytest.raises(DataError, match=r"fewer different rows \(3\) than states \(4\)"):
        check_rows(Batch(y, np.array([0, 300])), 4)


@pytest.mark.parametrize(
    ("model", "y"),
    [
        (sse.GaussianHMM(2, "diagonal", prior=sse.priors.NormalInverseGamma(shape=2.0, scale=1.0)), [1.0, 2.0, 4.0]),
        (sse.PoissonHMM(2), [1, 2, 4]),
        (sse.Mixture(2, sse.emissions.Poisson()), [1, 4]),
    ],
    ids=lambda x: type(x).__name__,
)
def test_fewer_rows_than_free_parameters_is_a_warning(model, y):
    with pytest.warns(DataWarning, match=rf"y has {len(y)} rows, fewer than the \d free parameters: .* Use fewer"):
        model.fit(y)


@pytest.mark.parametrize("name", ["full", "tied", "diagonal", "spherical", "linear"])
def test_columns_without_an_estimate(no_work, name):
    model, _, y = MODELS[name]
    message = r"^column 'b' is constant \(1\), so its variance has no estimate: leave it out, or give the model a prior"
    refused(no_work, DataError, message, lambda: model.fit(y.assign(b=1.0)))
    message = r"^column 'b' has no value at all, so it tells nothing: leave it out"
    refused(no_work, DataError, message, lambda: model.fit(y.assign(b=NAN)))
    refused(no_work, DataError, "missing: there is nothing to fit", lambda: model.fit(y * NAN))
    if name in ("full", "tied", "linear"):
        message = r"^column 'c' follows from the columns before it \('a', 'b'\), so their covariance has no estimate"
        refused(no_work, DataError, message, lambda: model.fit(y.assign(c=y["a"] - 2 * y["b"])))


def test_a_prior_makes_up_for_a_constant_column():
    prior = sse.priors.NormalInverseGamma(shape=2.0, scale=1.0)
    assert sse.GaussianHMM(1, "diagonal", prior=prior).fit(REAL.assign(b=1.0)).converged_


# parameters

WRONG = [
    ("full", "initial", [0.5, 0.4], r"^initial sums to 0.9, expected 1\. Divide it by its sum"),
    ("full", "initial", [0.5, 0.5 - 1e-7], r"^initial sums to 0.9999999, expected 1"),
    ("full", "initial", [1.5, -0.5], r"^initial of state 'calm' is 1.5, expected a number from 0 to 1\.$"),
    ("full", "initial", [np.inf, 0.0], r"^initial of state 'calm' is inf, which is not a probability"),
    (
        "full",
        "transition",
        [[0.9, 0.1], [0.2, 0.7]],
        r"^transition row 'stress' sums to 0.9, expected 1\. Rows are the state now, columns the next state; if yours "
        r"are the other way round, label the dims and they will be transposed for you\.$",
    ),
    ("full", "transition", [[0.9, 0.1], [1.2, -0.2]], r"^transition of state 'stress' at position 0 is 1.2, expected"),
    ("full", "transition", np.eye(3), r"^transition has shape \(3, 3\), expected \(2, 2\)"),
    ("full", "mean", [[0.0, 0.0], [1.0, NAN]], r"^mean of state 'stress' at position 1 is nan, which is not a number"),
    ("full", "mean", [[0.0, 1.0]], r"^mean has shape \(1, 2\), expected \(2, 2\)"),
    ("full", "cov", [EYE, -EYE], r"^cov of state 'stress' is not positive definite \(smallest eigenvalue -1\): check"),
    (
        "full",
        "cov",
        [EYE, 0 * EYE],
        r"^cov of state 'stress' is not positive definite \(smallest eigenvalue 0\).*add var",
    ),
    ("full", "cov", [[[1, 0.5], [0, 1]], EYE], r"^cov of state 'calm' is not symmetric: pass \(cov \+ cov\.T\) / 2"),
    ("full", "cov", [EYE, NAN * EYE], r"^cov of state 'stress' at position 0, 0 is nan, which is not a number"),
    ("tied", "cov", [[1, 2], [2, 1]], r"^cov is not positive definite \(smallest eigenvalue -1\)"),
    ("diagonal", "var", [[1, 1], [1, -1]], r"^var of state 'stress' at position 1 is -1, expected a number above 0"),
    ("diagonal", "var", [[1, 0], [1, 1]], r"^var of state 'calm' at position 1 is 0, expected a number above 0"),
    ("spherical", "var", [1, -1], r"^var of state 'stress' is -1, expected a number above 0"),
    (
        "poisson",
        "rate",
        [[1, 1], [-1, 1]],
        r"^rate of state 'stress' at position 0 is -1, expected a number of at least 0",
    ),
    ("categorical", "prob", [[0.5, 0.5], [0.1, 0.8]], r"^prob row 'stress' sums to 0.9, expected 1\. Divide"),
    ("mixture", "weight", [0.5, 0.4], r"^weight sums to 0.9, expected 1"),
    ("linear", "process_cov", -EYE, r"^process_cov is not positive semi-definite \(smallest eigenvalue -1\)"),
    ("linear", "measurement_cov", [[1, 2], [2, 1]], r"^measurement_cov is not positive semi-definite"),
    ("linear", "initial_cov", [[1, 0.5], [0, 1]], r"^initial_cov is not symmetric"),
    ("linear", "transition", [[1, NAN], [0, 1]], r"^transition at position 0, 1 is nan, which is not a number"),
]


@pytest.mark.parametrize(("name", "parameter", "value", "message"), WRONG)
def test_wrong_parameters(no_work, name, parameter, value, message):
    model, arrays, y = MODELS[name]
    refused(no_work, ParameterError, message, lambda: model.parameters(**{**arrays, parameter: value}))
    if "shape" not in message:  # the same values, put past `parameters`
        params = model.parameters(**arrays)
        params[parameter] = (params[parameter].dims, np.asarray(value, dtype=float))
        asked = (lambda: model.score(y, params), lambda: model.e_step(y, params), lambda: model.fit(y, start=params))
        refused(no_work, ParameterError, message, *asked)


def test_parameters_of_something_else(no_work):
    model, arrays, y = MODELS["full"]
    params = model.parameters(**arrays)
    for wrong, message in (
        ({"mean": 1}, "params is of type dict, expected an xarray.Dataset"),
        (
            params.drop_vars("cov"),
            "no variable 'cov': this model needs initial, transition, mean, cov, and was given ini",
        ),
        (params.rename(feature="f"), r"mean has dims \(state, f\), expected \(state, feature\): rename them"),
        (params.assign_coords(state=["a", "b"]), "states .* the model has"),
    ):
        refused(no_work, ParameterError, message, lambda wrong=wrong: model.score(y, wrong))
    message = r"gamma has 40 entries along time, but y has 5: pass what e_step returned"
    posterior = model.e_step(y.to_numpy(), params)
    refused(no_work, ParameterError, message, lambda: model.m_step(y.to_numpy()[:5], posterior, params))
    message = r"gamma has dims \(time, state\), expected \(sequence, time, state\)"
    refused(no_work, ParameterError, message, lambda: model.m_step([y.to_numpy()], posterior, params))


# options


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sse.GaussianHMM(2, "ful").fit(REAL), "covariance is 'ful', expected one of 'full', 'diagonal', 'sph"),
        (
            lambda: sse.GaussianHMM(2, order_by="men").fit(REAL),
            "order_by is 'men', expected one of 'mean', 'variance', 'pers",
        ),
        (lambda: sse.GaussianHMM(2, unsorted="yes").fit(REAL), "unsorted is 'yes', expected one of 'error', 'sort'"),
        (
            lambda: sse.LinearGaussianSSM(2, initial="no").fit(REAL),
            "initial is 'no', expected one of 'estimated', 'free'",
        ),
        (
            lambda: sse.LinearGaussianSSM(2, state_offset=1).fit(REAL),
            "state_offset is 1, expected one of 'zero', 'free'",
        ),
        (lambda: sse.GaussianHMM(2).set_params(foo=1), "setting is 'foo', expected one of 'states', 'covariance'"),
        (
            lambda: sse.GaussianHMM(2).parameters(means=1),
            "parameter is 'means', expected one of 'initial', 'transition'",
        ),
        (
            lambda: sse.GaussianHMM(2).fit(REAL, freeze=["men"]),
            "freeze is 'men', expected one of 'initial', 'transition'",
        ),
        (
            lambda: sse.GaussianHMM(2).fit(REAL, freeze=["mean"]),
            "freeze names 'mean', whose value is not known: give it",
        ),
        (lambda: sse.GaussianHMM(2).fit(REAL, max_iter=0), "max_iter is 0, expected a whole number of at least 1"),
        (lambda: sse.GaussianHMM(2).fit(REAL, max_iter=2.5), "max_iter is 2.5, expected a whole number"),
        (lambda: sse.GaussianHMM(2).fit(REAL, tol=-1), "tol is -1, expected a number of at least 0"),
        (lambda: sse.GaussianHMM(2).fit(REAL, tol=NAN), "tol is nan, expected a number of at least 0"),
        (
            lambda: sse.GaussianHMM(2).fit(REAL, n_starts=np.int64(0)),
            "n_starts is 0, expected a whole number of at lea",
        ),
        (lambda: sse.GaussianHMM(0).fit(REAL), "the number of states is 0, expected at least 1"),
        (
            lambda: sse.GaussianHMM("ab").fit(REAL),
            r"states is 'ab', expected a count or a list of names such as \['calm'",
        ),
        (lambda: sse.GaussianHMM(["a", "a"]).fit(REAL), "states has the name 'a' twice"),
    ],
)
def test_options(no_work, call, message):
    refused(no_work, ParameterError, message, call)


@pytest.mark.parametrize("name", [name for name in MODELS if name != "mixture"])
def test_horizons(no_work, name):
    model, arrays, y = MODELS[name]
    params = model.parameters(**arrays)
    for horizon in (0, 1.5, "a", True, None):
        message = f"horizon is {horizon!r}, expected a whole number of at least 1"
        refused(no_work, ParameterError, message, lambda h=horizon: model.forecast(y, h, params))


# the rest


@pytest.mark.parametrize("name", MODELS)
def test_an_unfitted_model(no_work, name, tmp_path):
    model, _, y = MODELS[name]
    kind = type(model).__name__
    message = rf"^this {kind} has no parameters yet: call fit\(y\) first, or pass params=model\.parameters\(\.\.\.\)\.$"
    asked = [lambda: model.score(y), lambda: model.e_step(y), lambda: model.log_prior(), lambda: model.summary()]
    asked += [lambda: model.save(tmp_path / "model.nc")]
    if name != "mixture":
        asked += [
            lambda: model.decode(y),
            lambda: model.filter(y),
            lambda: model.forecast(y, 1),
            lambda: model.sample(3),
        ]
    refused(no_work, NotFittedError, message, *asked)


@pytest.mark.parametrize("ask", ["score", "e_step", "decode", "filter"])
def test_an_impossible_observation(no_work, ask):
    model = sse.CategoricalHMM(STATES, symbols="xyz")
    params = model.parameters(initial=[1, 0], transition=EYE, prob=[[0.5, 0.5, 0], [0, 0, 1]])
    y = pd.Series(list("xyzx"), DAYS[:4])
    message = (
        r"^the observation at day 2020-01-03 has probability zero under every state that can be reached there: mark "
    )
    refused(no_work, ImpossibleObservationError, message, lambda: getattr(model, ask)(y, params))
    message = r"^the observation at time 2 of sequence 'v' has probability zero"
    several = {"u": list("xy"), "v": list("xyz")}
    refused(no_work, ImpossibleObservationError, message, lambda: getattr(model, ask)(several, params))


def test_impossible_counts(no_work):
    y = pd.Series([0, 1], DAYS[:2])
    for model in (sse.PoissonHMM(2), sse.Mixture(2, sse.emissions.Poisson())):
        lead = {"weight": [0.5, 0.5]} if isinstance(model, sse.Mixture) else CHAIN
        params = model.parameters(**lead, rate=[[0.0], [0.0]])
        message = r"^the observation at day 2020-01-02 has probability zero"
        refused(no_work, ImpossibleObservationError, message, lambda m=model, p=params: m.score(y, p))


def test_a_singular_prediction(no_work):
    model, arrays, y = MODELS["linear"]
    zero = dict.fromkeys(("process_cov", "measurement_cov", "initial_cov"), 0 * EYE)
    params = model.parameters(**{**arrays, **zero})
    message = r"^the observation at day 2020-01-01 has a predicted covariance that is not positive definite: give"
    refused(no_work, SingularInnovationError, message, lambda: model.score(y, params))


@pytest.mark.parametrize("seed", ["a", -1, 1.5, True])
def test_seeds(seed):
    y, model = np.arange(30.0) % 7, sse.designs.local_level()
    params = model.parameters(process_cov=[[1.0]], measurement_cov=[[1.0]])
    chain = sse.PoissonHMM(1).fit(y)
    asked = (
        lambda: model.sample(3, params, seed=seed),
        lambda: model.simulate(y, 2, 3, params, seed=seed),
        lambda: model.simulate_smoothed(y, 3, params, seed=seed),
        lambda: model.residuals(y, params, seed=seed),
        lambda: model.fit(y, seed=seed),
        lambda: chain.sample(3, seed=seed),
        lambda: sse.paths.sample(chain.e_step(y), 3, seed=seed),
        lambda: sse.Mixture(2, sse.emissions.Poisson()).sample(3, params, seed=seed),
    )
    for ask in asked:
        with pytest.raises(ParameterError, match=f"seed is {seed!r}, expected a whole number of at least 0"):
            ask()


def test_a_generator_is_a_seed():
    model = sse.PoissonHMM(1).fit(np.arange(30.0) % 7)
    drawn = [model.sample(5, seed=seed)["y"].values for seed in (3, np.random.default_rng(3))]
    np.testing.assert_array_equal(*drawn)


def test_noise_that_is_lost_to_rounding():
    y = np.random.default_rng(0).normal(size=(20, 1)).cumsum(0) + np.zeros(2)
    level = {"transition": [[1]], "process_cov": [[1]], "observation": [[1], [1]], "initial": "diffuse"}
    model = sse.LinearGaussianSSM(**level, measurement_cov=1e-18 * np.eye(2))
    with pytest.raises(sse.errors.SingularInnovationError, match="has one, a larger: noise below 1e-14 of the"):
        model.score(y)
    assert np.isfinite(sse.LinearGaussianSSM(**level, measurement_cov=1e-12 * np.eye(2)).score(y))


def test_numbers_that_are_none():
    y, model = np.arange(30.0) % 7, sse.designs.local_level()
    params = model.parameters(process_cov=[[1.0]], measurement_cov=[[1.0]])
    known = model.filter(y, params)
    asked = [
        (
            lambda: model.filter(y, params, gate="a"),
            "gate is 'a', expected a probability between 0 and 1, such as 0.999",
        ),
        (lambda: model.filter(y, params, dof="a"), "dof is 'a', expected a positive number"),
        (lambda: model.impute(y, params, level="a"), "level is 'a', expected a probability between 0 and 1"),
        (
            lambda: model.decompose(y, params, level=95),
            "level is 95, expected a probability between 0 and 1, such as 0.95",
        ),
        (lambda: model.confidence_intervals(y, params, level=None), "level is None, expected a probability"),
        (lambda: sse.checks.nis(known, level="a"), "level is 'a', expected a probability"),
        (lambda: sse.robust.fit_student(model, y, dof="a"), "dof is 'a', expected a positive number, or None"),
        (
            lambda: sse.robust.fit_student(sse.GaussianHMM(1), y),
            "GaussianHMM has no measurement noise that could be Stu",
        ),
        (
            lambda: sse.checks.nees(model.e_step(y, params), xr.Dataset({"a": 1, "b": 2})),
            "truth is a Dataset of 'a', 'b'",
        ),
        (lambda: sse.geodesy.to_degrees(pd.Series([1.0])), "positions are a Series, expected a DataFrame with columns"),
        (
            lambda: sse.regimes.report(y, model.e_step(y, params)),
            r"filter\(y\).filtered or .predicted, or .*e_step\(y\).gam",
        ),
    ]
    for ask, match in asked:
        with pytest.raises((DataError, ParameterError), match=match):
            ask()


def test_files(no_work, tmp_path):
    path = tmp_path / "model.nc"
    with pytest.raises(FileNotFoundError, match=r"there is no file .*model\.nc"):
        sse.PoissonHMM.load(path)
    path.write_text("hello")
    refused(no_work, FileFormatError, "model.nc' is not a saved model: it cannot be", lambda: sse.PoissonHMM.load(path))
    xr.Dataset({"a": 1}).to_netcdf(path, engine="h5netcdf")
    refused(no_work, FileFormatError, "is NetCDF, but not written by model.save", lambda: sse.PoissonHMM.load(path))
    model, arrays, _ = MODELS["poisson"]
    fitted = sse.PoissonHMM(STATES)
    fitted.params_ = model.parameters(**arrays)
    fitted.save(path)
    message = "holds a PoissonHMM: read it with PoissonHMM.load"
    refused(no_work, FileFormatError, message, lambda: sse.GaussianHMM.load(path))
    newer = xr.load_dataset(path, engine="h5netcdf").assign_attrs(statespace_em_format=99)
    newer.to_netcdf(path, engine="h5netcdf")
    message = r"has format 99, newer than this version reads \(1\): update statespace_em"
    refused(no_work, FileFormatError, message, lambda: sse.PoissonHMM.load(path))


def test_names_of_states_that_results_would_write_alike_are_refused(no_work):
    refused(no_work, ParameterError, "states has the name '1' twice", lambda: sse.PoissonHMM([1, "1"]).fit([1, 2, 3]))


def test_no_frozen_parameters_may_be_none():
    y = np.random.default_rng(0).normal(size=30)
    assert sse.designs.local_level().fit(y, freeze=None, n_starts=1).status_


@pytest.mark.parametrize("scale", [1e-130, 1e-100, 1e100])
def test_units_next_to_the_ends_of_the_numbers_bring_no_warnings(scale):
    y = np.random.default_rng(0).normal(size=60).cumsum() + np.random.default_rng(1).normal(size=60)
    found, same = (sse.designs.local_level().fit(own, n_starts=1) for own in (scale * y, y))
    ratio = found.summary()["value"].to_numpy() / scale / scale / same.summary()["value"].to_numpy()
    np.testing.assert_allclose(ratio, 1.0, rtol=1e-5)
