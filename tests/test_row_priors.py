"""Priors on covariances that change at breaks: every one of them has the prior, by itself."""

from __future__ import annotations

import numpy as np
import pytest
from lgssm_cases import score_and_slopes

import statespace_em as sse
from statespace_em.errors import ParameterError
from statespace_em.priors import InverseWishart

T = 40
LATE = np.arange(T) >= 25
LEVEL = {"transition": [[1]], "observation": [[1]], "initial": "known", "initial_mean": [0.3], "initial_cov": [[2.0]]}
PAIR = {
    "transition": [[0.5, 0.2], [0, 0.9]], "observation": [[1, 0], [0.4, 1], [0.2, -0.7]], "initial": "known",
    "initial_mean": [0, 0], "initial_cov": np.eye(2), "measurement_cov": "diagonal",
}  # fmt: skip
WHOLE = [[["p", "c"], ["c", "q"]] if late else [["r", "d"], ["d", "s"]] for late in LATE]
PRIOR = InverseWishart(5.0, [[2.0, 0.3], [0.3, 1.0]])
CASES = {
    "break": ({**LEVEL, "process_cov": [[np.where(LATE, "after", "before")]]}, InverseWishart(4.0, [[1.5]])),
    "a free matrix before and after": ({**PAIR, "process_cov": WHOLE}, PRIOR),
    "one of two": ({**PAIR, "process_cov": [[np.where(LATE, "after", "before"), 0], [0, "q"]]}, PRIOR),
    "loading": (
        {
            **PAIR, "process_loading": [[1.0], [0.5]], "process_cov": [[np.where(LATE, "after", "before")]],
        }, InverseWishart(4.0, [[1.5]]),
    ),
}  # fmt: skip


def data(size, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.normal(size=(T, size)).cumsum(0) + rng.normal(size=(T, size))
    y[rng.random(y.shape) < 0.1] = np.nan
    return y


def model_of(case):
    arguments, prior = CASES[case]
    return sse.LinearGaussianSSM(**arguments, process_prior=prior), data(len(arguments["observation"]))


def covariances(case, values):
    """Covariances of the disturbances before and after, by their names."""
    if case == "a free matrix before and after":
        return [np.array([[values["r"], values["d"]], [values["d"], values["s"]]]),
                np.array([[values["p"], values["c"]], [values["c"], values["q"]]])]  # fmt: skip
    return [np.array([[values[word]]]) for word in ("before", "after")]


@pytest.mark.parametrize("case", CASES)
def test_the_density_is_that_of_all_covariances(case):
    model, y = model_of(case)
    model.fit(y, max_iter=3, tol=0.0, n_starts=1)
    values, prior = model.summary()["value"].droplevel(["row", "column"]), CASES[case][1]
    if case == "one of two":  # of a diagonal covariance every variance stands for itself
        expected = sum(
            -0.5 * (prior.weight(2) * np.log(values[word]) + scale / values[word])
            for word, scale in (("before", 2.0), ("after", 2.0), ("q", 1.0))
        )
    else:
        expected = sum(prior.log_density(cov) for cov in covariances(case, values))
    assert model.log_prior() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_em_climbs_to_where_the_slope_of_the_objective_is_zero(case):
    model, y = model_of(case)
    steps = model.fit(y, max_iter=40, tol=0.0, n_starts=1, accelerate=False).trace_["objective"]
    assert (np.diff(steps) > -1e-9).all()
    core, tree, batch, *_ = model._prepare(y, model.params_)
    score, slopes = score_and_slopes(core, batch, tree)
    assert score == pytest.approx(slopes, rel=1e-5, abs=1e-5)
    best = model.fit(y)
    assert best.status_ == "converged"
    assert best.trace_["objective"].iloc[-1] >= steps.iloc[-1] - 1e-9


def test_a_variance_with_a_prior_is_not_put_at_zero():
    model = sse.LinearGaussianSSM(**PAIR, process_cov=[["a", 0], [0, "q"]], process_prior=PRIOR).fit(data(3))
    assert model.status_ == "converged"
    assert (np.diag(model.params_["process_cov"]) > 0.0).all()


def test_rows_that_are_all_alike_have_the_prior_of_a_constant_model():
    y, prior = data(1), InverseWishart(4.0, [[1.5]])
    rows = sse.LinearGaussianSSM(**LEVEL, process_cov={"q": np.ones((T, 1, 1))}, process_prior=prior).fit(y)
    constant = sse.LinearGaussianSSM(**LEVEL, process_cov=[["q"]], process_prior=prior).fit(y)
    assert rows.log_prior() == pytest.approx(constant.log_prior(), rel=1e-6)
    assert rows.summary().loc["q", "value"].item() == pytest.approx(
        constant.summary().loc["q", "value"].item(), rel=1e-5
    )


@pytest.mark.parametrize(
    "cov", [[[{"q": np.linspace(1, 2, T)}]], [[np.where(LATE, "1 + q", "q")]], [[np.where(LATE, "2*q", "q")]]], ids=str
)
def test_priors_of_what_has_factors_are_refused(cov):
    with pytest.raises(ParameterError, match="process_prior is a prior on a process_cov as it stands in rows, but"):
        sse.LinearGaussianSSM(**LEVEL, process_cov=cov, process_prior=InverseWishart(4.0, [[1.5]])).fit(data(1))
