from __future__ import annotations

from types import FunctionType

import numpy as np
import pytest
from oracles_gaussian import Parameters, Posterior, em_step, m_step, posterior, random_parameters, simulate

from statespace_em.kernels import kalman

NILE = np.array([  # annual flow at Aswan 1871-1970, 1e8 m3
    1120, 1160, 963, 1210, 1160, 1160, 813, 1230, 1370, 1140, 995, 935, 1110, 994, 1020, 960, 1180, 799,
    958, 1140, 1100, 1210, 1150, 1250, 1260, 1220, 1030, 1100, 774, 840, 874, 694, 940, 833, 701, 916, 692,
    1020, 1050, 969, 831, 726, 456, 824, 702, 1120, 1100, 832, 764, 821, 768, 845, 864, 862, 698, 845, 744,
    796, 1040, 759, 781, 865, 845, 944, 984, 897, 822, 1010, 771, 676, 649, 846, 812, 742, 801, 1040, 860,
    874, 848, 890, 744, 749, 838, 1050, 918, 986, 797, 923, 975, 815, 1020, 906, 901, 1170, 912, 746, 919,
    718, 714, 740,
], float)[:, None]  # fmt: skip
CAUSAL = Posterior._fields[2:8]
VARYING = ("A", "b", "Q", "C", "d", "R")
ALIKE, NONE = np.zeros(1, int), np.zeros(0, int)


def plain(kernel):
    """Return a kernel as Python, and all that it calls."""
    function = kernel.py_func
    names = ((name, function.__globals__.get(name)) for name in function.__code__.co_names)
    parts = {name: plain(part) for name, part in names if getattr(part, "py_func", None)}
    return FunctionType(function.__code__, function.__globals__ | parts)


def firsts(sequences):
    first = np.zeros(sum(map(len, sequences)), bool)
    first[np.cumsum([0, *map(len, sequences)])[:-1]] = True
    return first


def run(y, p, first=None, *, alike=None, form=lambda kernel: kernel, status=0):
    """Filter and smooth; the arrays start with rubbish, so that whatever is not written shows."""
    N, D = y.shape
    n = p.m0.size
    first = firsts([y]) if first is None else first
    pm, fm, m = (np.full((N, n), 7e77) for _ in range(3))
    pc, fc, c, x, J = (np.full((N, n, n), 7e77) for _ in range(5))
    ll, v, S = np.full(N, 7e77), np.full((N, D), 7e77), np.full((N, D, D), 7e77)
    slot, place = np.full((2, N), 7 << 60)
    gains = np.full((N, D, n), 7e77), np.full((N, D, D), 7e77), np.full(N, 7e77)
    covariances = form(kalman.filter_covariances)
    if alike is None:
        alike = ALIKE if all(len(p[k]) == 1 for k in (0, 2, 3, 5)) else NONE
    assert covariances(y, first, alike, p.A, p.Q, p.C, p.R, p.P0, slot, pc, fc, *gains, S) == status
    if status == 0:
        form(kalman.filter_means)(y, first, slot, p.A, p.b, p.C, p.d, p.m0, p.m0, *gains, pm, fm, ll, v)
        turned = np.empty((n, n)) if n > kalman.FEW_STATES else None
        lowest = form(kalman.smooth_covariances)(first, slot, p.A, p.Q, pc, fc, J, place, c, x, turned)
        assert lowest == place.min()
        assert form(kalman.smooth_means)(first, slot, J, pm, fm, m, np.empty(n), False) == 0
        for which, stacks in ((slot, (pc, fc, S)), (place, (c, x))):
            for stack in stacks:
                form(kalman.expand)(which, stack)
    return Posterior(ll.sum(), ll, pm, pc, fm, fc, v, S, m, c, x)


def sums(y, p, moments, first=None, *, form=lambda kernel: kernel):
    first = firsts([y]) if first is None else first
    each = np.arange(len(y))
    args = y, first, p.A, p.b, p.C, p.d, p.R, p.m0, moments.mean, each, moments.cov, moments.cross_cov
    return form(kalman.moment_sums)(*args)


def assert_equal(actual, expected, names=None, *, rtol=1e-10, atol=1e-10):
    for name in names or actual._fields:
        a, e = getattr(actual, name), getattr(expected, name)
        np.testing.assert_allclose(a, e, rtol=rtol, atol=atol, err_msg=name)


def smallest_eigenvalue(cov):
    """Smallest eigenvalue of the correlations, which has no unit."""
    sd = np.sqrt(np.einsum("tii->ti", cov))
    sd[sd == 0] = 1
    return np.linalg.eigvalsh(cov / (sd[:, :, None] * sd[:, None])).min()


def trend(noise, P0=1e7):
    """Local linear trend observed with unit noise."""
    Q = noise * np.array([[1 / 3, 1 / 2], [1 / 2, 1]])
    A, C = np.array([[[1.0, 1.0], [0.0, 1.0]]]), np.array([[[1.0, 0.0]]])
    b, d, R = np.zeros((1, 2)), np.zeros((1, 1)), np.ones((1, 1, 1))
    return Parameters(A, b, Q[None], C, d, R, np.zeros(2), P0 * np.eye(2))


@pytest.mark.parametrize("missing", [0.0, 0.4])
@pytest.mark.parametrize("varying", [(), VARYING, ("A",), ("C", "R")], ids="-".join)
@pytest.mark.parametrize(("n", "D"), [(1, 1), (2, 1), (1, 3), (3, 2), (4, 4), (8, 2), (11, 3)])
def test_matches_dense_conditioning(n, D, varying, missing):
    rng = np.random.default_rng([n, D, len(varying)])
    for T in (1, 2, 6):
        p = random_parameters(rng, n, D, T, varying)
        y = simulate(rng, p, T, missing)
        assert_equal(run(y, p), posterior(y, p))


@pytest.mark.parametrize("blank", [[0], [2], [5], [0, 1, 4], range(6)], ids=str)
def test_blank_rows(blank):
    rng = np.random.default_rng(1)
    p = random_parameters(rng, 2, 2)
    y = simulate(rng, p, 6)
    y[list(blank)] = np.nan
    y[3, 0] = np.nan
    result = run(y, p)
    assert_equal(result, posterior(y, p))
    assert (result.contributions[list(blank)] == 0).all()


@pytest.mark.parametrize("change", ["singular Q", "no Q", "no P0", "no R", "large P0", "singular P0 and Q", "no noise"])
@pytest.mark.parametrize("n", [3, 9])
def test_degenerate_covariances(change, n):
    rng = np.random.default_rng(2)
    p = random_parameters(rng, n, 2)
    u, one, others = np.resize([1.0, -2.0, 0.5], n), np.eye(n)[0], 1.0 - np.eye(n)[0]
    p = {
        "singular Q": p._replace(Q=np.outer(u, u)[None]),
        "no Q": p._replace(Q=0 * p.Q),
        "no P0": p._replace(P0=0 * p.P0),
        "no R": p._replace(R=0 * p.R),
        "large P0": p._replace(P0=1e7 * np.eye(n)),
        "singular P0 and Q": p._replace(P0=np.outer(u, u), Q=np.diag(one)[None]),
        "no noise": p._replace(P0=p.P0 @ np.diag(others) @ p.P0, Q=0 * p.Q),
    }[change]
    y = simulate(rng, p, 6)
    y[2, 1] = np.nan
    if change == "large P0":  # the oracle itself loses digits to the 1e7
        assert_equal(run(y, p), posterior(y, p), rtol=1e-7, atol=1e-7)
    else:
        assert_equal(run(y, p), posterior(y, p))


def test_diffuse_nile():
    one, none = np.ones((1, 1, 1)), np.zeros((1, 1))
    p = Parameters(one, none, 1468.5003 * one, one, none, 15099.6857 * one, np.zeros(1), 1e7 * np.eye(1))
    np.testing.assert_allclose(run(NILE, p).log_likelihood, -641.5855783461, rtol=0, atol=1e-9)


@pytest.mark.parametrize("with_offsets", [True, False])
@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_em_step_matches_dense_completion(missing, with_offsets):
    rng = np.random.default_rng(3)
    for n, D in ((1, 1), (2, 3), (3, 2)):
        p = random_parameters(rng, n, D)
        sequences = [simulate(rng, p, T, missing) for T in (6, 4, 5, 6, 6)]
        y, first = np.concatenate(sequences), firsts(sequences)
        new = m_step(sums(y, p, run(y, p, first), first), p, with_offsets)
        assert_equal(new, em_step(sequences, p, with_offsets), rtol=1e-9, atol=1e-9)
        assert run(y, new, first).log_likelihood > run(y, p, first).log_likelihood


def test_completion_with_singular_measurement_cov():
    rng = np.random.default_rng(4)
    p = random_parameters(rng, 3, 3)
    root = np.array([[1.1, 0.0], [2.3, 0.0], [0.5, 1.0]])  # the first two noises are proportional
    p = p._replace(R=(root @ root.T)[None])
    sequences = [simulate(rng, p, 6) for _ in range(6)]
    for y in sequences:
        y[[1, 4], 2] = np.nan
    y, first = np.concatenate(sequences), firsts(sequences)
    new = m_step(sums(y, p, run(y, p, first), first), p)
    assert_equal(new, em_step(sequences, p), rtol=1e-8, atol=1e-8)


def test_sequences_do_not_see_each_other():
    rng = np.random.default_rng(5)
    p = random_parameters(rng, 3, 2)
    sequences = [rng.normal(size=(T, 2)) for T in (1, 200, 100, 2, 300, 70)]
    for y in sequences[3:]:
        y[rng.random(y.shape) < 0.1] = np.nan
    y, first = np.concatenate(sequences), firsts(sequences)
    together, apart = run(y, p, first), [run(x, p) for x in sequences]
    for name in Posterior._fields[1:]:
        expected = np.concatenate([getattr(a, name) for a in apart])
        np.testing.assert_array_equal(getattr(together, name), expected, err_msg=name)
    total = [sum(s) for s in zip(*[sums(x, p, a) for x, a in zip(sequences, apart)])]
    for value, expected in zip(sums(y, p, together, first), total):
        np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("varying", [(), VARYING], ids=["constant", "varying"])
def test_sums_are_the_expectations_they_claim(varying):
    rng = np.random.default_rng(6)
    T, n = 9, 3
    p = random_parameters(rng, n, 2, T, varying)
    y = rng.normal(size=(T, 2))
    moments = run(y, p)
    s = sums(y, p, moments)
    S_ww, S_wz, S_vv = np.zeros((n, n)), np.zeros((n, n + 1)), np.zeros((2, 2))
    for t in range(T):
        m, V = moments.mean[t], moments.cov[t]
        v, C = y[t] - p.at("C", t) @ m - p.at("d", t), p.at("C", t)
        S_vv += np.outer(v, v) + C @ V @ C.T
        if t < T - 1:
            pair = np.hstack([-p.at("A", t), np.eye(n)])
            both = np.block([[V, moments.cross_cov[t]], [moments.cross_cov[t].T, moments.cov[t + 1]]])
            w = pair @ np.append(m, moments.mean[t + 1]) - p.at("b", t)
            S_ww += np.outer(w, w) + pair @ both @ pair.T
            S_wz += np.column_stack([np.outer(w, m) + pair @ both[:, :n], w])
    for value, expected in ((s.S_ww, S_ww), (s.S_wz, S_wz), (s.S_vv, S_vv)):
        np.testing.assert_allclose(value, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("missing", [0.0, 0.02, 0.3])
def test_future_rows_change_no_bit_of_the_past(missing):
    rng = np.random.default_rng(7)
    p = random_parameters(rng, 3, 2)
    y = rng.normal(size=(700, 2))
    y[rng.random(y.shape) < missing] = np.nan
    whole = run(y, p)
    for T in (1, 2, 31, 32, 33, 64, 65, 128, 129, 256, 400):
        part = run(y[:T], p)
        for name in CAUSAL:
            np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[:T], err_msg=name)


def test_missing_entry_does_not_poison_later_states():
    rng = np.random.default_rng(8)
    p = random_parameters(rng, 3, 2)
    y = rng.normal(size=(300, 2))
    holes = y.copy()
    holes[100], holes[120, 0] = np.nan, np.nan
    full, part = run(y, p), run(holes, p)
    for name in ("predicted_mean", "filtered_mean", "mean", "cov", "contributions"):
        assert np.isfinite(getattr(part, name)).all()
        np.testing.assert_allclose(getattr(part, name)[250:], getattr(full, name)[250:], rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(np.isnan(part.innovation), np.isnan(holes))


@pytest.mark.parametrize("pattern", ["complete", "one feature never", "a gap", "a long gap", "a swap"])
@pytest.mark.parametrize("seed", range(4))
def test_settled_covariances_match_the_full_recursion(seed, pattern):
    rng = np.random.default_rng(seed)
    p = random_parameters(rng, 4, 2)
    y = rng.normal(size=(2000, 2))
    rows, columns = {
        "complete": ([], []),
        "one feature never": (slice(None), 1),
        "a gap": ([700, 701, 1500], [0, 0, 1]),
        "a long gap": (slice(800, 1400), slice(None)),
        "a swap": (np.arange(2000), np.arange(2000) // 1000),
    }[pattern]
    y[rows, columns] = np.nan
    never_settles = p._replace(A=np.repeat(p.A, len(y), axis=0))
    short, full = run(y, p), run(y, never_settles)
    assert (short.predicted_cov[600] == short.predicted_cov[599]).all()
    assert_equal(short, full)


def test_sequences_share_covariances_where_the_same_entries_are_missing():
    """Hundreds of sequences, more histories than are compared, against each sequence without sharing."""
    rng = np.random.default_rng(19)
    p = random_parameters(rng, 2, 6)
    lengths = rng.integers(1, 130, 200)
    sequences = [rng.normal(size=(T, 6)) for T in lengths]
    for y in sequences[100:]:
        y[rng.random(y.shape) < (0.5 if len(y) < 60 else 0.003)] = np.nan
    y, first = np.concatenate(sequences), firsts(sequences)
    never_shares = p._replace(Q=np.repeat(p.Q, len(y), axis=0))
    assert_equal(run(y, p, first), run(y, never_shares, first), rtol=1e-12, atol=1e-12)


def test_equal_sequences_keep_one_set_of_covariances():
    rng = np.random.default_rng(20)
    p = random_parameters(rng, 2, 1)
    first = np.arange(50_000) % 500 == 0
    y = rng.normal(size=(50_000, 1))
    blank = np.full((50_000, 2, 2), np.nan)
    slot, place = np.empty((2, 50_000), int)
    pc, fc, J, c, x = (blank.copy() for _ in range(5))
    gains = np.empty((50_000, 1, 2)), np.empty((50_000, 1, 1)), np.empty(50_000)
    none = np.empty((0, 1, 1))
    kalman.filter_covariances(y, first, ALIKE, p.A, p.Q, p.C, p.R, p.P0, slot, pc, fc, *gains, none)
    kalman.smooth_covariances(first, slot, p.A, p.Q, pc, fc, J, place, c, x, None)
    assert slot.max() < 200
    assert place.min() > 50_000 - 400
    assert np.isnan(fc[200:]).all()
    assert np.isnan(c[:-400]).all()


def test_slow_convergence_is_not_cut_short():
    p = trend(1e-10)
    y = np.random.default_rng(9).normal(size=(20_000, 1))
    never_settles = p._replace(A=np.repeat(p.A, len(y), axis=0))
    assert_equal(run(y, p), run(y, never_settles), CAUSAL)


@pytest.mark.parametrize("varying", ["A", "C"])
def test_settled_covariances_do_not_hide_varying_matrices(varying):
    one, none, sign = np.ones((1, 1, 1)), np.zeros((1, 1)), np.where(np.arange(100) % 3 == 1, -1.0, 1.0)
    p = Parameters(one, none, one, one, none, 2 * one, np.zeros(1), 2 * np.eye(1))  # P stays at 2, then 1
    y = np.random.default_rng(0).normal(size=(100, 1))
    base = run(y, p)
    if varying == "C":
        other = run(sign[:, None] * y, p._replace(C=sign[:, None, None]))
        assert_equal(other, base, ["mean", "filtered_mean"])
    else:  # the signs of the states flip, those of y with them
        flips = np.cumprod(np.append(1.0, sign[:-1]))[:, None]
        other = run(flips * y, p._replace(A=sign[:, None, None]))
        np.testing.assert_allclose(flips * other.mean, base.mean, rtol=1e-12)


@pytest.mark.parametrize("noise", [1e-14, 1e-6, 1.0])
def test_covariances_stay_symmetric_and_positive(noise):
    rng = np.random.default_rng(10)
    y = rng.normal(size=(100_000, 1))
    y[rng.random(y.shape) < 0.05] = np.nan
    wide = random_parameters(rng, 3, 1)
    for p in (trend(noise), wide._replace(Q=noise * np.eye(3)[None])):
        result = run(y, p)
        for name in ("predicted_cov", "filtered_cov", "cov"):
            cov = getattr(result, name)
            np.testing.assert_array_equal(cov, cov.swapaxes(1, 2), err_msg=name)
            assert smallest_eigenvalue(cov) > -1e-13, name
        V, X = result.cov, result.cross_cov[:-1]
        both = np.block([[V[:-1], X], [X.swapaxes(1, 2), V[1:]]])
        assert smallest_eigenvalue(both) > -1e-13


def test_units_do_not_matter():
    rng = np.random.default_rng(11)
    p = random_parameters(rng, 2, 2)
    y = np.where(rng.random((400, 2)) < 0.1, np.nan, rng.normal(size=(400, 2)))
    base = run(y, p)
    for c in (1e-7, 1e6):
        scaled = p._replace(b=c * p.b, Q=c**2 * p.Q, d=c * p.d, R=c**2 * p.R, m0=c * p.m0, P0=c**2 * p.P0)
        other = run(c * y, scaled)
        np.testing.assert_allclose(other.mean / c, base.mean, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(other.cov / c**2, base.cov, rtol=1e-9, atol=1e-12)
        entries = (~np.isnan(y)).sum(axis=1)
        np.testing.assert_allclose(other.contributions + entries * np.log(c), base.contributions, rtol=1e-9)


def test_large_levels_cost_the_residual_sums_no_digits():
    rng = np.random.default_rng(12)
    p = random_parameters(rng, 2, 2)
    y = np.where(rng.random((400, 2)) < 0.1, np.nan, rng.normal(size=(400, 2)))
    level = 1e8  # a shift of every state by this, undone by the offsets
    shift = np.full(2, level)
    moved = p._replace(b=p.b + shift - p.A[0] @ shift, d=p.d - p.C[0] @ shift, m0=p.m0 + shift)
    base, other = sums(y, p, run(y, p)), sums(y, moved, run(y, moved))
    for name in ("S_ww", "S_vv"):
        a, e = getattr(other, name), getattr(base, name)
        np.testing.assert_allclose(a, e, rtol=1e-6, atol=1e-6, err_msg=name)


def test_python_and_compiled_kernels_agree():
    rng = np.random.default_rng(13)
    p = random_parameters(rng, 3, 2)
    y = np.where(rng.random((150, 2)) < 0.02, np.nan, rng.normal(size=(150, 2)))
    first = np.zeros(150, bool)
    first[[0, 100]] = True
    fast = run(y, p, first)
    assert_equal(run(y, p, first, form=plain), fast, rtol=1e-12, atol=1e-12)
    slow_sums = sums(y, p, fast, first, form=plain)
    assert_equal(slow_sums, sums(y, p, fast, first), rtol=1e-12, atol=1e-12)


def test_innovations_are_optional():
    rng = np.random.default_rng(14)
    p = random_parameters(rng, 2, 2)
    y = rng.normal(size=(100, 2))
    full = run(y, p)
    pm, pc, fm, fc, ll = (np.empty_like(a) for a in (*full[2:6], full.contributions))
    slot, gains = np.empty(100, int), (np.empty((100, 2, 2)), np.empty((100, 2, 2)), np.empty(100))
    none = np.empty((0, 2)), np.empty((0, 2, 2))
    first = firsts([y])
    assert kalman.filter_covariances(y, first, ALIKE, p.A, p.Q, p.C, p.R, p.P0, slot, pc, fc, *gains, none[1]) == 0
    kalman.filter_means(y, first, slot, p.A, p.b, p.C, p.d, p.m0, p.m0, *gains, pm, fm, ll, none[0])
    np.testing.assert_array_equal(fc[slot], full.filtered_cov)
    np.testing.assert_array_equal(ll, full.contributions)


@pytest.mark.parametrize("bad", ["duplicate sensor", "negative", "nan"])
def test_status_names_the_row(bad):
    rng = np.random.default_rng(15)
    T = 8
    p = random_parameters(rng, 2, 2, T, varying=("C", "R"))
    y = rng.normal(size=(T, 2))
    y[3] = np.nan
    if bad == "duplicate sensor":
        p.C[[3, 5], 1], p.R[[3, 5]] = p.C[[3, 5], 0], 0.0  # a blank row needs no inverse
    else:
        p.R[[3, 5]] = np.nan if bad == "nan" else -100 * np.eye(2)
    run(y, p, status=1 + 5)


def test_smoother_status_names_the_row():
    rng = np.random.default_rng(16)
    p = random_parameters(rng, 2, 1)
    r = run(rng.normal(size=(9, 1)), p)
    r.filtered_mean[4] = np.inf
    J = np.tile(0.1 * np.eye(2), (9, 1, 1))
    means = r.predicted_mean, r.filtered_mean, r.mean
    assert kalman.smooth_means(firsts([r.mean]), np.arange(9), J, *means, np.empty(2), False) == 1 + 4


@pytest.mark.parametrize("varying", [(), ("A", "b", "Q")], ids=["constant", "varying"])
def test_draw_states(varying):
    rng = np.random.default_rng(17)
    T = 12
    p = random_parameters(rng, 3, 1, T, varying)
    root_Q, root_P0 = np.linalg.cholesky(p.Q), np.linalg.cholesky(p.P0)
    noise, states = rng.normal(size=(T, 3)), np.empty((T, 3))
    first = np.zeros(T, bool)
    first[[0, 7]] = True
    kalman.draw_states(first, p.A, p.b, root_Q, root_P0, p.m0, noise, states)
    shocks = p._replace(Q=root_Q)
    for t in range(T):
        expected = p.m0 + root_P0 @ noise[t]
        if not first[t]:
            expected = p.at("A", t - 1) @ states[t - 1] + p.at("b", t - 1) + shocks.at("Q", t - 1) @ noise[t]
        np.testing.assert_allclose(states[t], expected, rtol=1e-12, atol=1e-12)


def test_matches_statsmodels():
    statespace = pytest.importorskip("statsmodels.tsa.statespace.kalman_smoother")
    rng = np.random.default_rng(18)
    p = random_parameters(rng, 3, 2)
    y = np.where(rng.random((300, 2)) < 0.2, np.nan, rng.normal(size=(300, 2)))
    model = statespace.KalmanSmoother(k_endog=2, k_states=3)
    model.bind(y.copy())
    model["transition"], model["state_intercept"], model["state_cov"] = p.A[0], p.b[0], p.Q[0]
    model["design"], model["obs_intercept"], model["obs_cov"] = p.C[0], p.d[0], p.R[0]
    model["selection"] = np.eye(3)
    model.initialize_known(p.m0, p.P0)
    theirs, ours = model.smooth(), run(y, p)
    expected = {
        "contributions": theirs.llf_obs,
        "predicted_mean": theirs.predicted_state.T[:-1],
        "predicted_cov": theirs.predicted_state_cov.transpose(2, 0, 1)[:-1],
        "filtered_mean": theirs.filtered_state.T,
        "filtered_cov": theirs.filtered_state_cov.transpose(2, 0, 1),
        "mean": theirs.smoothed_state.T,
        "cov": theirs.smoothed_state_cov.transpose(2, 0, 1),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(ours, name), value, rtol=1e-8, atol=1e-8, err_msg=name)
    lagged = theirs.smoothed_state_autocov.transpose(2, 1, 0)  # theirs is Cov(s[t+1], s[t])
    np.testing.assert_allclose(ours.cross_cov[:-1], lagged[:-1], rtol=1e-8, atol=1e-8)
