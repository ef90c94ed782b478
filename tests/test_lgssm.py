"""The linear-Gaussian state-space model against dense conditioning of one joint Gaussian, and identities of EM."""

import itertools
import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from lgssm_cases import oracle_of, params_of
from oracles_gaussian import (
    Parameters,
    condition,
    em_step,
    joint,
    posterior,
    random_parameters,
    simulate,
)

import statespace_em as sse
from statespace_em.data import as_batch
from statespace_em.errors import ConvergenceWarning, DataError, NotFittedError, ParameterError, SingularInnovationError
from statespace_em.priors import InverseWishart
from statespace_em.sequence.lgssm_core import DOMAINS, LGSSMCore, LGSSMParams

EXACT = 1e-10
BLOCKS = tuple(DOMAINS)
OFFSETS = {"state_offset": "free", "observation_offset": "free"}
FREE = {"initial": "free", **OFFSETS}
COVARIANCES = ("process_cov", "measurement_cov", "initial_cov")


def close(left, right, tolerance=EXACT):
    np.testing.assert_allclose(left, right, rtol=tolerance, atol=tolerance)


def case(n, D, seed=0, *, lengths=(6,), missing=0.0, **settings):
    """Model, labelled and oracle parameters, and sequences drawn from them; the noise of y is correlated."""
    rng = np.random.default_rng([seed, n, D])
    p = random_parameters(rng, n, D)
    sequences = [simulate(rng, p, T, missing) for T in lengths]
    model = sse.LinearGaussianSSM(n, **settings)
    return model, model.parameters(**params_of(p)._asdict()), p, sequences


def as_input(sequences):
    """One sequence bare, several as a dict."""
    return sequences[0] if len(sequences) == 1 else {f"run {i}": y for i, y in enumerate(sequences)}


def fit(model, y, **options):
    """Fit without the warning that the steps ran out."""
    return model.fit(y, **{"tol": 0.0, **options})


def assert_monotone(trace):
    objective = trace["objective"].to_numpy()
    assert (np.diff(objective) >= -1e-12 * np.abs(objective[1:])).all()


def assert_same(left, right, tolerance):
    assert set(left) == set(right)
    for name in left:
        np.testing.assert_allclose(
            left[name].values, right[name].transpose(*left[name].dims).values, rtol=tolerance, atol=tolerance,
            err_msg=str(name),
        )  # fmt: skip


def xr_matrix(C, y, model):
    """Name the columns as y does."""
    if not isinstance(y, xr.DataArray):
        return C
    states = range(model.states) if np.ndim(model.states) == 0 else model.states
    return xr.DataArray(C, {"feature": y["axis"].values, "state": list(states)}, ("feature", "state"))


# answers


@pytest.mark.parametrize("missing", [0.0, 0.4])
@pytest.mark.parametrize(("n", "D"), [(1, 1), (1, 3), (2, 1), (3, 2), (4, 3)])
def test_answers_match_dense_conditioning(n, D, missing):
    for T in (1, 2, 7):
        model, params, p, (y,) = case(n, D, lengths=(T,), missing=missing)
        if missing and T > 1:
            y[0] = np.nan  # the first row is blank
        expected = posterior(y, p)
        smooth, causal = model.e_step(y, params), model.filter(y, params)
        close(smooth["gamma"], expected.mean)
        close(smooth["cov"], expected.cov)
        close(smooth["cross_cov"], expected.cross_cov)
        xi = expected.cross_cov[:-1] + expected.mean[:-1, :, None] * expected.mean[1:, None, :]
        close(smooth["xi"][:-1], xi)
        close(model.e_step(y, params, xi="sum")["xi"], xi.sum(0))
        assert np.isnan(smooth["xi"][-1]).all()
        for value in (smooth["log_likelihood"], causal["log_likelihood"].sum(), model.score(y, params)):
            close(value, expected.log_likelihood)
        close(causal["log_likelihood"], expected.contributions)
        close(causal["filtered"], expected.filtered_mean)
        close(causal["filtered_cov"], expected.filtered_cov)
        close(causal["predicted"], expected.predicted_mean)
        close(causal["predicted_cov"], expected.predicted_cov)
        close(causal["innovation"], expected.innovation)
        close(causal["innovation_cov"], expected.innovation_cov)
        close(model.decode(y, params), expected.mean)


def test_ragged_sequences_match_dense_conditioning():
    model, params, p, sequences = case(3, 2, lengths=(6, 1, 4, 7), missing=0.3)
    y = as_input(sequences)
    smooth, causal, path = model.e_step(y, params), model.filter(y, params), model.decode(y, params)
    assert smooth["gamma"].dims == ("sequence", "time", "state")
    assert smooth["xi"].dims == ("sequence", "time", "state", "next_state")
    for i, part in enumerate(sequences):
        expected, T = posterior(part, p), len(part)
        close(smooth["gamma"][i, :T], expected.mean)
        close(smooth["cov"][i, :T], expected.cov)
        close(smooth["cross_cov"][i, :T], expected.cross_cov)
        close(smooth["log_likelihood"][i], expected.log_likelihood)
        close(causal["filtered"][i, :T], expected.filtered_mean)
        close(causal["innovation"][i, :T], expected.innovation)
        close(path[i, :T], expected.mean)
        for name in ("gamma", "cov", "xi", "cross_cov"):
            assert np.isnan(smooth[name][i, T:]).all()
    total = model.e_step(y, params, xi="sum")["xi"]
    close(total, smooth["xi"].sum(["sequence", "time"]))
    close(model.score(y, params), smooth["log_likelihood"].sum())


def test_every_answer_says_what_it_is_conditioned_on():
    model, params, _, (y,) = case(2, 2)
    known = model.filter(y, params)
    assert {name: known[name].attrs["conditioning"] for name in ("filtered", "filtered_cov")} == {
        "filtered": "1:t", "filtered_cov": "1:t",
    }  # fmt: skip
    for name in ("predicted", "predicted_cov", "innovation", "innovation_cov", "log_likelihood"):
        assert known[name].attrs["conditioning"] == "1:t-1"
    smooth = model.e_step(y, params)
    assert {smooth[name].attrs["conditioning"] for name in smooth} == {"1:T"}
    assert model.decode(y, params).attrs["conditioning"] == "1:T"


@pytest.mark.parametrize("length", [3, 40])
def test_later_rows_change_no_bit_of_the_filter(length):
    model, params, _, (y,) = case(3, 2, lengths=(60,), missing=0.1)
    part, whole = model.filter(y[:length], params), model.filter(y, params)
    for name in part:
        np.testing.assert_array_equal(part[name], whole[name][:length], err_msg=str(name))


@pytest.mark.parametrize("blank_end", [False, True])
def test_forecast_matches_dense_conditioning(blank_end):
    model, params, p, sequences = case(3, 2, lengths=(6, 4), missing=0.2)
    if blank_end:
        sequences[0][-2:] = np.nan
    horizon = 4
    future = model.forecast(as_input(sequences), horizon, params)
    for i, y in enumerate(sequences):
        longer = np.vstack([y, np.full((horizon, 2), np.nan)])
        T, n = len(longer), 3
        mean, cov = joint(p, T)
        m, V = condition(mean, cov, T * n + np.flatnonzero(~np.isnan(longer)), longer[~np.isnan(longer)])
        for h in range(horizon):
            t = len(y) + h
            s, v = slice(t * n, t * n + n), slice(T * n + 2 * t, T * n + 2 * t + 2)
            close(future["predicted"][i, h], m[s])
            close(future["predicted_cov"][i, h], V[s, s])
            close(future["mean"][i, h], m[v])
            close(future["cov"][i, h], V[v, v])
            close(future["variance"][i, h], np.diag(V[v, v]))
        smooth = model.e_step(longer, params)
        close(future["predicted"][i], smooth["gamma"][len(y) :])
        close(future["predicted_cov"][i], smooth["cov"][len(y) :])


def test_forecast_continues_the_calendar():
    y = pd.Series(np.arange(5.0), pd.date_range("2020-01-30", periods=5, freq="D", name="day"))
    model, params, _, _ = case(1, 1)
    future = model.forecast(y, 2, params)
    assert pd.DatetimeIndex(future["day"].values).tolist() == [pd.Timestamp("2020-02-04"), pd.Timestamp("2020-02-05")]
    with pytest.raises(ParameterError, match="horizon"):
        model.forecast(y, 0, params)


def assert_moments(draws, mean, cov):
    """Mean and covariance of independent Gaussian draws, within 4.5 standard errors."""
    sd = np.sqrt(np.diag(cov))
    assert (np.abs(draws.mean(0) - mean) / sd * np.sqrt(len(draws))).max() < 4.5
    spread = np.sqrt((cov**2 + np.outer(sd, sd) ** 2) / len(draws))
    assert (np.abs(np.cov(draws.T) - cov) / spread).max() < 4.5


def test_sample_has_the_moments_of_the_model():
    model, params, p, _ = case(2, 2)
    long = model.sample(50_000, params, seed=0)
    s, y = long["state"].values, long["y"].values
    w, v = s[1:] - s[:-1] @ p.A[0].T - p.b[0], y - s @ p.C[0].T - p.d[0]
    none = np.zeros((2, 2))
    assert_moments(np.hstack([w, v[1:]]), 0.0, np.block([[p.Q[0], none], [none, p.R[0]]]))
    assert np.abs(np.corrcoef(w[1:].T, w[:-1].T)[:2, 2:]).max() < 4.5 / np.sqrt(len(w))
    firsts = np.array([model.sample(1, params, seed=i)["state"].values[0] for i in range(500)])
    assert_moments(firsts, p.m0, p.P0)
    assert model.sample(5, params, seed=7).equals(model.sample(5, params, seed=7))
    assert not model.sample(5, params, seed=7).equals(model.sample(5, params, seed=8))


def test_sample_with_singular_noise_keeps_its_null_space():
    model = sse.LinearGaussianSSM(2)
    params = model.parameters(
        transition=[[1, 1], [0, 1]], process_cov=[[0, 0], [0, 1]], observation=[[1, 0]], measurement_cov=[[0]],
        initial_mean=[3, 1], initial_cov=np.zeros((2, 2)),
    )  # fmt: skip
    one = model.sample(50, params, seed=1)
    position, speed = one["state"].values.T
    np.testing.assert_allclose(np.diff(position), speed[:-1], rtol=0, atol=1e-12)
    np.testing.assert_array_equal(one["y"].values[:, 0], position)
    assert (position[0], speed[0]) == (3.0, 1.0)


# one EM step


class Expected:
    """Expected complete-data log-likelihood given y under ``old``, as a function of new parameters.

    The complete data are all states, and all entries of y in the rows that have one.
    """

    def __init__(self, sequences, old: Parameters):
        n, D = old.m0.size, old.C.shape[1]
        self.first, self.pair, self.row = np.zeros((n + 1,) * 2), np.zeros((2 * n + 1,) * 2), np.zeros((D + n + 1,) * 2)
        self.entropy = 0.0
        for y in sequences:
            T = len(y)
            mean, cov = joint(old, T)
            m, V = condition(mean, cov, T * n + np.flatnonzero(~np.isnan(y)), y[~np.isnan(y)])
            blank = np.isnan(y).all(1)
            hidden = [*range(T * n), *(T * n + np.flatnonzero(np.isnan(y) & ~blank[:, None]))]
            self.entropy += 0.5 * np.linalg.slogdet(2 * np.pi * np.e * V[np.ix_(hidden, hidden)])[1]
            m, second = np.append(m, 1.0), np.block([[V + np.outer(m, m), m[:, None]], [m[None], np.ones((1, 1))]])
            s = [list(range(t * n, t * n + n)) for t in range(T)]
            one = [len(m) - 1]
            self.first += second[np.ix_(s[0] + one, s[0] + one)]
            for t in range(T):
                if t < T - 1:
                    self.pair += second[np.ix_(s[t + 1] + s[t] + one, s[t + 1] + s[t] + one)]
                if not blank[t]:
                    pick = [*range(T * n + t * D, T * n + t * D + D), *s[t], *one]
                    self.row += second[np.ix_(pick, pick)]

    @staticmethod
    def gaussian(second, slope, offset, cov):
        """E log N(target; slope regressor + offset, cov), summed."""
        residual = np.hstack([np.eye(len(cov)), -slope, -offset[:, None]])
        scatter = residual @ second @ residual.T
        return -0.5 * (second[-1, -1] * np.linalg.slogdet(2 * np.pi * cov)[1] + np.trace(np.linalg.solve(cov, scatter)))

    def __call__(self, p: LGSSMParams):
        none = np.zeros((len(p.initial_mean), 0))
        return (
            self.gaussian(self.first, none, p.initial_mean, p.initial_cov)
            + self.gaussian(self.pair, p.transition, p.state_offset, p.process_cov)
            + self.gaussian(self.row, p.observation, p.observation_offset, p.measurement_cov)
        )


def moved(p: LGSSMParams, free, rng, step):
    """A random neighbour; covariances stay covariances."""
    changes = {}
    for name in free:
        value = getattr(p, name)
        if DOMAINS[name] == "covariance":
            root = np.linalg.cholesky(value) @ (np.eye(len(value)) + step * rng.normal(size=value.shape))
            changes[name] = root @ root.T
        else:
            changes[name] = value + step * rng.normal(size=value.shape)
    return p._replace(**changes)


def batch_of(sequences):
    return as_batch(as_input(sequences))[0]


@pytest.mark.parametrize("missing", [0.0, 0.35])
@pytest.mark.parametrize(("n", "D"), [(1, 1), (2, 3), (3, 2)])
def test_evidence_bound_is_tight(n, D, missing):
    _, params, p, sequences = case(n, D, lengths=(6, 3, 5), missing=missing)
    expected = Expected(sequences, p)
    model = sse.LinearGaussianSSM(n)
    close(expected(params_of(p)) + expected.entropy, model.score(as_input(sequences), params))


def test_evidence_bound_from_the_posterior():
    """Entropy of the Gauss-Markov posterior from cov and cross_cov alone."""
    model, params, p, (y,) = case(3, 2, lengths=(9,))
    post = model.e_step(y, params)
    V, X = post["cov"].values, post["cross_cov"].values[:-1]
    both = np.block([[V[:-1], X], [X.swapaxes(1, 2), V[1:]]])
    entropy = 0.5 * np.linalg.slogdet(2 * np.pi * np.e * both)[1].sum()
    entropy -= 0.5 * np.linalg.slogdet(2 * np.pi * np.e * V[1:-1])[1].sum()
    close(Expected([y], p)(params_of(p)) + entropy, post["log_likelihood"])


SUBSETS = [frozen for size in range(len(BLOCKS) + 1) for frozen in itertools.combinations(BLOCKS, size)]


@pytest.mark.parametrize("prior", [False, True])
def test_m_step_maximises_given_every_set_of_frozen_blocks(prior):
    _, _, old, sequences = case(2, 2, lengths=(7, 5, 6, 6), missing=0.25)
    batch, expected, rng = batch_of(sequences), Expected(sequences, old), np.random.default_rng(0)
    priors = (InverseWishart(5.0, 2.0), InverseWishart(4.0, ((2.0, 0.5), (0.5, 1.0)))) if prior else ()
    start = moved(params_of(old), BLOCKS, rng, 0.2)
    expected = Expected(sequences, oracle_of(start))
    for frozen in SUBSETS:
        core = LGSSMCore(2, frozen, *priors)
        statistics, before = core.e_step(start, batch)
        new = core.m_step(statistics, start)
        for name in frozen:
            assert getattr(new, name) is getattr(start, name) or (getattr(new, name) == getattr(start, name)).all()
        free = [name for name in BLOCKS if name not in frozen]
        top = expected(new) + core.log_prior(new)
        assert top >= expected(start) + core.log_prior(start) - 1e-10
        for step in (1e-4, 1e-2):
            for _ in range(4):
                other = moved(new, free, rng, step)
                assert top >= expected(other) + core.log_prior(other) - 1e-11, (frozen, step)
        after = core.e_step(new, batch)[1]
        assert after + core.log_prior(new) >= before + core.log_prior(start) - 1e-10


@pytest.mark.parametrize("frozen", [(), ("transition",), ("observation", "process_cov"), COVARIANCES, BLOCKS[::2]])
def test_frozen_blocks_keep_every_bit_and_the_fit_climbs(frozen):
    model, params, _, sequences = case(2, 2, lengths=(12, 9, 10), missing=0.2, **FREE)
    y = as_input(sequences)
    for accelerate in (False, True):
        fit(model, y, start=params, freeze=frozen, max_iter=40, accelerate=accelerate)
        for name in frozen:
            np.testing.assert_array_equal(model.params_[name], params[name])
        for name in set(BLOCKS) - set(frozen):
            assert not np.array_equal(model.params_[name], params[name])
        assert model.status_ in ("max_iter", "converged")
        assert_monotone(model.trace_)
        assert model.trace_["objective"].iloc[-1] == pytest.approx(model.score(y), abs=1e-9)


@pytest.mark.parametrize("with_offsets", [False, True])
@pytest.mark.parametrize("missing", [0.0, 0.35])
@pytest.mark.parametrize(("n", "D"), [(1, 1), (2, 3), (3, 2)])
def test_one_em_step_matches_dense_completion(n, D, missing, with_offsets):
    settings = {"initial": "free", **(OFFSETS if with_offsets else {})}
    model, params, p, sequences = case(n, D, lengths=(12, 9, 10, 12, 11), missing=missing, **settings)
    y = as_input(sequences)
    sequences[1][3] = np.nan
    expected = params_of(em_step(sequences, p, with_offsets))
    via_steps = model.m_step(y, model.e_step(y, params), params)
    via_fit = fit(model, y, start=params, max_iter=2, accelerate=False).params_
    for found in (via_steps, via_fit):
        for name, value in expected._asdict().items():
            np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-9, err_msg=name)
    via_steps = model.m_step(y, model.e_step(y, params, xi="sum"), params)
    assert_same(via_steps, via_fit, 1e-9)


@pytest.mark.parametrize(
    ("initial", "n_sequences", "kept"),
    [
        ("known", 1, ("initial_mean", "initial_cov")),
        ("known", 3, ("initial_mean", "initial_cov")),
        ("estimated", 1, ("initial_cov",)),
        ("estimated", 3, ()),
        ("free", 1, ()),
        ("free", 3, ()),
    ],
)
@pytest.mark.filterwarnings("ignore::statespace_em.errors.DataWarning")  # few rows on purpose
def test_what_initial_holds(initial, n_sequences, kept):
    model, params, p, sequences = case(2, 2, lengths=(14,) * n_sequences, initial=initial)
    y = as_input(sequences)
    expected = params_of(em_step(sequences, p, with_offsets=False))
    if "initial_mean" in kept:
        expected = expected._replace(initial_mean=p.m0)
    if "initial_cov" in kept:
        expected = expected._replace(initial_cov=p.P0)
    for found in (
        fit(model, y, start=params, max_iter=2, accelerate=False).params_,
        model.m_step(y, model.e_step(y, params), params),
    ):
        for name, value in expected._asdict().items():
            np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-9, err_msg=name)
        for name in kept:
            np.testing.assert_array_equal(found[name], params[name])


@pytest.mark.parametrize("n_sequences", [1, 3])
def test_loop_of_public_steps_is_plain_em(n_sequences):
    model, params, _, sequences = case(2, 2, lengths=(20,) * n_sequences, missing=0.2)
    y, steps = as_input(sequences), 12
    fit(model, y, start=params, max_iter=steps, accelerate=False)
    known, path = params, []
    for _ in range(steps):
        post = model.e_step(y, known)
        path.append(float(post["log_likelihood"].sum()))
        last, known = known, model.m_step(y, post, known)
    np.testing.assert_allclose(model.trace_["log_likelihood"], path, rtol=1e-10)
    assert_same(model.params_, last, 1e-10)


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_statistics_give_the_exact_score(missing):
    """Fisher's identity against finite differences of the log-likelihood."""
    _, _, p, sequences = case(2, 2, lengths=(8, 6, 7), missing=missing)
    batch, core, p = batch_of(sequences), LGSSMCore(2, ()), params_of(p)
    s, _ = core.e_step(p, batch)
    Q, R, P0 = (np.linalg.inv(getattr(p, name)) for name in COVARIANCES)
    shift = s.first_mean - s.n_sequences * p.initial_mean
    score = {
        "transition": Q @ s.S_wz[:, :-1],
        "state_offset": Q @ s.S_wz[:, -1],
        "process_cov": 0.5 * Q @ (s.S_ww - s.n_pairs * p.process_cov) @ Q,
        "observation": R @ s.S_vz[:, :-1],
        "observation_offset": R @ s.S_vz[:, -1],
        "measurement_cov": 0.5 * R @ (s.S_vv - s.n_rows * p.measurement_cov) @ R,
        "initial_mean": P0 @ shift,
        "initial_cov": 0.5 * P0 @ (s.first_cov + s.first_outer - s.n_sequences * p.initial_cov) @ P0,
    }
    step = 1e-5
    for name, expected in score.items():
        value = getattr(p, name)
        for where in np.ndindex(value.shape):
            bump = np.zeros(value.shape)
            bump[where] = step
            if DOMAINS[name] == "covariance":
                bump = (bump + bump.T) / 2.0
            up, down = (core.e_step(p._replace(**{name: value + sign * bump}), batch)[1] for sign in (1, -1))
            np.testing.assert_allclose((up - down) / (2 * step), expected[where], rtol=1e-6, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("accelerate", [False, True])
def test_map_climbs_and_its_m_step_maximises(accelerate):
    settings = {"process_prior": InverseWishart(6.0, 3.0), "measurement_prior": InverseWishart(5.0, 0.5)}
    model, params, _, sequences = case(2, 2, lengths=(30, 20), missing=0.1, **settings)
    y = as_input(sequences)
    fit(model, y, start=params, max_iter=60, accelerate=accelerate)
    assert_monotone(model.trace_)
    last = model.trace_.iloc[-1]
    assert last["objective"] == pytest.approx(last["log_likelihood"] + last["log_prior"], abs=1e-12)
    assert last["log_prior"] == pytest.approx(model.log_prior(), rel=1e-12)
    Q, R = (model.params_[name].values for name in COVARIANCES[:2])
    density = sum(
        -0.5 * ((dof + 3) * np.linalg.slogdet(cov)[1] + scale * np.trace(np.linalg.inv(cov)))
        for cov, dof, scale in ((Q, 6.0, 3.0), (R, 5.0, 0.5))
    )
    assert model.log_prior() == pytest.approx(density, rel=1e-12)


def test_prior_alone_decides_without_pairs():
    """Sequences of one row say nothing on the dynamics: the noise goes to the mode of its prior, the rest stays."""
    model, params, _, sequences = case(2, 1, lengths=(1,) * 40, process_prior=InverseWishart(4.0, 3.0))
    new = model.m_step(as_input(sequences), model.e_step(as_input(sequences), params), params)
    np.testing.assert_allclose(new["process_cov"], 3.0 / (4 + 3) * np.eye(2))
    np.testing.assert_array_equal(new["transition"], params["transition"])
    flat, params, _, _ = case(2, 1)
    new = flat.m_step(as_input(sequences), flat.e_step(as_input(sequences), params), params)
    for name in ("transition", "process_cov"):
        np.testing.assert_array_equal(new[name], params[name])


def test_tied_start_is_one_step_from_a_fixed_state():
    """The first state has the process covariance: its M-step is joint, and a given initial_cov does not matter."""
    model, params, p, sequences = case(2, 2, lengths=(9, 7, 8), missing=0.2, initial="tied")
    y, core = batch_of(sequences), LGSSMCore(2, ("initial_cov",), tied=True)
    start = core.build(params_of(p)._asdict())
    np.testing.assert_array_equal(start.initial_cov, start.process_cov)
    held = params.assign(initial_cov=params["process_cov"])
    known = sse.LinearGaussianSSM(2)
    assert model.score(as_input(sequences), params.drop_vars("initial_cov")) == known.score(as_input(sequences), held)
    s, before = core.e_step(start, y)
    for frozen in ((), ("transition",), ("process_cov",), ("initial_mean", "observation")):
        part = LGSSMCore(2, ("initial_cov", *frozen), InverseWishart(5.0, 1.0), tied=True)
        new, expected = part.m_step(s, start), Expected(sequences, oracle_of(start))
        assert new.initial_cov is new.process_cov
        top, rng = expected(new) + part.log_prior(new), np.random.default_rng(1)
        for step in (1e-4, 1e-2):
            for _ in range(10):
                other = moved(new, [name for name in BLOCKS if name not in part.frozen], rng, step)
                other = other._replace(initial_cov=other.process_cov)
                assert top >= expected(other) + part.log_prior(other) - 1e-11
        back = part.from_vector(part.to_vector(new, start), start)
        for name in BLOCKS:
            close(getattr(back, name), getattr(new, name), 1e-9)


@pytest.mark.parametrize("name", ["nile", "radar"])
def test_tied_fits_converge_from_any_start_and_basis(name):
    """With the start tied, a change of basis changes nothing: all free, and still one maximum, soon."""
    y, n = {"nile": (sse.datasets.nile(), 1), "radar": (sse.datasets.radar()["measured"], 2)}[name]
    model = sse.LinearGaussianSSM(n, initial="tied").fit(y)
    assert model.converged_
    assert model.starts_["iterations"].max() < 400
    best = model.score(y)
    for seed in (1, 2, 3, 4):
        start = rough_start(model, y, seed)
        other = sse.LinearGaussianSSM(n, initial="tied").fit(y, start=start)
        assert other.score(y) == pytest.approx(best, abs=1e-6)
        assert other.starts_["iterations"].iloc[0] < 500


def rough_start(model, y, seed):
    """A random basis and dynamics, and the scale of y."""
    rng, n, D = np.random.default_rng(seed), model.states, 1 if y.ndim == 1 else y.shape[1]
    sd = float(np.nanstd(y))
    return model.parameters(
        transition=0.9 * np.linalg.qr(rng.normal(size=(n, n)))[0], process_cov=rng.uniform(0.1, 10) * np.eye(n),
        observation=xr_matrix(sd * rng.normal(size=(D, n)), y, model), initial_mean=rng.normal(size=n),
        measurement_cov=sd**2 * np.eye(D),
    )  # fmt: skip


def test_acceleration_ends_no_lower_than_plain_em():
    y = sse.datasets.radar()["measured"]
    model = sse.LinearGaussianSSM(2, initial="tied")
    start = rough_start(model, y, 0)
    plain_end = fit(model, y, start=start, accelerate=False, max_iter=400).score(y)
    assert fit(model, y, start=start, max_iter=400).score(y) >= plain_end - 1e-6


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("frozen", [(), ("transition", "initial_mean"), ("process_cov", "observation_offset")])
def test_score_vector_is_the_gradient_in_coordinates(frozen, tied):
    _, _, p, sequences = case(2, 2, lengths=(8, 6, 7), missing=0.2)
    held = (*frozen, "initial_cov") if tied else frozen
    priors = InverseWishart(5.0, 2.0), InverseWishart(4.0, ((2.0, 0.5), (0.5, 1.0)))
    core, batch = LGSSMCore(2, held, *priors, tied), batch_of(sequences)
    reference = core.build(params_of(p)._asdict())
    free = [name for name in BLOCKS if name not in held]
    point = core.build(moved(reference, free, np.random.default_rng(1), 0.1)._asdict())
    statistics, _ = core.e_step(point, batch)
    vector, gradient = core.to_vector(point, reference), core.score_vector(point, statistics, reference)
    step = 1e-5
    for i, expected in enumerate(gradient):
        ends = []
        for sign in (1, -1):
            there = core.from_vector(vector + sign * step * np.eye(len(vector))[i], reference)
            ends.append(core.e_step(there, batch)[1] + core.log_prior(there))
        assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(expected, rel=1e-6, abs=1e-6)


# the fit


def local_level(y, **changes):
    """Local level with a vague start, as in the Nile of the textbooks: model, start, frozen blocks."""
    model = sse.LinearGaussianSSM(["level"], initial="known")
    spread = float(np.nanvar(y))
    start = {
        "transition": [[1.0]], "observation": [[1.0]], "process_cov": [[spread]], "measurement_cov": [[spread]],
        "initial_mean": [0.0], "initial_cov": [[1e7]],
    }  # fmt: skip
    return model, model.parameters(**{**start, **changes}), ["transition", "observation"]


def two_levels():
    """Two related random walks, each measured; only the noises are free."""
    rng = np.random.default_rng(5)
    y = np.cumsum(rng.normal(size=(200, 2)), axis=0) @ [[1.0, 0.5], [0.0, 1.0]] + 2.0 * rng.normal(size=(200, 2))
    y[[20, 21, 90], [0, 0, 1]] = np.nan
    model, one = sse.LinearGaussianSSM(["one", "other"], initial="known"), np.eye(2)
    start = model.parameters(
        transition=one, observation=one, process_cov=one, measurement_cov=one, initial_mean=[0, 0], initial_cov=9 * one
    )
    return y, model, start, ["transition", "observation"]


def track():
    """Position and velocity on two axes, measured with outliers and gaps; Q and R free."""
    y = sse.datasets.radar()["measured"]
    A, C = np.kron(np.eye(2), [[1.0, 2.0], [0.0, 1.0]]), np.kron(np.eye(2), [[1.0, 0.0]])
    model = sse.LinearGaussianSSM(["east", "east speed", "north", "north speed"], initial="known")
    start = model.parameters(
        transition=A, observation=xr_matrix(C, y, model), process_cov=np.kron(np.eye(2), [[0.8, 0.6], [0.6, 0.6]]),
        measurement_cov=np.diag([2500.0, 2500.0]), initial_mean=[-9000, 0, 4000, 0], initial_cov=1e4 * np.eye(4),
    )  # fmt: skip
    return y, model, start, ["transition", "observation"]


def setups(name):
    if name == "nile":
        y = sse.datasets.nile()
        return (y, *local_level(y))
    if name == "buoy":
        y = sse.datasets.buoy().resample("1D").mean()
        return (y, *local_level(y, measurement_cov=[[0.1]], process_cov=[[0.1]], initial_mean=[float(y.iloc[0])]))
    return {"track": track, "two levels": two_levels}[name]()


@pytest.mark.parametrize("name", ["nile", "buoy", "track", "two levels"])
def test_acceleration_reaches_the_maximum_of_a_long_plain_em(name):
    y, model, start, freeze = setups(name)
    interior = name != "track"  # whose maximum is at a singular covariance
    fit(model, y, start=start, freeze=freeze, max_iter=1000, tol=1e-8 if interior else 0.0)
    assert model.converged_ or not interior
    assert_monotone(model.trace_)
    fast, steps = model.trace_["objective"].iloc[-1], model.starts_["iterations"].iloc[0]
    slow = fit(model, y, start=start, freeze=freeze, accelerate=False, max_iter=2000).trace_["objective"]
    assert_monotone(model.trace_)
    assert fast >= slow.iloc[-1] - 1e-6
    assert steps < (slow < fast - 1e-6).sum() + 5  # E-steps that plain EM needs to come as close


def test_singular_noise_is_accelerated_and_stays_singular():
    """An integrated random walk: the position has no noise of its own."""
    rng = np.random.default_rng(3)
    y = np.cumsum(np.cumsum(0.3 * rng.normal(size=150))) + 3.0 * rng.normal(size=150)
    model = sse.LinearGaussianSSM(["position", "speed"], initial="known")
    start = model.parameters(
        transition=[[1, 1], [0, 1]], observation=[[1, 0]], process_cov=[[0, 0], [0, 5.0]], measurement_cov=[[20.0]],
        initial_mean=[0, 0], initial_cov=100.0 * np.eye(2),
    )  # fmt: skip
    freeze = ["transition", "observation"]
    fast = model.fit(y, start=start, freeze=freeze).trace_["objective"]
    steps = model.starts_["iterations"].iloc[0]
    Q = model.params_["process_cov"].values
    assert model.converged_
    np.testing.assert_allclose(Q[[0, 0, 1], [0, 1, 0]], 0.0, atol=1e-12)
    slow = fit(model, y, start=start, freeze=freeze, accelerate=False, max_iter=2000).trace_["objective"]
    assert fast.iloc[-1] >= slow.iloc[-1] - 1e-6
    assert steps < (slow < fast.iloc[-1] - 1e-6).sum() / 3


@pytest.mark.parametrize("factor", [1e-4, 1e6])
@pytest.mark.parametrize("accelerate", [False, True])
def test_units_only_scale_the_fit(factor, accelerate):
    model, params, _, sequences = case(2, 2, lengths=(60, 40), missing=0.1, **FREE)
    y, entries = as_input(sequences), sum((~np.isnan(part)).sum() for part in sequences)
    power = {"transition": 0, **dict.fromkeys(COVARIANCES, 2), "observation": 0}
    scaled = params.copy(data={name: params[name].values * factor ** power.get(name, 1) for name in params})
    options = {"max_iter": 25, "accelerate": accelerate}
    one = fit(model, y, start=params, **options)
    path, found = one.trace_["log_likelihood"], one.params_
    other = fit(model, {k: factor * v for k, v in y.items()}, start=scaled, **options)
    shift = entries * np.log(factor)
    np.testing.assert_allclose(other.trace_["log_likelihood"] + shift, path, rtol=0, atol=1e-6)
    for name in found:
        back = other.params_[name].values / factor ** power.get(name, 1)
        np.testing.assert_allclose(back, found[name].values, rtol=1e-4, atol=1e-5, err_msg=str(name))


@pytest.mark.parametrize("factor", [1e-4, 1e6])
def test_units_do_not_matter_to_the_default_start(factor):
    y = np.column_stack([sse.datasets.nile(), sse.datasets.nile().rolling(3, min_periods=1).mean()])
    model = sse.LinearGaussianSSM(2)
    one = fit(model, y, max_iter=20).trace_["log_likelihood"]
    other = fit(model, factor * y, max_iter=20).trace_["log_likelihood"]
    np.testing.assert_allclose(other + y.size * np.log(factor), one, rtol=0, atol=1e-4)


def test_basis_of_the_states_does_not_matter():
    model, params, _, sequences = case(3, 2, lengths=(40, 30), missing=0.1, **FREE)
    y, T = as_input(sequences), np.random.default_rng(2).normal(size=(3, 3)) + 2.0 * np.eye(3)
    back = np.linalg.inv(T)
    p = {name: params[name].values for name in BLOCKS}
    other = model.parameters(
        transition=T @ p["transition"] @ back, process_cov=T @ p["process_cov"] @ T.T,
        observation=p["observation"] @ back, measurement_cov=p["measurement_cov"], initial_mean=T @ p["initial_mean"],
        initial_cov=T @ p["initial_cov"] @ T.T, state_offset=T @ p["state_offset"],
        observation_offset=p["observation_offset"],
    )  # fmt: skip
    paths = [fit(model, y, start=start, max_iter=25, accelerate=False).trace_["objective"] for start in (params, other)]
    np.testing.assert_allclose(paths[0], paths[1], rtol=1e-9)


def slow_level(seed=4):
    rng = np.random.default_rng(seed)
    return np.cumsum(0.3 * rng.normal(size=200)) + rng.normal(size=200)


def high_level_fit(y, level):
    model, start, freeze = local_level(y, initial_mean=[level], initial_cov=[[4.0]])
    return model.fit(y + level, start=start, freeze=freeze)


@pytest.mark.filterwarnings("ignore::statespace_em.errors.ConvergenceWarning")  # the next but one test is on that
def test_large_levels_cost_no_digits():
    y, found = slow_level(), []
    for level in (0.0, 1e6):
        model = high_level_fit(y, level)
        found.append([model.score(y + level), *(float(model.params_[name].squeeze()) for name in COVARIANCES[:2])])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)


@pytest.mark.filterwarnings("ignore::statespace_em.errors.ConvergenceWarning")
def test_large_levels_do_not_spoil_the_default_start():
    y = slow_level()
    free = {"initial": "tied", "observation_offset": "free"}
    ends = [fit(sse.LinearGaussianSSM(1, **free), y + level, max_iter=25).score(y + level) for level in (0.0, 1e6)]
    np.testing.assert_allclose(ends[0], ends[1], rtol=0, atol=0.05)
    bare = fit(sse.LinearGaussianSSM(1, initial="tied"), y + 1e6, max_iter=60)  # the state must carry the level
    assert bare.score(y + 1e6) > ends[0] - 5.0


@pytest.mark.filterwarnings("ignore::statespace_em.errors.ConvergenceWarning")
def test_large_levels_end_as_converged():
    ends = [high_level_fit(slow_level(seed), 1e6).status_ for seed in range(12)]
    assert set(ends) == {"converged"}


# default starts


def eigenvalues(params):
    for name in COVARIANCES:
        value = params[name].values
        np.testing.assert_array_equal(value, value.T)
        yield np.linalg.eigvalsh(value).min() / np.trace(value)


def noisy(D, T, seed=0, missing=0.0):
    rng = np.random.default_rng([seed, D, T])
    y = np.cumsum(rng.normal(size=(T, D)), axis=0) @ rng.normal(size=(D, D)) + rng.normal(size=(T, D))
    return np.where(rng.random(y.shape) < missing, np.nan, y)


@pytest.mark.parametrize("D", [1, 2, 3])
@pytest.mark.parametrize("n", range(1, 7))
def test_default_start_climbs_and_stays_valid(n, D):
    for y in (
        noisy(D, 120),
        noisy(D, 120, missing=0.3),
        {i: noisy(D, 4 + i % 3, seed=i) for i in range(30)},
    ):
        model = sse.LinearGaussianSSM(n, observation_offset="free")
        fit(model, y, max_iter=30)
        assert model.status_ in ("converged", "max_iter")
        assert_monotone(model.trace_)
        assert all(np.isfinite(model.params_[name]).all() for name in model.params_)
        assert min(eigenvalues(model.params_)) > -1e-15
        assert np.isfinite(model.forecast(y, 3)["cov"]).all()


def test_default_fit_ends_well_or_says_so():
    y = sse.datasets.nile()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = sse.LinearGaussianSSM(1).fit(y, max_iter=200)
    assert model.converged_ != any(w.category is ConvergenceWarning for w in caught)
    with pytest.warns(ConvergenceWarning, match="before it converged"):
        sse.LinearGaussianSSM(1).fit(y, max_iter=3)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_hardly_any_rows(rows):
    """Refused with a reason, or fitted with a warning; never a number that is not one."""
    y = np.array([[1.0, 2.0], [0.5, 2.5], [1.5, 3.0]])[:rows]
    for n in (1, 4):
        model = sse.LinearGaussianSSM(n)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if rows == 1:
                with pytest.raises(DataError, match="two rows"):
                    model.fit(y, max_iter=10)
            else:
                model.fit(y, max_iter=10)
                assert np.isfinite(model.score(y))


def test_many_rows():
    rng = np.random.default_rng(6)
    y = np.cumsum(0.1 * rng.normal(size=(100_000, 2)), axis=0) + rng.normal(size=(100_000, 2))
    y[rng.random(y.shape) < 0.01] = np.nan
    model = fit(sse.LinearGaussianSSM(2), y, max_iter=8)
    assert_monotone(model.trace_)
    assert np.isfinite(model.e_step(y, xi="sum")["gamma"]).all()


def test_missing_rows_at_both_ends_are_the_same_as_none():
    model, params, _, (y,) = case(2, 2, lengths=(30,), missing=0.1)
    longer = np.vstack([y, np.full((3, 2), np.nan)])
    assert model.score(longer, params) == pytest.approx(model.score(y, params), rel=1e-13)
    close(model.e_step(longer, params)["gamma"][:30], model.e_step(y, params)["gamma"])


# the shell


def test_saved_models_come_back_exactly(tmp_path):
    settings = {
        "initial": "free",
        "state_offset": "free",
        "process_prior": InverseWishart(5.0, ((2.0, 0.1), (0.1, 1.0))),
    }
    model, params, _, sequences = case(2, 2, lengths=(30,), **settings)
    fit(model, sequences[0], start=params, max_iter=5).save(tmp_path / "model.nc")
    back = sse.LinearGaussianSSM.load(tmp_path / "model.nc")
    assert back.params_.equals(model.params_)
    assert repr(back) == repr(model)
    assert back.get_params() == model.get_params()
    assert back.score(sequences[0]) == model.score(sequences[0])
    pd.testing.assert_frame_equal(back.trace_, model.trace_)
    assert back.status_ == model.status_


def test_scikit_learn_can_clone():
    base = pytest.importorskip("sklearn.base")
    model = sse.LinearGaussianSSM(["a", "b"], initial="known", process_prior=InverseWishart(4.0, 1.0))
    twin = base.clone(model)
    assert twin is not model
    assert twin.get_params() == model.get_params()


def test_fit_is_repeatable_and_leaves_its_input_alone():
    y = sse.datasets.nile()
    before = y.copy()
    one, two = (fit(sse.LinearGaussianSSM(2), y, max_iter=15) for _ in range(2))
    assert one.params_.equals(two.params_)
    pd.testing.assert_series_equal(y, before)


def test_names_travel():
    frame = pd.DataFrame(noisy(2, 40), pd.date_range("2020", periods=40, name="day"), ["north", "south"])
    model = fit(sse.LinearGaussianSSM(["slow", "fast"]), frame, max_iter=5)
    assert model.params_["observation"].dims == ("feature", "state")
    assert model.params_["feature"].values.tolist() == ["north", "south"]
    known = model.filter(frame)
    assert known["innovation_cov"].dims == ("day", "feature", "feature_aux")
    assert model.decode(frame)["state"].values.tolist() == ["slow", "fast"]
    table = model.summary()
    assert table.loc[("observation", "south", "fast"), "value"] == float(model.params_["observation"][1, 1])
    swapped = model.params_.transpose("state", "feature", ...)
    assert model.score(frame, swapped) == model.score(frame)
    assert model.score(frame[["south", "north"]]) == pytest.approx(model.score(frame), rel=1e-12)


def test_wrong_use_is_refused_with_a_remedy():
    model, params, _, (y,) = case(2, 2)
    with pytest.raises(NotFittedError, match="fit"):
        model.decode(y)
    with pytest.raises(ParameterError, match="initial"):
        fit(sse.LinearGaussianSSM(2, initial="vague"), y)
    with pytest.raises(ParameterError, match="state_offset"):
        fit(sse.LinearGaussianSSM(2, state_offset=True), y)
    with pytest.raises(ParameterError, match="process_cov"):
        model.parameters(process_cov=[[1, 2], [2, 1]])
    with pytest.raises(ParameterError, match="transition"):
        model.parameters(transition=[[1, np.nan], [2, 1]])
    with pytest.raises(ParameterError, match="freeze"):
        model.fit(y, freeze=["transition"])
    with pytest.raises(ParameterError, match="innovation"):
        model.fit(y, start=params, freeze=["innovation"])
    with pytest.raises(DataError, match="constant"):
        sse.LinearGaussianSSM(1).fit(np.column_stack([np.ones(20), np.arange(20)]))


def test_a_prior_on_a_singular_noise_is_refused_by_name():
    y, model, start, freeze = track()
    singular = start.assign(process_cov=start["process_cov"] * np.diag([0.0, 1.0, 0.0, 1.0]))
    model.set_params(process_prior=InverseWishart(6.0, 1.0))
    with pytest.raises(ParameterError, match=r"^process_cov: the inverse-Wishart prior has no density at a singular"):
        model.fit(y, start=singular, freeze=freeze)
    with pytest.raises(ParameterError, match="leave out the prior"):
        model.log_prior(singular)


def test_an_observation_without_density_is_named():
    model = sse.LinearGaussianSSM(1)
    params = model.parameters(
        transition=[[1]], process_cov=[[0]], observation=[[1], [1]], measurement_cov=np.zeros((2, 2)), initial_mean=[0],
        initial_cov=[[1]],
    )  # fmt: skip
    y = pd.DataFrame(np.ones((3, 2)), index=pd.date_range("2020-01-01", periods=3, name="day"))
    with pytest.raises(SingularInnovationError, match="day 2020-01-01"):
        model.score(y, params)


def test_a_covariance_with_a_period_is_not_taken_for_settled():
    """A rotation without noise swaps the variances at every blank row: 45 blanks leave them swapped."""
    turn = sse.LinearGaussianSSM(2, initial="known")
    fixed = {"transition": [[0, -1], [1, 0]], "observation": [[1, 0]], "process_cov": np.zeros((2, 2))}
    fixed |= {"measurement_cov": [[1]], "initial_mean": [0, 0]}
    seen = np.array([0.3, -1.2, 0.8, 0.1, -0.4])
    late = turn.parameters(initial_cov=np.diag([4.0, 1.0]), **fixed)
    early = turn.parameters(initial_cov=np.diag([1.0, 4.0]), **fixed)
    y = np.concatenate([np.full(45, np.nan), seen])
    assert turn.score(y, early) == pytest.approx(turn.score(seen, late), rel=1e-12)
    whole, part = turn.e_step(y, early), turn.e_step(seen, late)
    for name in ("gamma", "cov"):
        np.testing.assert_allclose(whole[name].values[45:], part[name].values, rtol=0, atol=1e-12)
    back = np.array([[0.0, -1.0], [1.0, 0.0]])  # without noise the smoothed past is the present turned back
    for t in range(44, -1, -1):
        np.testing.assert_allclose(
            back @ whole["cov"].values[t] @ back.T, whole["cov"].values[t + 1], rtol=0, atol=1e-12
        )


def test_noise_that_vanishes_never_turns_negative():
    rng = np.random.default_rng(121)
    y = {k: np.convolve(rng.normal(size=50), 0.8 ** np.arange(50))[:50] for k in range(2)}
    model = sse.LinearGaussianSSM(2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(y, max_iter=2000)
    assert np.linalg.eigvalsh(model.params_["measurement_cov"].values)[0] >= 0.0
    assert np.isfinite(model.score(y))
