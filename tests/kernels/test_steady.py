"""Rows done together once a model has settled: the same numbers as conditioning the whole Gaussian at once."""

from __future__ import annotations

import numpy as np
import pytest
from lgssm_cases import params_of
from oracles_gaussian import condition, joint, posterior, random_parameters

from statespace_em.data import Batch
from statespace_em.kernels.steady import ROWS
from statespace_em.sequence.lgssm_core import LGSSMCore
from statespace_em.sequence.lgssm_passes import kalman_filter, smoother

KINDS = ("plain", "unstable", "near unit root", "no process noise", "no measurement noise", "blind column", "gaps")


def model(kind, n, D, seed=0):
    p = random_parameters(np.random.default_rng([n, D, seed]), n, D)
    if kind == "unstable":
        return p._replace(A=1.02 * p.A / np.abs(np.linalg.eigvals(p.A[0])).max())
    if kind == "near unit root":
        return p._replace(A=0.9999 * np.eye(n)[None], Q=1e-3 * p.Q)
    if kind == "no process noise":
        return p._replace(Q=0 * p.Q, P0=0 * p.P0)
    if kind == "no measurement noise":
        return p._replace(R=0 * p.R)
    return p


def rows(kind, p, n_rows, seed=0):
    """Rows of the model, simulated step by step."""
    rng, y = np.random.default_rng(seed), np.empty((n_rows, p.C.shape[1]))
    state = rng.multivariate_normal(p.m0, p.P0)
    for t in range(n_rows):
        y[t] = p.C[0] @ state + p.d[0] + rng.multivariate_normal(0 * p.d[0], p.R[0])
        state = p.A[0] @ state + p.b[0] + rng.multivariate_normal(0 * p.m0, p.Q[0])
    if kind == "blind column":
        y[:, -1] = np.nan
    if kind == "gaps":  # in the middle of the stretch, and where it ends
        y[n_rows // 2], y[-2:, 0] = np.nan, np.nan
    return y


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n", "D"), [(2, 1), (4, 2), (5, 3)])
def test_settled_rows_match_dense_conditioning(n, D, kind):
    p, T = model(kind, n, D), 90
    y = rows(kind, p, T)
    seen = ~np.isnan(y)
    batch = Batch(y, np.array([0, T]))
    known = kalman_filter(params_of(p), batch, innovations=True)
    smoothed, log_likelihood = smoother(params_of(p), batch)
    mean, cov = joint(p, T)
    where, close = T * n + np.flatnonzero(seen), {"rtol": 1e-9, "atol": 1e-10 * max(1.0, np.abs(mean).max())}
    whole, _ = condition(mean, cov, where, y[seen])
    np.testing.assert_allclose(smoothed.mean, whole[: T * n].reshape(T, n), **close)
    np.testing.assert_array_equal(np.isnan(known.innovation), ~seen)
    np.testing.assert_allclose(known.log_likelihood, log_likelihood, rtol=1e-12)
    for t in (50, 85):
        before = T * n + np.flatnonzero(seen & (np.arange(T) < t)[:, None])
        past, _ = condition(mean, cov, before, y[:t][seen[:t]])
        np.testing.assert_allclose(known.predicted_mean[t], past[t * n : (t + 1) * n], **close)
        expected = (y[t] - past[T * n + t * D : T * n + (t + 1) * D])[seen[t]]
        np.testing.assert_allclose(known.innovation[t][seen[t]], expected, **close)
        now = T * n + np.flatnonzero(seen & (np.arange(T) <= t)[:, None])
        present, _ = condition(mean, cov, now, y[: t + 1][seen[: t + 1]])
        np.testing.assert_allclose(known.filtered_mean[t], present[t * n : (t + 1) * n], **close)


def test_densities_of_settled_rows_multiply_to_that_of_all():
    p = model("plain", 3, 2)
    y = rows("plain", p, 90)
    log_likelihood = smoother(params_of(p), Batch(y, np.array([0, 90])))[1]
    np.testing.assert_allclose(log_likelihood, posterior(y, p).contributions, rtol=1e-10)


@pytest.mark.parametrize("n", [1, 3, 6])
def test_what_was_known_does_not_depend_on_how_many_rows_were_done_together(n):
    p = model("plain", n, 2)
    y = rows("plain", p, 3 * ROWS)
    whole = kalman_filter(params_of(p), Batch(y, np.array([0, len(y)])), innovations=True)
    for n_rows in (40, ROWS + 1, 2 * ROWS + 31):
        part = kalman_filter(params_of(p), Batch(y[:n_rows], np.array([0, n_rows])), innovations=True)
        for name in whole._fields:
            np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[:n_rows], err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n", "D"), [(1, 1), (3, 2), (5, 3)])
def test_sums_of_settled_rows_are_those_from_moments_of_every_row(n, D, kind):
    """Both passes over the rows, against sums of the smoothed moments row by row."""
    p = model(kind, n, D)
    sequences = [rows(kind, p, n_rows, n_rows) for n_rows in (250, 1, 90, ROWS + 40)]
    params = params_of(p)
    batch = Batch(np.concatenate(sequences), np.cumsum([0, *map(len, sequences)]))
    smoothed, log_likelihood = smoother(params, batch)
    moments = {"gamma": smoothed.mean, "cov": smoothed.cov, "cross_cov": smoothed.cross_cov}
    core = LGSSMCore(n, ())
    sums, total = core.e_step(params, batch)
    other = core.statistics(params, batch, moments)
    np.testing.assert_allclose(total, log_likelihood.sum(), rtol=1e-12)
    for name in ("S_ww", "S_wz", "S_zz", "n_pairs", "S_vv", "S_vz", "S_uu", "n_rows", "first_mean", "n_sequences"):
        expected = getattr(other, name)
        size = max(1.0, np.abs(other.S_zz if name in ("S_wz", "S_vz") else expected).max())  # noises are of order 1
        np.testing.assert_allclose(getattr(sums, name), expected, rtol=1e-9, atol=1e-11 * size, err_msg=name)
