"""Properties of the linear-Gaussian model for random systems, sizes, gaps and sequences."""

import warnings

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from oracles_gaussian import Parameters, posterior, random_parameters, simulate

import statespace_em as sse

TOLERANCE = 1e-8
OFFSETS = {"state_offset": "free", "observation_offset": "free"}
NAMES = (
    "transition", "state_offset", "process_cov", "observation", "observation_offset", "measurement_cov",
    "initial_mean", "initial_cov",
)  # fmt: skip


def close(got, expected, tolerance=TOLERANCE):
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance)


@st.composite
def systems(draw, *, most_rows=7, least_rows=1):
    """A stable system and sequences of it, ragged, with entries and rows missing."""
    n, D = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    p = random_parameters(rng, n, D, diagonal_R=draw(st.booleans()))
    radius = np.abs(np.linalg.eigvals(p.A[0])).max()
    p = p._replace(A=p.A * draw(st.floats(0.0, 0.99)) / max(radius, 1e-3))
    lengths = draw(st.lists(st.integers(least_rows, most_rows), min_size=1, max_size=3))
    sequences = [simulate(rng, p, T, draw(st.sampled_from([0.0, 0.2, 0.7]))) for T in lengths]
    if draw(st.booleans()):
        sequences[0][rng.integers(lengths[0])] = np.nan
    return p, sequences


def labelled(p: Parameters, **options):
    model = sse.LinearGaussianSSM(p.m0.size, **{"initial": "free", **OFFSETS, **options})
    values = (p.A[0], p.b[0], p.Q[0], p.C[0], p.d[0], p.R[0], p.m0, p.P0)
    return model, model.parameters(**dict(zip(NAMES, values)))


def keyed(sequences, order=None):
    return {f"run {i}": sequences[i] for i in (range(len(sequences)) if order is None else order)}


@settings(max_examples=40, deadline=None)
@given(systems())
def test_moments_are_those_of_the_dense_gaussian(system):
    p, sequences = system
    model, params = labelled(p)
    smooth, known = model.e_step(keyed(sequences), params), model.filter(keyed(sequences), params)
    for i, y in enumerate(sequences):
        expected, T = posterior(y, p), len(y)
        for got, name in (
            (known["predicted"], "predicted_mean"), (known["predicted_cov"], "predicted_cov"),
            (known["filtered"], "filtered_mean"), (known["filtered_cov"], "filtered_cov"),
            (known["innovation"], "innovation"), (known["innovation_cov"], "innovation_cov"),
            (known["log_likelihood"], "contributions"), (smooth["gamma"], "mean"), (smooth["cov"], "cov"),
            (smooth["cross_cov"], "cross_cov"),
        ):  # fmt: skip
            close(got[i, :T], getattr(expected, name))
        close(smooth["log_likelihood"][i], expected.log_likelihood)


@settings(max_examples=40, deadline=None)
@given(systems(most_rows=60), st.integers(1, 60))
def test_filter_is_causal_to_the_bit(system, cut):
    p, (y, *_) = system
    model, params = labelled(p)
    part, whole = model.filter(y[:cut], params), model.filter(y, params)
    for name in part:
        np.testing.assert_array_equal(part[name], whole[name][: len(y[:cut])], err_msg=str(name))


@settings(max_examples=40, deadline=None)
@given(systems(), st.sampled_from([1e-6, 1e-2, 1e3, 1e7]), st.sampled_from([1e-5, 1e4]))
def test_units_of_data_and_states(system, c, k):
    """Multiply y by c and the states by k: densities change by the entries seen, moments by the units."""
    p, sequences = system
    model, params = labelled(p)
    scaled = Parameters(
        p.A, k * p.b, k**2 * p.Q, c / k * p.C, c * p.d, c**2 * p.R, k * p.m0, k**2 * p.P0,
    )  # fmt: skip
    other = labelled(scaled)[1]
    y, z = keyed(sequences), keyed([c * part for part in sequences])
    n_seen = sum(int((~np.isnan(part)).sum()) for part in sequences)
    close(model.score(z, other) + n_seen * np.log(c), model.score(y, params))
    one, two = model.e_step(y, params), model.e_step(z, other)
    close(two["gamma"] / k, one["gamma"])
    close(two["cov"] / k**2, one["cov"])
    close(two["xi"] / k**2, one["xi"])
    new, scaled_new = model.m_step(y, one, params), model.m_step(z, two, other)
    size = sum(len(part) for part in sequences)
    if size > 6 * (p.m0.size + 1) and all((~np.isnan(part)).any() for part in sequences):
        close(scaled_new["process_cov"] / k**2, new["process_cov"], 1e-5)
        close(scaled_new["measurement_cov"] / c**2, new["measurement_cov"], 1e-5)


@settings(max_examples=25, deadline=None)
@given(systems(), st.randoms(use_true_random=False))
def test_order_of_sequences_does_not_matter(system, random):
    p, sequences = system
    model, params = labelled(p)
    order = list(range(len(sequences)))
    random.shuffle(order)
    y, turned = keyed(sequences), keyed(sequences, order)
    close(model.score(turned, params), model.score(y, params), 1e-12)
    one, two = model.e_step(y, params), model.e_step(turned, params)
    for name in ("gamma", "cov", "cross_cov"):
        np.testing.assert_array_equal(two[name].sel(sequence=one["sequence"]), one[name])
    if any(len(part) > 1 for part in sequences) and not all(np.isnan(part).all() for part in sequences):
        new, other = model.m_step(y, one, params), model.m_step(turned, two, params)
        close(new["process_cov"], other["process_cov"], 1e-8)
        close(new["measurement_cov"], other["measurement_cov"], 1e-8)


@settings(max_examples=25, deadline=None)
@given(systems(), st.integers(0, 2**32 - 1))
def test_basis_of_the_states_does_not_matter(system, seed):
    p, sequences = system
    n = p.m0.size
    rng = np.random.default_rng(seed)
    T = np.linalg.qr(rng.normal(size=(n, n)))[0] @ np.diag(rng.uniform(0.3, 3.0, n))
    back = np.linalg.inv(T)
    model, params = labelled(p)
    turned = Parameters(T @ p.A @ back, p.b @ T.T, T @ p.Q @ T.T, p.C @ back, p.d, p.R, T @ p.m0, T @ p.P0 @ T.T)
    other, y = labelled(turned)[1], keyed(sequences)
    close(model.score(y, other), model.score(y, params))
    one, two = model.e_step(y, params), model.e_step(y, other)
    close(two["gamma"], one["gamma"].values @ T.T)
    close(two["cov"], T @ one["cov"].values @ T.T)
    close(two["cross_cov"], T @ one["cross_cov"].values @ T.T)
    future = [model.forecast(y, 2, known) for known in (params, other)]
    close(future[1]["mean"], future[0]["mean"])
    close(future[1]["cov"], future[0]["cov"])


@settings(max_examples=15, deadline=None)
@given(systems(least_rows=6, most_rows=25), st.sampled_from(["free", "estimated", "known", "tied"]), st.booleans())
def test_em_never_goes_down(system, initial, accelerate):
    p, sequences = system
    model, params = labelled(p, initial=initial)
    params = params.drop_vars("initial_cov") if initial == "tied" else params
    y = keyed(sequences)
    seen = [column[~np.isnan(column)] for column in np.vstack(sequences).T]
    assume(all(len(column) > 1 and np.ptp(column) > 0.0 for column in seen))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few rows, and hardly any steps
        model.fit(y, start=params, max_iter=12, tol=0.0, accelerate=accelerate)
    assert model.status_ != "decreased"  # a step that falls is not in the trace
    objective = model.trace_["objective"].to_numpy()
    assert (np.diff(objective) >= -1e-10 * (1.0 + np.abs(objective[1:]))).all()
    assert abs(model.score(y) - model.trace_["log_likelihood"].iloc[-1]) <= 1e-9 * (1.0 + abs(model.score(y)))


def test_precise_sensors_of_one_wandering_level_are_told_apart():
    rng = np.random.default_rng(1)
    level = np.cumsum(rng.normal(size=(5000, 1)), axis=0)
    y = np.hstack([level, level]) + rng.normal(size=(5000, 1)) + 1e-5 * rng.normal(size=(5000, 2))
    model = sse.LinearGaussianSSM(transition=[[1]], observation=[[1], [1]], initial="diffuse")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sse.errors.ConvergenceWarning)  # a peak this sharp may not be resolved
        noise = model.fit(y).params_["measurement_cov"].values
    assert noise[0, 0] + noise[1, 1] - 2 * noise[0, 1] == pytest.approx(2e-10, rel=0.06)  # two standard errors
    with pytest.raises(sse.errors.DataError, match=r"column 1 follows from the columns before it \(0\)"):
        model.fit(np.hstack([level + 1e4, 0.1 * level + 3]))
