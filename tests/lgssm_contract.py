"""What any filter, smoother and EM of the linear-Gaussian model must do, as checks with a name, and a plain one.

`Textbook` is slow, short and does one thing a method, so that a mutant can get one thing wrong.
"""

from __future__ import annotations

import numpy as np
from oracles_gaussian import (
    Parameters,
    Posterior,
    condition,
    em_step,
    joint,
    posterior,
    random_parameters,
    regression,
    simulate,
)

import statespace_em as sse

TOLERANCE = 1e-9
LOG_2_PI = np.log(2.0 * np.pi)


class Package:
    """The answers of `LinearGaussianSSM`."""

    def known(self, p: Parameters):
        model = sse.LinearGaussianSSM(p.m0.size, initial="free", state_offset="free", observation_offset="free")
        return model, model.parameters(
            transition=p.A[0], state_offset=p.b[0], process_cov=p.Q[0], observation=p.C[0], observation_offset=p.d[0],
            measurement_cov=p.R[0], initial_mean=p.m0, initial_cov=p.P0,
        )  # fmt: skip

    def posterior(self, y, p: Parameters) -> Posterior:
        model, params = self.known(p)
        known, smooth = model.filter(y, params), model.e_step(y, params)
        causal = ("predicted", "predicted_cov", "filtered", "filtered_cov", "innovation", "innovation_cov")
        values = [known[name].values for name in causal] + [smooth[name].values for name in ("gamma", "cov")]
        return Posterior(model.score(y, params), known["log_likelihood"].values, *values, smooth["cross_cov"].values)

    def em_step(self, sequences, p: Parameters) -> Parameters:
        model, params = self.known(p)
        y = {str(i): part for i, part in enumerate(sequences)}
        new = model.m_step(y, model.e_step(y, params), params)
        order = ("transition", "state_offset", "process_cov", "observation", "observation_offset", "measurement_cov")
        lead = [new[name].values[None] for name in order]
        return Parameters(*lead, new["initial_mean"].values, new["initial_cov"].values)

    def forecast(self, y, p: Parameters, horizon):
        model, params = self.known(p)
        future = model.forecast(y, horizon, params)
        return future["mean"].values, future["cov"].values


class Textbook:
    """Kalman 1960, Rauch, Tung & Striebel 1965, Shumway & Stoffer 1982, one method a formula; constant matrices."""

    def start(self, p):
        return p.m0, p.P0

    def predict(self, p, m, P):
        return p.A[0] @ m + p.b[0], p.A[0] @ P @ p.A[0].T + p.Q[0]

    def seen(self, y):
        return ~np.isnan(y)

    def log_density(self, v, S):
        return -0.5 * (len(v) * LOG_2_PI + np.linalg.slogdet(S)[1] + v @ np.linalg.solve(S, v))

    def update(self, p, y, m, P):
        s = self.seen(y)
        C, R = p.C[0][s], p.R[0][np.ix_(s, s)]
        v, S = y[s] - C @ m - p.d[0][s], C @ P @ C.T + R
        K = np.linalg.solve(S, C @ P).T
        return m + K @ v, P - K @ C @ P, v, S, self.log_density(v, S)

    def smoother_gain(self, p, filtered, predicted):
        return np.linalg.solve(predicted, p.A[0] @ filtered).T

    def smooth(self, J, m, P, next_mean, next_cov, predicted_mean, predicted_cov):
        return m + J @ (next_mean - predicted_mean), P + J @ (next_cov - predicted_cov) @ J.T

    def lag_one(self, gains, cov, t):
        return gains[t] @ cov[t + 1]

    def posterior(self, y, p) -> Posterior:
        (T, D), n = y.shape, p.m0.size
        out = Posterior(
            0.0, np.zeros(T), np.zeros((T, n)), np.zeros((T, n, n)), np.zeros((T, n)), np.zeros((T, n, n)),
            np.full((T, D), np.nan), np.full((T, D, D), np.nan), np.zeros((T, n)), np.zeros((T, n, n)),
            np.full((T, n, n), np.nan),
        )  # fmt: skip
        m, P = self.start(p)
        for t in range(T):
            out.predicted_mean[t], out.predicted_cov[t] = m, P
            f, F, v, S, out.contributions[t] = self.update(p, y[t], m, P)
            s = self.seen(y[t])
            out.innovation[t, s], out.innovation_cov[t][np.ix_(s, s)] = v, S
            out.filtered_mean[t], out.filtered_cov[t] = f, F
            m, P = self.predict(p, f, F)
        out.mean[-1], out.cov[-1], gains = out.filtered_mean[-1], out.filtered_cov[-1], [None] * T
        for t in range(T - 2, -1, -1):
            gains[t] = self.smoother_gain(p, out.filtered_cov[t], out.predicted_cov[t + 1])
            out.mean[t], out.cov[t] = self.smooth(
                gains[t], out.filtered_mean[t], out.filtered_cov[t], out.mean[t + 1], out.cov[t + 1],
                out.predicted_mean[t + 1], out.predicted_cov[t + 1],
            )  # fmt: skip
        for t in range(T - 1):
            out.cross_cov[t] = self.lag_one(gains, out.cov, t)
        return out._replace(log_likelihood=out.contributions.sum())

    def completed(self, p, y, m, V):
        """Mean and second moment of (y, s, 1) of a row given all data; its missing entries follow from v and R."""
        D, n = p.C[0].shape
        s = ~np.isnan(y)
        B = np.zeros((D, D))  # v given its seen entries
        B[:, s] = np.linalg.solve(p.R[0][np.ix_(s, s)], p.R[0][s]).T
        slope = p.C[0] - B @ p.C[0]
        mean = p.d[0] + p.C[0] @ m + B[:, s] @ (y - p.C[0] @ m - p.d[0])[s]
        left = p.R[0] - B @ p.R[0]
        both = np.concatenate([mean, m])
        load = np.vstack([slope, np.eye(n)])
        cov = load @ V @ load.T
        cov[:D, :D] += left
        return np.append(both, 1.0), np.block([[cov, np.zeros((D + n, 1))], [np.zeros((1, D + n + 1))]])

    def counts(self, sequences):
        pairs = sum(len(y) - 1 for y in sequences)
        return pairs, sum(int((~np.isnan(y)).any(1).sum()) for y in sequences)

    def measurement(self, p, second, D, n_rows):
        return regression(second, D, n_rows)

    def em_step(self, sequences, p) -> Parameters:
        n, D = p.m0.size, p.C.shape[1]
        state, measure, firsts = np.zeros((2 * n + 1,) * 2), np.zeros((D + n + 1,) * 2), []
        for y in sequences:
            post = self.posterior(y, p)
            firsts.append((post.mean[0], post.cov[0]))
            for t in range(len(y)):
                if t + 1 < len(y):
                    both = np.concatenate([post.mean[t + 1], post.mean[t], [1.0]])
                    X = post.cross_cov[t]
                    cov = np.block([[post.cov[t + 1], X.T], [X, post.cov[t]]])
                    state += np.outer(both, both)
                    state[:-1, :-1] += cov
                if not np.isnan(y[t]).all():
                    mean, cov = self.completed(p, y[t], post.mean[t], post.cov[t])
                    measure += np.outer(mean, mean) + cov
        n_pairs, n_rows = self.counts(sequences)
        A, b, Q = regression(state, n, n_pairs)
        C, d, R = self.measurement(p, measure, D, n_rows)
        m0 = np.mean([m for m, _ in firsts], axis=0)
        P0 = np.mean([V + np.outer(m - m0, m - m0) for m, V in firsts], axis=0)
        return Parameters(A[None], b[None], Q[None], C[None], d[None], R[None], m0, P0)

    def forecast(self, y, p, horizon):
        post = self.posterior(y, p)
        m, P, means, covs = post.filtered_mean[-1], post.filtered_cov[-1], [], []
        for _ in range(horizon):
            m, P = self.predict(p, m, P)
            means.append(p.C[0] @ m + p.d[0])
            covs.append(p.C[0] @ P @ p.C[0].T + p.R[0])
        return np.array(means), np.array(covs)


def close(got, expected, sentence):
    np.testing.assert_allclose(got, expected, rtol=TOLERANCE, atol=TOLERANCE, err_msg=sentence)


def cases():
    """Parameters with complete, partly missing and blank rows; the noise of y is correlated."""
    for n, D in ((1, 2), (2, 2), (3, 2)):
        rng = np.random.default_rng([n, D])
        p = random_parameters(rng, n, D)
        y = simulate(rng, p, 7)
        holes = y.copy()
        holes[[1, 4, 5], [0, 1, 0]], holes[3] = np.nan, np.nan
        yield p, y, holes


def check_filter(answers):
    for p, y, _ in cases():
        got, expected = answers.posterior(y, p), posterior(y, p)
        close(got.predicted_cov, expected.predicted_cov, "the predicted covariance is not that of the dense oracle")
        close(got.predicted_mean, expected.predicted_mean, "the predicted mean is not that of the dense oracle")
        close(got.filtered_mean, expected.filtered_mean, "the filtered mean is not that of the dense oracle")
        close(got.filtered_cov, expected.filtered_cov, "the filtered covariance is not that of the dense oracle")


def check_likelihood(answers):
    for p, y, holes in cases():
        for data in (y, holes):
            got, expected = answers.posterior(data, p), posterior(data, p)
            close(got.contributions, expected.contributions, "a row's log density is not that of the dense oracle")
            close(got.log_likelihood, expected.log_likelihood, "the log-likelihood is not that of the dense oracle")


def check_missing(answers):
    for p, _, holes in cases():
        got, expected = answers.posterior(holes, p), posterior(holes, p)
        assert np.isfinite(got.filtered_mean).all(), "a missing entry poisons states"
        close(got.filtered_mean, expected.filtered_mean, "a missing entry takes others along or is read as a value")
        close(got.filtered_cov, expected.filtered_cov, "a missing entry takes others along or is read as a value")
        blank = np.isnan(holes).all(1)
        close(got.contributions[blank], 0.0, "a blank row has a log density")


def check_causality(answers):
    for p, y, holes in cases():
        for data in (y, holes):
            whole, part = answers.posterior(data, p), answers.posterior(data[:4], p)
            for name in Posterior._fields[1:8]:
                same = np.array_equal(getattr(whole, name)[:4], getattr(part, name), equal_nan=True)
                assert same, f"later rows change {name} of earlier ones"


def check_smoother(answers):
    for p, y, holes in cases():
        for data in (y, holes):
            got, expected = answers.posterior(data, p), posterior(data, p)
            close(got.mean, expected.mean, "the smoothed mean is not that of the dense oracle")
            close(got.cov, expected.cov, "the smoothed covariance is not that of the dense oracle")


def check_lag_one(answers):
    for p, y, _ in cases():
        close(
            answers.posterior(y, p).cross_cov, posterior(y, p).cross_cov, "the lag-one covariance is not the oracle's"
        )


EM_SENTENCES = {
    "m0": "the initial mean", "P0": "the initial covariance", "A": "the transition", "b": "the state offset",
    "Q": "the process noise", "C": "the observation matrix", "d": "the observation offset",
    "R": "the measurement noise",
}  # fmt: skip


def check_em_step(answers):
    for n, D in ((1, 2), (2, 3)):
        rng = np.random.default_rng([n, D, 1])
        p = random_parameters(rng, n, D)
        sequences = [simulate(rng, p, T, 0.3) for T in (9, 7, 8, 9, 8)]
        sequences[0][2] = np.nan
        got, expected = answers.em_step(sequences, p), em_step(sequences, p)
        for name, what in EM_SENTENCES.items():
            close(getattr(got, name), getattr(expected, name), f"{what} of an EM step is not the oracle's")


def check_forecast(answers):
    for p, y, holes in cases():
        for data in (y, holes):
            T, (size, n) = len(data) + 3, p.C.shape[1:]
            mean, cov = joint(p, T)
            seen = ~np.isnan(data)
            m, V = condition(mean, cov, T * n + np.flatnonzero(seen), data[seen])
            got_mean, got_cov = answers.forecast(data, p, 3)
            for h in range(3):
                where = slice(T * n + (len(data) + h) * size, T * n + (len(data) + h + 1) * size)
                close(got_mean[h], m[where], "the forecast mean is not that of the dense oracle")
                close(got_cov[h], V[where, where], "the forecast covariance is not that of the dense oracle")


CHECKS = (
    check_filter, check_likelihood, check_missing, check_causality, check_smoother, check_lag_one, check_em_step,
    check_forecast,
)  # fmt: skip
