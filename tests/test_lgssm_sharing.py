"""The E-step of a linear-Gaussian model is one, whatever sequences share, however they are cut, on how many threads."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from lgssm_cases import params_of
from oracles_gaussian import random_parameters

import statespace_em as sse
from statespace_em import _threads
from statespace_em.data import Batch
from statespace_em.errors import SingularInnovationError
from statespace_em.patterns import from_word
from statespace_em.sequence import lgssm_params, lgssm_plan, lgssm_sums, row_kinds
from statespace_em.sequence.lgssm_core import LGSSMCore
from statespace_em.sequence.lgssm_expectation import e_step, planned

N_STATES, SIZE = 3, 2
GAPS = ("none", "common", "own")
STARTS = {
    "proper": {}, "diffuse": {"diffuse": (0,)}, "two diffuse": {"diffuse": (0, 2)}, "fixed": {"fixed": (1,)},
    "both": {"diffuse": (2,), "fixed": (0,)},
}  # fmt: skip


def parameters(diffuse=(), fixed=(), inputs=0):
    rng = np.random.default_rng(1)
    p = random_parameters(rng, N_STATES, SIZE)
    cov = p.P0.copy()
    cov[[*diffuse, *fixed]] = cov[:, [*diffuse, *fixed]] = 0.0
    cov[diffuse, diffuse] = np.inf
    effects = {"state_input": (N_STATES, inputs), "observation_input": (SIZE, inputs)} if inputs else {}
    return params_of(p)._replace(
        transition=0.9 * p.A[0] / np.abs(np.linalg.eigvals(p.A[0])).max(), initial_cov=cov,
        **{name: rng.normal(size=shape) for name, shape in effects.items()},
    )  # fmt: skip


def panel(lengths, gaps="none", inputs=0):
    rng = np.random.default_rng(2)
    starts = np.cumsum([0, *lengths])
    y, missing = rng.normal(size=(starts[-1], SIZE)), rng.random((max(lengths), SIZE)) < 0.15
    missing[:2] = False
    for begin, end in pairwise(starts):
        if gaps == "common":
            y[begin:end][missing[: end - begin]] = np.nan
        elif gaps == "own":
            y[begin + 2 : end][rng.random((end - begin - 2, SIZE)) < 0.15] = np.nan
    return Batch(y, starts, inputs=rng.normal(size=(len(y), inputs)) if inputs else None)


LENGTHS = {
    "equal": [40] * 30, "ragged": list(np.random.default_rng(3).integers(8, 90, 150)), "few": [150, 9, 40],
    "one": [700],
}  # fmt: skip


def made(params, batch, *, fixed=(), blocks=(0, 0), share=True):
    known = np.zeros(N_STATES, bool)
    known[list(fixed)] = True
    sections = lgssm_plan.plan(batch.y, batch.starts, share=share)
    plan = planned(params, batch)._replace(sections=sections)
    sums, value = e_step(params, batch, np.array(blocks), known if fixed else None, plan=plan)
    return [np.asarray(part) for part in (*sums[:12], *sums.gradients, value)]


def check_close(found, expected, rtol=1e-11):
    for value, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(value, other, rtol=rtol, atol=rtol * max(1.0, np.abs(other).max()))


@pytest.mark.parametrize("blocks", [(0, 0), (0, 1)], ids=str)
@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("gaps", GAPS)
@pytest.mark.parametrize("lengths", LENGTHS)
def test_sharing_changes_nothing(lengths, gaps, start, blocks):
    options = STARTS[start]
    params, batch = parameters(**options), panel(LENGTHS[lengths], gaps)
    fixed = options.get("fixed", ())
    alone = made(params, batch, fixed=fixed, blocks=blocks, share=False)
    check_close(made(params, batch, fixed=fixed, blocks=blocks), alone)


@pytest.mark.parametrize("lengths", LENGTHS)
def test_sharing_changes_nothing_with_inputs(lengths):
    params, batch = parameters(inputs=2), panel(LENGTHS[lengths], inputs=2)
    check_close(made(params, batch), made(params, batch, share=False))


@pytest.mark.parametrize("gaps", ["none", "own"])
@pytest.mark.parametrize("start", STARTS)
def test_a_series_in_blocks_is_the_series_in_one(start, gaps, monkeypatch):
    options = STARTS[start]
    params, batch = parameters(**options), panel([700, 30, 333], gaps)
    expected = made(params, batch, fixed=options.get("fixed", ()))
    monkeypatch.setattr(lgssm_plan, "WHOLE", 200)
    monkeypatch.setattr(lgssm_plan, "BLOCK", 50)
    monkeypatch.setattr(lgssm_plan, "SETTLING", 1)
    assert sum(section.long for section in lgssm_plan.plan(batch.y, batch.starts, share=True)) == 2
    check_close(made(params, batch, fixed=options.get("fixed", ())), expected)


def test_blocks_of_a_series_whose_matrices_vary_are_the_series_in_one(monkeypatch):
    params, batch = parameters(), panel([300], "own")
    factor = np.linspace(0.5, 1.5, 300)[:, None, None]
    params = params._replace(process_cov=factor * params.process_cov, transition=factor * params.transition)
    expected = made(params, batch, share=False)
    monkeypatch.setattr(lgssm_plan, "WHOLE", 200)
    monkeypatch.setattr(lgssm_plan, "BLOCK", 64)
    check_close(made(params, batch, share=False), expected)


@pytest.mark.parametrize("lengths", LENGTHS)
def test_what_has_settled_is_what_is_worked_out_row_by_row(lengths, monkeypatch):
    params, batch = parameters(), panel(LENGTHS[lengths], "common")
    many = np.ones((max(LENGTHS[lengths]), 1, 1))
    rows = params._replace(transition=many * params.transition)
    monkeypatch.setattr(lgssm_params, "alike", lambda *arguments: row_kinds.NONE)  # nothing settles
    check_close(made(params, batch)[:8], made(rows, batch, share=False)[:8], rtol=1e-10)


@pytest.mark.parametrize("block", [64, 16_384])
@pytest.mark.parametrize("gaps", GAPS)
def test_threads_change_no_bit(gaps, block, monkeypatch):
    monkeypatch.setattr(lgssm_sums, "FEW", 1)
    monkeypatch.setattr(lgssm_plan, "BLOCK", block)
    monkeypatch.setattr(lgssm_plan, "WHOLE", 80)
    monkeypatch.setattr(lgssm_plan, "SETTLING", 1)
    params, batch = parameters(diffuse=(0,)), panel(LENGTHS["ragged"], gaps)
    with _threads.limited(1):
        expected = made(params, batch)
    for threads in (2, 3):
        with _threads.limited(threads):
            for value, other in zip(made(params, batch), expected, strict=True):
                np.testing.assert_array_equal(value, other)


@pytest.mark.parametrize("gaps", GAPS)
def test_a_fit_to_many_copies_is_the_fit_to_two(gaps):
    y = panel([60], gaps).y
    model = sse.LinearGaussianSSM(2)
    start = sse.LinearGaussianSSM(2).fit(y, max_iter=2, tol=0.0, accelerate=False).params_
    options = {"start": start, "max_iter": 15, "tol": 0.0, "accelerate": False}
    two = model.fit([y] * 2, **options)  # of one sequence the first covariance is held
    many = sse.LinearGaussianSSM(2).fit([y] * 70, **options)
    for name in two.params_:
        np.testing.assert_allclose(many.params_[name], two.params_[name], rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(many.trace_["log_likelihood"], 35.0 * two.trace_["log_likelihood"], rtol=1e-12)


def test_of_all_with_a_singular_row_the_first_is_named():
    params, batch = parameters(), panel([30] * 20)
    batch.y[:] = np.nan
    batch.y[[17, 30 + 3]] = 0.0
    batch.y[5 * 30 + 17] = 1.0
    dead = params._replace(measurement_cov=np.zeros((2, 2)), observation=np.ones((2, N_STATES)))
    with pytest.raises(SingularInnovationError, match="17"):
        made(dead, batch)


def test_diagonal_noise_keeps_blocks_apart():
    noise = from_word("diagonal", (SIZE, SIZE), "measurement_cov", symmetric=True)
    core = LGSSMCore(N_STATES, (), patterns={"measurement_cov": noise})
    params, batch = parameters(), panel(LENGTHS["ragged"], "common")
    seen = (~np.isnan(batch.y)).sum(0)
    np.testing.assert_array_equal(core.e_step(params, batch)[0].n_rows, seen)


def test_memory_of_a_long_series_with_gaps_is_that_of_its_blocks(monkeypatch):
    monkeypatch.setattr(lgssm_plan, "WHOLE", 2_000)
    monkeypatch.setattr(lgssm_plan, "BLOCK", 1_000)
    params, peaks = parameters(diffuse=(0,)), []
    for n_rows in (10_000, 40_000):
        batch = panel([n_rows], "own")
        sections = lgssm_plan.plan(batch.y, batch.starts, share=True)
        with _threads.limited(1):
            tracemalloc.start()
            e_step(params, batch, np.zeros(SIZE, np.int64), plan=planned(params, batch)._replace(sections=sections))
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    by_row = 8 * (3 * N_STATES**2 + 3 * N_STATES + 10)
    assert peaks[0] < 2_000 * by_row  # two blocks
    assert (peaks[1] - peaks[0]) / 30_000 < 4  # bytes a row more
