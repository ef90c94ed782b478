"""What a fit must leave alone: frozen blocks to the bit, structural zeros at every iteration."""

import numpy as np
import pytest
from hmm_cases import FAMILIES, case, emission_of, model_of, rising, with_prior

import statespace_em as sse
from statespace_em.sequence.hmm_core import HMMCore


@pytest.mark.filterwarnings("ignore::statespace_em.errors.ConvergenceWarning")
@pytest.mark.parametrize("accelerate", [True, False])
@pytest.mark.parametrize("kind", FAMILIES)
def test_frozen_blocks_stay_and_the_rest_is_at_its_optimum(kind, accelerate):
    tolerance = 2e-4
    _, params, y = case(kind, 2, 150, 12, holes=True)
    own = [name for name in params.data_vars if name not in ("initial", "transition")]
    for freeze in [("transition",), ("initial",), tuple(own), *([(name,) for name in own] if len(own) > 1 else [])]:
        model = model_of(kind, 2).fit(y, start=params, freeze=freeze, accelerate=accelerate, max_iter=3000)
        for name in freeze:
            np.testing.assert_array_equal(model.params_[name], params[name])
        assert rising(model)
        assert model.status_ in ("converged", "max_iter")
        if model.status_ == "max_iter":
            continue
        free = [name for name in params.data_vars if name not in freeze and name != "initial"]
        assert any(not np.array_equal(model.params_[name], params[name]) for name in free)
        step = model.m_step(y, model.e_step(y), model.params_)
        for name in free if len(own) == 1 or set(freeze) not in [{name} for name in own] else ("transition",):
            np.testing.assert_allclose(step[name], model.params_[name], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("covariance", ["full", "tied", "diagonal", "spherical"])
def test_conditional_optimum_with_a_frozen_mean_or_covariance(covariance):
    """One state: the free half of the Gaussian has a closed form around the frozen half."""
    tolerance = 1e-4
    rng = np.random.default_rng(1)
    y = rng.normal(size=(60, 2)) @ np.array([[1.0, 0.4], [0.0, 0.7]]) + [1.0, -2.0]
    model = sse.GaussianHMM(1, covariance)
    emission = emission_of(covariance, 1, rng)
    start = model.parameters(initial=[1.0], transition=[[1.0]], **emission)
    spread = "cov" if "cov" in emission else "var"
    held = model.fit(y, start=start, freeze=("mean",)).params_[spread].values
    away = y - emission["mean"][0]
    scatter = away.T @ away / len(y)
    expected = {"full": scatter, "tied": scatter, "diagonal": np.diag(scatter), "spherical": np.trace(scatter) / 2}
    np.testing.assert_allclose(held.squeeze(), expected[covariance], rtol=tolerance)
    np.testing.assert_allclose(
        model.fit(y, start=start, freeze=(spread,)).params_["mean"][0], y.mean(0), rtol=tolerance
    )


@pytest.mark.parametrize("accelerate", [True, False])
@pytest.mark.parametrize("kind", FAMILIES)
def test_structural_zeros_stay_exactly_zero(kind, accelerate, monkeypatch):
    _, params, y = case(kind, 3, 120, 2, zeros=True)
    seen = []
    own = HMMCore.e_step
    monkeypatch.setattr(HMMCore, "e_step", lambda self, p, data: seen.append(p) or own(self, p, data))
    model = with_prior(kind, 3).fit(y, start=params, accelerate=accelerate)
    assert len(seen) > 5
    for tree in seen:
        np.testing.assert_array_equal(tree.initial == 0.0, params["initial"] == 0.0)
        assert tree.transition[0, 2] == 0.0
    assert model.params_["transition"][0, 2] == 0.0
