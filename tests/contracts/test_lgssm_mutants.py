"""Faults of filters, smoothers and EM steps that are in circulation, each with the check that must catch it."""

import lgssm_contract as contract
import numpy as np
import pytest
from lgssm_contract import LOG_2_PI, Package, Textbook
from oracles_gaussian import Parameters, regression


class NoProcessNoise(Textbook):
    def predict(self, p, m, P):
        return p.A[0] @ m + p.b[0], p.A[0] @ P @ p.A[0].T


class NoOffset(Textbook):
    def predict(self, p, m, P):
        return p.A[0] @ m, p.A[0] @ P @ p.A[0].T + p.Q[0]


class FirstStateIsAStep(Textbook):
    """The initial state taken for that of t = 0: a transition before the first row."""

    def start(self, p):
        return self.predict(p, p.m0, p.P0)


class TransposedTransition(Textbook):
    def predict(self, p, m, P):
        return p.A[0].T @ m + p.b[0], p.A[0].T @ P @ p.A[0] + p.Q[0]


class PriorCovarianceKept(Textbook):
    def update(self, p, y, m, P):
        f, _, v, S, density = super().update(p, y, m, P)
        return f, P, v, S, density


class NoConstant(Textbook):
    def log_density(self, v, S):
        return super().log_density(v, S) + 0.5 * len(v) * LOG_2_PI


class NoDeterminant(Textbook):
    def log_density(self, v, S):
        return super().log_density(v, S) + 0.5 * np.linalg.slogdet(S)[1]


class ConstantOfWholeRows(Textbook):
    """Counts log 2 pi for missing entries too."""

    def update(self, p, y, m, P):
        *rest, density = super().update(p, y, m, P)
        return *rest, density - 0.5 * np.isnan(y).sum() * LOG_2_PI


class RowDropped(Textbook):
    def seen(self, y):
        return np.full(y.shape, not np.isnan(y).any())


class GapIsZero(Textbook):
    def update(self, p, y, m, P):
        return super().update(p, np.nan_to_num(y), m, P)

    def seen(self, y):
        return np.ones(y.shape, bool)


class Poisoned(Textbook):
    def update(self, p, y, m, P):
        f, F, *rest = super().update(p, y, m, P)
        return (f + 0.0 * y.sum(), F, *rest)


class Peeking(Textbook):
    """Filtered moments that are smoothed ones."""

    def posterior(self, y, p):
        post = super().posterior(y, p)
        return post._replace(filtered_mean=post.mean, filtered_cov=post.cov)


class GainTransposed(Textbook):
    def smoother_gain(self, p, filtered, predicted):
        return np.linalg.solve(predicted, p.A[0].T @ filtered).T


class GainOfThePast(Textbook):
    """Divides by the filtered covariance instead of the next predicted one."""

    def smoother_gain(self, p, filtered, predicted):
        return np.linalg.solve(filtered, p.A[0] @ filtered).T


class SmoothedTooSure(Textbook):
    def smooth(self, J, m, P, next_mean, next_cov, predicted_mean, predicted_cov):
        mean, _ = super().smooth(J, m, P, next_mean, next_cov, predicted_mean, predicted_cov)
        return mean, P - J @ predicted_cov @ J.T


class LagOneOff(Textbook):
    def lag_one(self, gains, cov, t):
        return gains[t] @ cov[t]


class LagOneOfTheStepBefore(Textbook):
    def lag_one(self, gains, cov, t):
        return gains[max(t - 1, 0)] @ cov[max(t, 1)]


class LagOneTransposed(Textbook):
    def lag_one(self, gains, cov, t):
        return super().lag_one(gains, cov, t).T


class DividedByRows(Textbook):
    """T instead of T - 1 transitions."""

    def counts(self, sequences):
        n_pairs, n_rows = super().counts(sequences)
        return n_pairs + len(sequences), n_rows


class BlankRowsCounted(Textbook):
    def counts(self, sequences):
        return super().counts(sequences)[0], sum(map(len, sequences))


class OldOffsetInNoise(Textbook):
    def measurement(self, p, second, D, n_rows):
        C, d, _ = regression(second, D, n_rows)
        residual = np.hstack([np.eye(D), -C, -p.d[0][:, None]])
        return C, d, residual @ second @ residual.T / n_rows


class NoiseCompletedWithoutOffDiagonal(Textbook):
    def completed(self, p, y, m, V):
        return super().completed(p._replace(R=p.R * np.eye(len(p.R[0]))), y, m, V)


class NoiseOfGapsForgotten(Textbook):
    """Fills missing entries with their expectation and leaves out what that does not know."""

    def completed(self, p, y, m, V):
        mean, cov = super().completed(p, y, m, V)
        gaps = np.append(np.isnan(y), np.zeros(len(m) + 1, bool))
        cov[np.ix_(gaps, gaps)] = 0.0
        return mean, cov


class StateUncertaintyForgotten(Textbook):
    def completed(self, p, y, m, V):
        return super().completed(p, y, m, 0.0 * V)


class MeanShiftForgotten(Textbook):
    """Smoothed covariances only: right for one sequence."""

    def em_step(self, sequences, p) -> Parameters:
        covs = [self.posterior(y, p).cov[0] for y in sequences]
        return super().em_step(sequences, p)._replace(P0=np.mean(covs, axis=0))


class ForecastFromTheLastRow(Textbook):
    """Step 1 is time T instead of T + 1."""

    def forecast(self, y, p, horizon):
        mean, cov = super().forecast(y, p, horizon)
        last = self.posterior(y, p)
        now = p.C[0] @ last.filtered_mean[-1] + p.d[0], p.C[0] @ last.filtered_cov[-1] @ p.C[0].T + p.R[0]
        return np.vstack([now[0][None], mean[:-1]]), np.concatenate([now[1][None], cov[:-1]])


class ForecastWithoutNoise(Textbook):
    def forecast(self, y, p, horizon):
        mean, cov = super().forecast(y, p, horizon)
        return mean, cov - p.R[0]


MUTANTS = [
    (NoProcessNoise, contract.check_filter, "predicted covariance"),
    (NoOffset, contract.check_filter, "predicted mean"),
    (FirstStateIsAStep, contract.check_filter, "predicted covariance"),
    (TransposedTransition, contract.check_filter, "predicted covariance"),
    (PriorCovarianceKept, contract.check_filter, "predicted covariance"),
    (NoConstant, contract.check_likelihood, "row's log density"),
    (NoDeterminant, contract.check_likelihood, "row's log density"),
    (ConstantOfWholeRows, contract.check_likelihood, "row's log density"),
    (ConstantOfWholeRows, contract.check_missing, "blank row has a log density"),
    (RowDropped, contract.check_missing, "takes others along"),
    (GapIsZero, contract.check_missing, "read as a value"),
    (Poisoned, contract.check_missing, "poisons"),
    (Peeking, contract.check_causality, "later rows change filtered_mean"),
    (GainTransposed, contract.check_smoother, "smoothed mean"),
    (GainOfThePast, contract.check_smoother, "smoothed mean"),
    (SmoothedTooSure, contract.check_smoother, "smoothed covariance"),
    (LagOneOff, contract.check_lag_one, "lag-one"),
    (LagOneOfTheStepBefore, contract.check_lag_one, "lag-one"),
    (LagOneTransposed, contract.check_lag_one, "lag-one"),
    (LagOneOff, contract.check_em_step, "transition of an EM step"),
    (DividedByRows, contract.check_em_step, "process noise of an EM step"),
    (BlankRowsCounted, contract.check_em_step, "measurement noise of an EM step"),
    (OldOffsetInNoise, contract.check_em_step, "measurement noise of an EM step"),
    (NoiseCompletedWithoutOffDiagonal, contract.check_em_step, "observation matrix of an EM step"),
    (NoiseOfGapsForgotten, contract.check_em_step, "measurement noise of an EM step"),
    (StateUncertaintyForgotten, contract.check_em_step, "observation matrix of an EM step"),
    (MeanShiftForgotten, contract.check_em_step, "initial covariance of an EM step"),
    (ForecastFromTheLastRow, contract.check_forecast, "forecast mean"),
    (ForecastWithoutNoise, contract.check_forecast, "forecast covariance"),
]


@pytest.mark.parametrize(
    ("mutant", "check", "sentence"), MUTANTS, ids=lambda value: getattr(value, "__name__", str(value)[:12])
)
def test_fault_is_caught(mutant, check, sentence):
    with pytest.raises(AssertionError, match=sentence):
        check(mutant())


@pytest.mark.parametrize("check", contract.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("answers", [Textbook, Package])
def test_honest_answers_pass(answers, check):
    check(answers())
