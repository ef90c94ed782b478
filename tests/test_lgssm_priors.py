"""Matrix-normal priors on the coefficients of a linear-Gaussian model: densities, M-steps, and EM under them."""

import numpy as np
import pytest
from lgssm_cases import em_steps, score_and_slopes
from scipy.stats import matrix_normal
from test_inputs import HORIZON, data, set_up

import statespace_em as sse
from statespace_em.errors import ParameterError
from statespace_em.priors import InverseWishart, MatrixNormal

NOISES = {"process_prior": InverseWishart(5.0, 2.0), "measurement_prior": InverseWishart(4.0, 0.5)}
WEIGHT = np.array([[2.0, 0.3, 0.0, 0.1], [0.3, 1.0, 0.0, 0.0], [0.0, 0.0, 3.0, 0.5], [0.1, 0.0, 0.5, 1.5]])
CASES = {
    "all free": {
        "states": 2, "transition": "free", "observation": "free", "transition_prior": MatrixNormal(0.7, WEIGHT),
        "observation_prior": MatrixNormal(np.arange(12.0).reshape(3, 4) / 9, (1.0, 2.0, 0.5, 0.0)),
    },
    "offsets": {
        "states": 2, "transition": "free", "observation": "free", "state_offset": "free", "observation_offset": "free",
        "transition_prior": MatrixNormal(1.0, (3.0, 3.0, 0.0, 1.0, 1.0)), "observation_prior": MatrixNormal(0.0, 0.3),
    },
    "patterned": {
        "transition": [["a", 0.2], ["b", "a"]], "transition_prior": MatrixNormal(0.5, 4.0),
        "observation_prior": MatrixNormal(1.0, 2.0),
    },
    "loadings": {
        "transition": [["a", "b"], ["0.5*a", "0.2 + 0.5*b"]], "process_loading": [[1.0], [0.5]],
        "state_input": [["c", "d"], ["0.5*c", "0.5*d"]], "transition_prior": MatrixNormal(0.2, 1.0),
    },
}  # fmt: skip


@pytest.mark.parametrize("start", ["known", "diffuse"])
@pytest.mark.parametrize("case", CASES)
def test_score_is_the_gradient_and_em_climbs(case, start):
    core, batch, point = set_up("free on both sides", start, **{**NOISES, **CASES[case]})
    score, slopes = score_and_slopes(core, batch, point)
    assert slopes == pytest.approx(score, rel=2e-6, abs=2e-6)
    trace, _ = em_steps(core, batch, point, 40)
    assert (np.diff(trace) >= -1e-10 * np.abs(trace[1:])).all()


def test_density_is_that_of_scipy():
    """Differences between parameters: the constant is left out."""
    core, _, point = set_up("free on both sides", "known", **CASES["all free"])
    vector = core.to_vector(point, point)
    found, expected = [], []
    for seed in range(2):
        p = core.from_vector(vector + 0.2 * np.random.default_rng(seed).normal(size=vector.size), point)
        found.append(core.log_prior(p))
        state, rows = np.hstack([p.transition, p.state_input]), np.hstack([p.observation, p.observation_input])[:, :3]
        mean = np.arange(12.0).reshape(3, 4)[:, :3] / 9
        expected.append(
            matrix_normal.logpdf(state, 0.7 * np.eye(2, 4), p.process_cov, np.linalg.inv(WEIGHT))
            + matrix_normal.logpdf(rows, mean, p.measurement_cov, np.diag([1.0, 0.5, 2.0]))
        )
    assert found[0] - found[1] == pytest.approx(expected[0] - expected[1], rel=1e-9)


def test_observed_states_are_a_conjugate_regression():
    """Without measurement noise the model is a vector autoregression: the mode of its posterior in closed form."""
    rng = np.random.default_rng(2)
    y, mean = np.zeros((60, 2)), np.eye(2)
    for t in range(1, 60):
        y[t] = [[0.6, 0.2], [0.0, 0.8]] @ y[t - 1] + rng.normal(size=2)
    scale, weight = np.diag([1.5, 0.7]), np.diag([5.0, 20.0])
    model = sse.LinearGaussianSSM(
        observation=np.eye(2), measurement_cov=np.zeros((2, 2)), initial="known", initial_mean=y[0],
        initial_cov=np.eye(2), process_prior=InverseWishart(6.0, scale), transition_prior=MatrixNormal(mean, weight),
    )  # fmt: skip
    model.fit(y)
    X, Y = y[:-1], y[1:]
    A = (Y.T @ X + mean @ weight) @ np.linalg.inv(X.T @ X + weight)
    away, rest = A - mean, Y - X @ A.T
    Q = (scale + rest.T @ rest + away @ weight @ away.T) / (6.0 + 2 + 1 + 59 + 2)
    np.testing.assert_allclose(model.params_.transition, A, rtol=1e-7)
    np.testing.assert_allclose(model.params_.process_cov, Q, rtol=1e-7)
    model.fit(y, accelerate=False)
    np.testing.assert_allclose(model.params_.transition, A, rtol=1e-7)


def test_priors_are_saved_and_wrong_ones_refused(tmp_path):
    y, U = data(rows=40)
    prior = MatrixNormal(np.eye(2), (1.0, 2.0))
    model = sse.LinearGaussianSSM(2, transition_prior=prior, observation=[[1, 0], [0.4, 1], [0.2, -0.7]])
    model.fit(y).save(tmp_path / "model.nc")
    again = sse.LinearGaussianSSM.load(tmp_path / "model.nc")
    assert again.transition_prior == prior
    assert again.log_prior() == model.log_prior()
    assert MatrixNormal().is_flat
    assert len(U) == len(y) + HORIZON
    for call, message in [
        (lambda: MatrixNormal(precision=-1.0), "precision is -1"),
        (lambda: MatrixNormal(precision=[[1, 2], [3, 4]]), "expected a symmetric matrix"),
        (lambda: MatrixNormal(precision=[[1, 2], [2, 1]]), "precision has a negative eigenvalue"),
        (lambda: model.set_params(transition_prior=MatrixNormal(0, (1, 2, 3))).fit(y), "is for 3 columns, expected 2"),
        (
            lambda: model.set_params(transition_prior=MatrixNormal(np.eye(3), 1)).fit(y),
            r"expected \(2, 2\) or a number",
        ),
    ]:
        with pytest.raises(ParameterError, match=message):
            call()


@pytest.mark.parametrize("name", ["transition_prior", "observation_prior"])
def test_priors_of_coefficients_of_another_shape_are_named(name):
    y = np.random.default_rng(0).normal(size=40).cumsum()
    for prior, match in (
        (
            MatrixNormal(np.zeros((2, 2)), 1.0),
            r"the mean of the prior of coefficients has shape \(2, 2\), expected \(1, 1\)",
        ),
        (MatrixNormal(0.0, np.eye(3)), "the precision of the prior of coefficients is for 3 columns, expected 1"),
    ):
        with pytest.raises(ParameterError, match=f"^{name}: {match}"):
            sse.LinearGaussianSSM(1, **{name: prior}).fit(y)
