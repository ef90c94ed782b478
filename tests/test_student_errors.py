"""Standard errors of Student-t fits against the numerical Hessian of the bound, made of dense Gaussians."""

import numpy as np
import pandas as pd
import pytest
from oracles_gaussian import Parameters, posterior
from scipy.special import gammaln, psi

import statespace_em as sse
from statespace_em import designs
from statespace_em.errors import ParameterError

N, NU = 16, 4.0
RNG = np.random.default_rng(3)
LEVEL = 0.6 * RNG.normal(size=N).cumsum()
Y = LEVEL + RNG.standard_t(3, size=N)
Y[5] = np.nan
WIDE = LEVEL[:, None] + RNG.standard_t(3, size=(N, 2)) * [1.0, 0.5]
WIDE[3, 1] = np.nan
W = RNG.uniform(0.5, 2.0, N)
TIMES = RNG.uniform(0.5, 1.5, N).cumsum()
START = {"initial": "known", "initial_mean": [0.0], "initial_cov": [[2.0]]}
WALK = {"transition": [[1]], "process_cov": [["q"]], **START}
TRACK = {"initial": "known", "initial_mean": np.zeros(2), "initial_cov": np.eye(2)}


def level_of(values, n_columns=1, noise=None):
    q, *r = values
    R = np.diag(r)[None] if noise is None else noise(r)
    ones = np.ones((1, n_columns, 1))
    return Parameters(
        np.ones((1, 1, 1)), np.zeros((1, 1)), np.array([[[q]]]), ones, np.zeros((1, n_columns)), R, np.zeros(1),
        np.array([[2.0]]),
    )  # fmt: skip


def track_of(values):
    density, r = values
    gaps = np.append(np.diff(TIMES), 1.0)
    Q = [density * np.array([[h**3 / 3, h**2 / 2], [h**2 / 2, h]]) for h in gaps]
    A = np.array([[[1.0, h], [0.0, 1.0]] for h in gaps])
    C = np.array([[[1.0, 0.0]]])
    return Parameters(A, np.zeros((1, 2)), np.array(Q), C, np.zeros((1, 1)), np.array([[[r]]]), np.zeros(2), np.eye(2))


CASES = {  # model, y, what has a weight, values in order, the oracle's parameters of them
    "rows": (sse.LinearGaussianSSM(**WALK, observation=[[1]], measurement_cov=[["r"]]), Y[:, None],
             "row", ["q", "r"], level_of),
    "rows of two columns": (
        sse.LinearGaussianSSM(**WALK, observation=[[1], [1]], measurement_cov=[["r", 0], [0, "s"]]), WIDE, "row",
        ["q", "r", "s"], lambda v: level_of(v, 2),
    ),
    "entries": (
        sse.LinearGaussianSSM(**WALK, observation=[[1], [1]], measurement_cov=[["r", 0], [0, "s"]]), WIDE, "feature",
        ["q", "r", "s"], lambda v: level_of(v, 2),
    ),
    "accuracies by row": (
        sse.LinearGaussianSSM(**WALK, observation=[[1]], measurement_cov=[[{"r": W}]]), Y[:, None], "row", ["q", "r"],
        lambda v: level_of(v, 1, lambda r: r[0] * W[:, None, None]),
    ),
    "motion": (
        designs.constant_velocity(1, **TRACK), pd.DataFrame(WIDE[:, :1] + TIMES[:, None], TIMES, ["x"]), "sensor",
        ["acceleration_density", "noise_var"], track_of,
    ),
}  # fmt: skip


def bound_at(y, p, owner):
    """The bound with weights and states at their best, at some parameters."""
    seen = ~np.isnan(y)
    groups = [seen & (owner == g) for g in range(owner.max() + 1)]
    weight = np.ones((len(y), len(groups)))
    R = np.broadcast_to(p.R, (len(y), *p.R.shape[1:]))
    for _ in range(2000):
        scale = np.sqrt(weight)[:, owner]
        found = posterior(y, p._replace(R=R / scale[:, :, None] / scale[:, None, :]))
        off = np.where(seen, y - np.einsum("tij,tj->ti", np.broadcast_to(p.C, (len(y), *p.C.shape[1:])), found.mean), 0)
        spread = p.C @ found.cov @ p.C.swapaxes(1, 2)
        distance = np.zeros(weight.shape)
        for g, own in enumerate(groups):
            for t in range(len(y)):
                i = np.flatnonzero(own[t])
                inverse = np.linalg.inv(R[t][np.ix_(i, i)])
                second = np.outer(off[t, i], off[t, i]) + spread[t][np.ix_(i, i)]
                distance[t, g] = np.trace(inverse @ second)
        entries = np.array([own.sum(1) for own in groups]).T
        shape, rate = (NU + entries) / 2, (NU + distance) / 2
        before, weight = weight, np.where(entries > 0, shape / rate, 1.0)
        if np.abs(weight - before).max() < 1e-13:
            break
    log_weight = psi(shape) - np.log(rate)
    half = NU / 2
    divergence = shape * np.log(rate) - gammaln(shape) + (shape - 1) * log_weight - shape
    divergence -= half * np.log(half) - gammaln(half) + (half - 1) * log_weight - half * shape / rate
    rest = 0.5 * entries * (log_weight - np.log(weight)) - divergence
    return found.log_likelihood + float(rest[entries > 0].sum())


@pytest.mark.parametrize("name", CASES)
def test_errors_are_those_of_the_inverse_hessian_of_the_bound(name):
    model, y, by, words, dense = CASES[name]
    found = sse.robust.fit_student(model, y, dof=NU, by=by, method="variational", tol=1e-11, max_iter=2000)
    values = found.model.summary()["value"].droplevel([1, 2])
    top = np.array([values[word] for word in words])
    plain = np.asarray(y)
    owner = np.arange(plain.shape[1]) if by == "feature" else np.zeros(plain.shape[1], int)
    steps = np.diag(2e-3 * top)

    def at(x):
        return bound_at(plain, dense(x), owner)

    slope = [(at(top + step) - at(top - step)) / (2 * step.sum()) * step.sum() for step in steps]
    np.testing.assert_allclose(slope, 0.0, atol=1e-6)  # the fit is at the top of this bound
    information = np.array([
        [sum(s * r * at(top + s * a + r * b) for s in (-1, 1) for r in (-1, 1)) / (-4 * a.sum() * b.sum())
         for b in steps] for a in steps
    ])  # fmt: skip
    expected = np.sqrt(np.diag(np.linalg.inv(information)))
    errors = found.standard_errors(y)
    np.testing.assert_allclose([errors[word].item() for word in words], expected, rtol=1e-4)


def test_many_degrees_of_freedom_are_a_gaussian_fit():
    y = LEVEL + RNG.normal(size=N)
    found = sse.robust.fit_student(designs.local_level(), y, dof=1e7, method="variational", tol=1e-10)
    expected = found.model.standard_errors(y, of="named")
    for name, value in found.standard_errors(y).items():
        assert value.item() == pytest.approx(expected[name].item(), rel=1e-3)


def test_several_sensors_panels_and_estimated_degrees_of_freedom():
    tracks = {
        key: pd.DataFrame(
            RNG.normal(size=(N, 2)).cumsum(0).cumsum(0) + RNG.standard_t(3, size=(N, 2)),
            TIMES + 0.1 * i * np.arange(N),
            ["x", "y"],
        )
        for i, key in enumerate("ab")
    }
    model = designs.constant_velocity(["x", "y"], sensors={"one": ["x"], "other": ["y"]})
    found = sse.robust.fit_student(model, tracks, dof=None, by="sensor", method="variational")
    errors = found.standard_errors(tracks)
    assert set(errors) == set(found.model.summary().index.get_level_values(0))
    assert all(np.isfinite(value) and value > 0.0 for value in errors.values())


def test_values_without_names_are_refused():
    model = sse.LinearGaussianSSM(transition=[[1]], observation=[[1]], initial="diffuse")
    found = sse.robust.fit_student(model, Y, method="variational")
    with pytest.raises(ParameterError, match=r"no value of this LinearGaussianSSM has a name.*measurement_cov=\[\["):
        found.standard_errors(Y)


def test_errors_tell_how_estimates_scatter():
    rng = np.random.default_rng(5)
    values, errors = [], []
    for _ in range(24):
        y = np.sqrt(0.5) * rng.normal(size=200).cumsum() + rng.standard_t(4, size=200)
        found = sse.robust.fit_student(designs.local_level(), y, method="variational", tol=1e-3)
        values.append([found.model.params_[name].item() for name in ("process_cov", "measurement_cov")])
        own = found.standard_errors(y)
        errors.append([own[name].item() for name in ("level_var", "noise_var")])
    ratio = np.std(values, axis=0, ddof=1) / np.median(errors, axis=0)
    assert (np.abs(np.log(ratio)) < 3.0 / np.sqrt(2 * 23)).all(), ratio  # three standard errors of a log deviation
