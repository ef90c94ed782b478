"""Parts, threads and shared covariances give what one pass over each sequence gives."""

from __future__ import annotations

import numpy as np
import pytest
from lgssm_cases import params_of
from oracles_gaussian import random_parameters

import statespace_em as sse
from statespace_em import _threads
from statespace_em.data import Batch
from statespace_em.errors import SingularInnovationError
from statespace_em.sequence import lgssm_passes as passes
from statespace_em.sequence.lgssm_core import LGSSMCore
from statespace_em.sequence.lgssm_filter import innovation_covariances
from statespace_em.sequence.lgssm_pairs import pair_moments

CORE = LGSSMCore(3, ())


def case(missing):
    rng = np.random.default_rng(0)
    p = random_parameters(rng, 3, 2)
    lengths = [1, 200, 30, 2, 90, 200, 1, 1]
    y = rng.normal(size=(sum(lengths), 2))
    y[rng.random(y.shape) < missing] = np.nan
    return params_of(p), Batch(y, np.cumsum([0, *lengths]))


def answers(params, batch):
    known = passes.kalman_filter(params, batch, innovations=True)
    smoothed, log_likelihood = passes.smoother(params, batch)
    sums, total = CORE.e_step(params, batch)
    starts = np.column_stack([params.initial_mean, 2.0 * params.initial_mean])
    mean, pairs = passes.smoothed_means(params, batch, starts), pair_moments(smoothed)
    return [*known, *smoothed, log_likelihood, mean, pairs], [*sums[:12], *sums.gradients, total]


@pytest.mark.parametrize("missing", [0.0, 0.1, 0.5])
def test_the_spread_of_innovations_needs_no_means(missing):
    params, batch = case(missing)
    expected = np.asarray(passes.kalman_filter(params, batch, innovations=True).innovation_cov)
    np.testing.assert_array_equal(passes.innovation_covs(params, batch), expected)
    np.testing.assert_array_equal(innovation_covariances(params, batch), expected)


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_the_spread_of_innovations_of_a_long_series_is_found_by_blocks(missing, monkeypatch):
    params, batch = case(missing)
    batch = Batch(batch.y, np.array([0, len(batch.y)]))
    expected = np.asarray(passes.kalman_filter(params, batch, innovations=True).innovation_cov)
    monkeypatch.setattr(passes, "BLOCK", 50)
    np.testing.assert_allclose(passes.innovation_covs(params, batch), expected, rtol=1e-13)
    assert passes.innovation_covs(params, batch.cut(0, 50)).shape == (50, 2, 2)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("block", [1, 64, 10_000])
@pytest.mark.parametrize("missing", [0.0, 0.1])
def test_parts_and_threads_change_nothing(missing, block, threads, monkeypatch):
    params, batch = case(missing)
    rows, sums = answers(params, batch)
    monkeypatch.setattr(passes, "FEW", 1)
    monkeypatch.setattr(passes, "BLOCK", block)
    with _threads.limited(threads):
        other_rows, other_sums = answers(params, batch)
    for value, expected in zip(other_rows, rows):
        np.testing.assert_array_equal(value, expected)
    for value, expected in zip(other_sums, sums):
        np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-12)


def test_sums_from_the_score_are_those_from_moments_of_every_row():
    params, batch = case(0.1)
    smoothed, _ = passes.smoother(params, batch)
    other = CORE.statistics(
        params, batch, {"gamma": smoothed.mean, "cov": smoothed.cov, "cross_cov": smoothed.cross_cov}
    )
    sums = CORE.e_step(params, batch)[0]
    for name in ("S_ww", "S_wz", "S_zz", "n_pairs", "S_vv", "S_vz", "S_uu", "n_rows", "first_mean", "n_sequences"):
        np.testing.assert_allclose(getattr(other, name), getattr(sums, name), rtol=1e-11, atol=1e-11, err_msg=name)
    first = [s.first_cov + s.first_outer for s in (other, sums)]
    np.testing.assert_allclose(*first, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("question", [passes.kalman_filter, passes.smoother, CORE.e_step])
def test_a_singular_row_is_named_by_its_number_in_the_whole(question, monkeypatch):
    params, batch = case(0.0)
    monkeypatch.setattr(passes, "FEW", 1)
    monkeypatch.setattr(passes, "BLOCK", 50)
    y = batch.y.copy()
    y[:203] = np.nan  # blank rows need no inverse
    dead = params._replace(measurement_cov=np.zeros((2, 2)), observation=np.ones((2, 3)))
    with pytest.raises(SingularInnovationError, match="203"):
        question(dead, batch._replace(y=y))


@pytest.mark.parametrize(("noises", "rtol"), [([1e-12, 2e-12], 1e-6), ([1e-20], 1e-8)])
def test_what_precise_sensors_leave_unknown_is_not_lost(noises, rtol):
    """What is left of a variance of about one is what the sensors leave, though it is below the round-off of one."""
    rng = np.random.default_rng(0)
    y = np.cumsum(np.cumsum(rng.normal(size=500)))[:, None] + 1e-9 * rng.normal(size=(500, len(noises)))
    y[rng.random(y.shape) < 0.1] = np.nan
    model = sse.LinearGaussianSSM(
        ["level", "slope"], transition=[[1, 1], [0, 1]], process_cov=[[1, 0.5], [0.5, 1]],
        observation=[[1, 0]] * len(noises), measurement_cov=np.diag(noises), initial="known", initial_mean=[0, 0],
        initial_cov=np.eye(2),
    )  # fmt: skip
    params = model.parameters(measurement_cov=np.diag(noises))
    precision = (~np.isnan(y) / np.array(noises)).sum(1)
    seen = precision > 0.0
    stream = model.stream(params)
    followed = np.array([stream.update(row).filtered_cov for row in y])
    for cov in (model.filter(y, params)["filtered_cov"].values, model.e_step(y, params)["cov"].values, followed):
        np.testing.assert_allclose(cov[seen, 0, 0] * precision[seen], 1.0, rtol=rtol)
        scale = np.sqrt(np.einsum("tii->ti", cov))
        assert np.linalg.eigvalsh(cov / (scale[:, :, None] * scale[:, None, :])).min() > 0.0
