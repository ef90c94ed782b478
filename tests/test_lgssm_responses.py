"""The E-step works out the effect of an unknown start only where it is felt, and the sums are those of all rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from lgssm_cases import params_of
from oracles_diffuse import diffuse
from oracles_gaussian import Parameters, random_parameters

from statespace_em.data import Batch
from statespace_em.sequence import lgssm_plan, lgssm_sums
from statespace_em.sequence.lgssm_expectation import e_step

N_ROWS = 220


class Case(NamedTuple):
    p: Parameters  # the unknown first states have mean 0 and no covariance
    unknown: np.ndarray
    y: np.ndarray


def case(name) -> Case:
    rng = np.random.default_rng(4)
    p = random_parameters(rng, 3, 2)
    unknown = np.array([True, False, True])
    y = rng.normal(size=(N_ROWS, 2)).cumsum(0)
    if name == "gaps":
        y[rng.random(y.shape) < 0.3] = np.nan
    if name == "told late":  # the response has all but died out when the first row is seen
        p = p._replace(A=0.3 * np.eye(3)[None], Q=np.zeros((1, 3, 3)), R=1e-52 * p.R, b=0.0 * p.b, d=0.0 * p.d)
        y = 1e-26 * y
        y[:50] = np.nan
        y[60:] = np.nan
    known = np.where(unknown, 0.0, 1.0)
    return Case(p._replace(m0=p.m0 * known, P0=p.P0 * np.outer(known, known)), unknown, y)


def looked_at(monkeypatch):
    """Numbers of rows of every sequence that respond, as E-steps work them out."""
    found, inner = [], lgssm_sums.sweeps.filter_covariances

    def watched(*arguments):
        covs = inner(*arguments)
        found.append(int(covs.reach[0]))
        return covs

    monkeypatch.setattr(lgssm_sums.sweeps, "filter_covariances", watched)
    return found


@pytest.mark.parametrize("blocks", [None, 32], ids=["whole", "block by block"])
@pytest.mark.parametrize("name", ["whole", "gaps", "told late"])
def test_sums_are_those_of_the_dense_oracle(name, blocks, monkeypatch):
    p, unknown, y = case(name)
    if blocks:
        for what in ("WHOLE", "BLOCK"):
            monkeypatch.setattr(lgssm_plan, what, blocks)
        monkeypatch.setattr(lgssm_plan, "SETTLING", 1)
    cov = np.where(np.diag(unknown), np.inf, p.P0)
    params = params_of(p)._replace(initial_cov=cov)
    rows = looked_at(monkeypatch)
    s, value = e_step(params, Batch(y, np.array([0, N_ROWS])), np.zeros(2, int))
    values, _, mean, posterior_cov = diffuse(y, p, unknown)
    assert value == pytest.approx(values["diffuse"], rel=1e-10)
    second = posterior_cov.reshape(N_ROWS, 3, N_ROWS, 3)
    squares = sum(np.outer(mean[t], mean[t]) + second[t, :, t] for t in range(N_ROWS - 1))
    np.testing.assert_allclose(s.S_zz[:3, :3], squares, rtol=1e-9, atol=1e-12 * np.abs(squares).max())
    moved = mean[1:] - mean[:-1] @ p.A[0].T - p.b[0]
    slopes = moved.T @ mean[:-1] + sum(second[t + 1, :, t] - p.A[0] @ second[t, :, t] for t in range(N_ROWS - 1))
    np.testing.assert_allclose(s.S_wz[:, :3], slopes, rtol=1e-9, atol=1e-10 * np.abs(squares).max())
    np.testing.assert_allclose(s.first_mean[~unknown], mean[0, ~unknown], rtol=1e-9)
    assert (sum(rows[: len(rows) // 2 or 1]) if blocks else rows[0]) < N_ROWS
    if blocks:
        assert 0 in rows  # later blocks are not looked at


def test_every_sequence_has_rows_of_its_own():
    """Sequences with gaps of their own, side by side or not: as each on its own."""
    rng = np.random.default_rng(5)
    p = random_parameters(rng, 3, 2)
    params = params_of(p)._replace(initial_cov=np.diag([np.inf] * 3))
    parts = [rng.normal(size=(n, 2)) for n in (200, 200, 150, 90, 30, *[60] * 20)]
    parts[1][3:80] = np.nan
    parts[3][rng.random(parts[3].shape) < 0.4] = np.nan
    parts[3][:2] = 1.0
    lengths = [len(part) for part in parts]
    batch = Batch(np.concatenate(parts), np.cumsum([0, *lengths]))
    s, value = e_step(params, batch, np.zeros(2, int))
    alone = [e_step(params, Batch(part, np.array([0, len(part)])), np.zeros(2, int)) for part in parts]
    assert value == pytest.approx(sum(each for _, each in alone), rel=1e-12)
    for name in ("S_ww", "S_wz", "S_zz", "S_vv", "S_vz"):
        total = sum(getattr(each, name) for each, _ in alone)
        np.testing.assert_allclose(getattr(s, name), total, rtol=1e-10, atol=1e-11 * np.abs(total).max(), err_msg=name)
