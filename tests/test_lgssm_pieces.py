"""Pieces of a long series, passed over side by side, give what one pass over all of it gives."""

from __future__ import annotations

import numpy as np
import pytest
from lgssm_cases import params_of
from oracles_gaussian import random_parameters

from statespace_em import _threads
from statespace_em.data import Batch
from statespace_em.errors import SingularInnovationError
from statespace_em.sequence import lgssm_passes as passes
from statespace_em.sequence import lgssm_pieces, lgssm_sums
from statespace_em.sequence.lgssm_core import LGSSMCore

N_ROWS = 1500
CASES = ["whole", "level", "gap", "several", "break"]


def case(kind, n_states):
    rng = np.random.default_rng(n_states)
    p = random_parameters(rng, n_states, 2)
    y = rng.normal(size=(N_ROWS, 2)) + (1e6 if kind == "level" else 0.0)
    starts = np.array([0, 500, N_ROWS] if kind == "several" else [0, N_ROWS])
    Q = p.Q[0]
    if kind == "gap":
        y[[700, 703, 790], [0, 1, 0]] = np.nan
    if kind == "break":
        Q = np.where((np.arange(N_ROWS) < 800)[:, None, None], Q, 4.0 * Q)
    return params_of(p)._replace(transition=0.9 * p.A[0], process_cov=Q), Batch(y, starts)


def answers(params, batch):
    return [*passes.kalman_filter(params, batch, innovations=True), *passes.smoother(params, batch)[0]]


def in_pieces(monkeypatch):
    monkeypatch.setattr(lgssm_pieces, "PIECE", 300)
    monkeypatch.setattr(lgssm_pieces, "FARTHEST", 250)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("n_states", [1, 3, 6])
@pytest.mark.parametrize("kind", CASES)
def test_pieces_are_the_whole(kind, n_states, threads, monkeypatch):
    params, batch = case(kind, n_states)
    whole = answers(params, batch)
    in_pieces(monkeypatch)
    with _threads.limited(threads):
        found = answers(params, batch)
    for value, expected in zip(found, whole):
        expected = np.asarray(expected)
        np.testing.assert_allclose(value, expected, rtol=1e-11, atol=1e-13 * np.nanmax(np.abs(expected), initial=0.0))


def sums_of(params, batch, unknown):
    core = LGSSMCore(len(params.initial_mean), ())
    if unknown == "diffuse":
        params = params._replace(initial_cov=np.diag([np.inf, *np.diag(params.initial_cov)[1:]]))
    elif unknown == "fixed":
        params = params._replace(initial_mean=np.full(len(params.initial_mean), np.nan))
    sums, total = core.e_step(params, batch)
    return [*sums[:12], *sums.gradients, total]


@pytest.mark.parametrize("unknown", ["known", "diffuse", "fixed"])
@pytest.mark.parametrize("n_states", [1, 3, 6])
def test_sums_of_pieces_are_those_of_the_whole(n_states, unknown, monkeypatch):
    params, batch = case("whole", n_states)
    if unknown != "known":
        params = params._replace(initial_cov=np.diag(np.diag(params.initial_cov)))
    whole = sums_of(params, batch, unknown)
    in_pieces(monkeypatch)
    monkeypatch.setattr(lgssm_sums, "FEW", 1)
    cuts, original = [], lgssm_sums.cuts_of
    monkeypatch.setattr(lgssm_sums, "cuts_of", lambda *args: cuts.append(original(*args)) or cuts[-1])
    found = sums_of(params, batch, unknown)
    assert [len(cut) for cut in cuts] == [5]
    for value, expected in zip(found, whole):
        if expected is not None:
            expected = np.asarray(expected)
            np.testing.assert_allclose(value, expected, rtol=1e-11, atol=1e-11 * np.abs(expected).max(initial=0.0))
    with _threads.limited(1):
        for value, expected in zip(sums_of(params, batch, unknown), found):
            if expected is not None:
                np.testing.assert_array_equal(value, expected)


@pytest.mark.parametrize("size", [1e6, 1e12, 1e15])
def test_what_a_row_far_off_leaves_behind_is_not_lost(size, monkeypatch):
    params, batch = case("whole", 1)
    in_pieces(monkeypatch)
    lead = cuts_of(params, batch, forward=True, monkeypatch=monkeypatch)[1].lead
    batch.y[[300 - lead - 2, 900 + lead + 2]] = size  # of which the pieces from 300 on, and up to 900, do not see
    found, hindsight = passes.kalman_filter(params, batch), passes.smoother(params, batch)[0]
    monkeypatch.setattr(lgssm_pieces, "PIECE", N_ROWS)
    whole, expected = passes.kalman_filter(params, batch), passes.smoother(params, batch)[0]
    near = slice(300, 900)
    np.testing.assert_allclose(found.filtered_mean[near], whole.filtered_mean[near], rtol=0.0, atol=1e-12)
    np.testing.assert_allclose(hindsight.mean[near], expected.mean[near], rtol=0.0, atol=1e-12)


def cuts_of(params, batch, *, forward, monkeypatch):
    seen = []
    original = lgssm_pieces.pieces

    def watched(*args, **options):
        found = original(*args, **options)
        seen.append((options["forward"], found))
        return found

    monkeypatch.setattr(passes, "pieces", watched)
    passes.smoother(params, batch)
    return next(found for way, found in seen if way == forward)


@pytest.mark.parametrize("forward", [True, False])
@pytest.mark.parametrize("kind", CASES)
def test_cuts_are_where_rows_have_settled(kind, forward, monkeypatch):
    in_pieces(monkeypatch)
    params, batch = case(kind, 2)
    found = cuts_of(params, batch, forward=forward, monkeypatch=monkeypatch)
    assert [piece.begin for piece in found] == [0, *(piece.end for piece in found[:-1])]
    assert found[-1].end == N_ROWS
    cuts = {piece.begin for piece in found[1:]}
    assert ({300, 800, 1100, 1400} if kind == "several" else {300, 600, 900, 1200}) >= cuts
    disturbed = {"gap": {600: False, 900: True}, "several": {300: True, 800: True}, "break": {600: True, 900: True}}
    reach = max(piece.lead for piece in found)
    assert reach > 10
    if kind in ("whole", "level"):
        assert cuts == {300, 600, 900, 1200}
    for cut, before in disturbed.get(kind, {}).items():
        event = {"gap": 790 if before else 700, "several": 500, "break": 800}[kind]
        hit = event > cut - reach - 1 if forward and event < cut else not forward and cut < event < cut + reach
        if hit:
            assert cut not in cuts


def test_later_rows_change_no_bit_of_earlier_ones(monkeypatch):
    in_pieces(monkeypatch)
    params, batch = case("whole", 3)
    whole = passes.kalman_filter(params, batch)
    for n_rows in (299, 300, 301, 650, 1499):
        part = passes.kalman_filter(params, Batch(batch.y[:n_rows], np.array([0, n_rows])))
        np.testing.assert_array_equal(part.filtered_mean, whole.filtered_mean[:n_rows])
        np.testing.assert_array_equal(part.log_likelihood, whole.log_likelihood[:n_rows])


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_cuts_of_a_sequence_are_its_own(threads, monkeypatch):
    in_pieces(monkeypatch)
    params, batch = case("several", 3)
    monkeypatch.setattr(passes, "FEW", 1)
    with _threads.limited(threads):
        whole = passes.kalman_filter(params, batch)
        hindsight = passes.smoother(params, batch)[0]
        for rows in (slice(0, 500), slice(500, N_ROWS)):
            part = Batch(batch.y[rows], np.array([0, rows.stop - rows.start]))
            alone = passes.kalman_filter(params, part)
            np.testing.assert_array_equal(whole.filtered_mean[rows], alone.filtered_mean)
            np.testing.assert_array_equal(whole.log_likelihood[rows], alone.log_likelihood)
            np.testing.assert_array_equal(hindsight.mean[rows], passes.smoother(params, part)[0].mean)


def test_rows_remembered_are_the_fewest():
    rng = np.random.default_rng(0)
    L = 0.8 * np.linalg.qr(rng.normal(size=(3, 3)))[0]
    scale = np.array([1.0, 1e6, 1e-6])
    L = L * scale[:, None] / scale
    n_rows = lgssm_pieces.rows_remembered(L, np.diag(scale**2))

    def left(n):
        return np.abs(np.linalg.matrix_power(L, n) * scale / scale[:, None]).max()

    assert left(n_rows) <= lgssm_pieces.GONE < left(n_rows - 1)


def test_what_is_remembered_for_ever_is_not_cut(monkeypatch):
    in_pieces(monkeypatch)
    assert lgssm_pieces.rows_remembered(np.eye(2), np.eye(2)) == 0
    assert lgssm_pieces.rows_remembered(np.array([[np.nan]]), np.eye(1)) == 0
    assert lgssm_pieces.rows_remembered(np.array([[0.99999]]), np.eye(1)) == 0


@pytest.mark.parametrize("growth", [1.5, 3.0])
def test_states_that_grow_are_not_cut_and_warn_of_nothing(growth):
    # known to begin at 0 and without noise, they settle: their powers overflow
    assert lgssm_pieces.rows_remembered(np.diag([growth, 0.5]), np.diag([0.0, 1.0])) == 0
    assert lgssm_pieces.rows_remembered(np.array([[0.5, 1.0], [0.0, growth]]), np.diag([1.0, 0.0])) == 0


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_an_overflow_is_named_by_its_row(monkeypatch):
    params, batch = case("whole", 2)
    params = params._replace(state_offset=np.full(2, 1.7e308))
    with pytest.raises(SingularInnovationError) as whole:
        passes.smoother(params, batch)
    in_pieces(monkeypatch)
    with pytest.raises(SingularInnovationError) as found:
        passes.smoother(params, batch)
    assert found.value.args == whole.value.args
