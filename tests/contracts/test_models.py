"""Models keep the contract of `check_model`, and broken ones fail it."""

import numpy as np
import pytest
from hmm_cases import FAMILIES, case, model_of, with_prior

import statespace_em as sse
from statespace_em.emissions import Poisson
from statespace_em.priors import Gamma
from statespace_em.testing import check_model


@pytest.mark.filterwarnings("ignore::statespace_em.errors.ConvergenceWarning")
@pytest.mark.parametrize("informed", [False, True])
@pytest.mark.parametrize("kind", FAMILIES)
def test_every_model_passes(kind, informed):
    y = case(kind, 2, 70, 4, holes=True)[2]
    hmm = with_prior(kind, 2) if informed else model_of(kind, 2)
    for model in (hmm, sse.Mixture(2, hmm._family(), weight_prior=hmm.initial_prior)):
        check_model(model.fit(y), y)


class OffByOne(sse.PoissonHMM):
    """xi pairs t with t - 1."""

    def e_step(self, y, params=None, *, xi="each"):
        posterior = super().e_step(y, params, xi=xi)
        return posterior.assign(xi=posterior["xi"].roll(year=1))


class Transposed(sse.PoissonHMM):
    def e_step(self, y, params=None, *, xi="each"):
        posterior = super().e_step(y, params, xi=xi)
        return posterior.assign(xi=posterior["xi"].copy(data=np.swapaxes(posterior["xi"].values, 1, 2)))


class Filled(sse.PoissonHMM):
    def e_step(self, y, params=None, *, xi="each"):
        posterior = super().e_step(y, params, xi=xi)
        return posterior.assign(xi=posterior["xi"].fillna(0.0))


class OwnsAnEarlierStep(sse.PoissonHMM):
    """Returns parameters one M-step beyond the last entry of the trace."""

    def fit(self, y, **options):
        super().fit(y, **options, max_iter=3, tol=0)
        self.params_ = self.m_step(y, self.e_step(y))
        return self


class Overshoots(sse.PoissonHMM):
    def m_step(self, y, posterior, params=None):
        new = super().m_step(y, posterior, params)
        return new.assign(rate=1.05 * new["rate"])


class Peeks(sse.PoissonHMM):
    def filter(self, y, params=None):
        known = super().filter(y, params)
        return known.assign(filtered=self.e_step(y, params)["gamma"])


class Improbable(sse.PoissonHMM):
    def decode(self, y, params=None):
        path = super().decode(y, params)
        return path.assign_coords(log_prob=path["log_prob"] + 50.0)


class Forgetful(sse.PoissonHMM):
    def get_params(self, deep=True):
        return {**super().get_params(deep), "order_by": None}


class Unnormalised(sse.Mixture):
    def e_step(self, y, params=None, *, xi="each"):
        posterior = super().e_step(y, params, xi=xi)
        return posterior.assign(gamma=1.01 * posterior["gamma"])


class HalfScore(sse.Mixture):
    def score(self, y, params=None):
        return super().score(y, params) + 1.0


MODELS = {
    OffByOne: "xi must be NaN at the last row",
    Transposed: "xi summed over next_state",
    Filled: "xi must be NaN",
    OwnsAnEarlierStep: "own the last entry",
    Overshoots: "EM step lowers",
    Peeks: "changes when later rows arrive",
    Improbable: "more probable than all paths",
    Forgetful: "get_params",
    Unnormalised: "sum to 1",
    HalfScore: "e_step and score",
}


@pytest.mark.parametrize("broken", MODELS)
def test_broken_model_fails(broken):
    y = sse.datasets.earthquakes()
    model = broken(2, Poisson()) if issubclass(broken, sse.Mixture) else broken(2)
    model.fit(y)
    with pytest.raises(AssertionError, match=MODELS[broken]):
        check_model(model, y)


def test_a_trace_that_decreases_fails():
    y = sse.datasets.earthquakes()
    model = sse.PoissonHMM(2).fit(y)
    model.trace_.iloc[0] = model.trace_["objective"].max() + 1.0
    with pytest.raises(AssertionError, match="trace decreases"):
        check_model(model, y)


@pytest.mark.filterwarnings("ignore::statespace_em.errors.LocalOptimumWarning")  # counts are not Gaussian
@pytest.mark.parametrize(
    "model", [sse.PoissonHMM(2, prior=Gamma(2.0, 0.1)), sse.Mixture(3, Poisson()), sse.GaussianHMM(2, "diagonal")]
)
def test_honest_models_pass(model):
    y = sse.datasets.earthquakes()
    check_model(model.fit(y), y)
