"""The bootstrap of the likelihood ratio: exact under the null, sure of a second state where there is one."""

from typing import ClassVar

import numpy as np
import pytest

import statespace_em as sse
from statespace_em.compare import likelihood_ratio_bootstrap
from statespace_em.errors import DataError, ParameterError

FAST = {"n_starts": 2, "tol": 1e-3}


def fits(y, build=sse.PoissonHMM):
    return [build(k).fit(y, **FAST) for k in (1, 2)]


def test_a_second_state_is_found_where_it_is_and_not_where_it_is_not():
    quakes = sse.datasets.earthquakes()
    found = likelihood_ratio_bootstrap(*fits(quakes), quakes, n_replicates=19, fit=FAST)
    assert found["p_value"] == 1 / 20
    np.testing.assert_allclose(found["statistic"], 2 * (391.9189 - 341.8787), atol=1e-3)
    assert found["simulated"].dims == ("draw",)
    assert found["simulated"].max() < 20
    plain = np.random.default_rng(0).poisson(9.0, size=80)
    assert likelihood_ratio_bootstrap(*fits(plain), plain, n_replicates=19, fit=FAST)["p_value"] > 0.05


def test_draws_have_the_lengths_and_the_gaps_of_the_data():
    rng = np.random.default_rng(1)
    y = {"a": rng.normal(size=(40, 1)), "b": rng.normal(size=(25, 1))}
    y["a"][5] = np.nan
    build = lambda k: sse.Mixture(k, sse.emissions.Gaussian("tied"))  # noqa: E731
    one, two = fits(y, build)
    found = likelihood_ratio_bootstrap(one, two, y, n_replicates=9, seed=3, fit=FAST)
    again = likelihood_ratio_bootstrap(one, two, y, n_replicates=9, seed=3, fit=FAST)
    np.testing.assert_array_equal(found["simulated"], again["simulated"])
    assert (found["simulated"] > -1e-2).all()


class Remembers(sse.PoissonHMM):
    """What it was fitted to."""

    seen: ClassVar[list] = []

    def fit(self, y, **options):
        self.seen.append(y)
        return super().fit(y, **options)


def test_draws_have_gaps_where_the_data_have():
    quakes = sse.datasets.earthquakes().astype(float)[:40]
    quakes.iloc[[3, 20]] = np.nan
    one, two = fits(quakes, Remembers)
    Remembers.seen.clear()
    likelihood_ratio_bootstrap(one, two, quakes, n_replicates=2, fit=FAST)
    assert len(Remembers.seen) == 4
    for drawn in Remembers.seen:
        assert np.flatnonzero(drawn.isna().to_numpy()).tolist() == [3, 20]


def test_symbols_can_be_tested():
    y = np.random.default_rng(2).choice(list("ab"), size=40)
    found = likelihood_ratio_bootstrap(*fits(y, sse.CategoricalHMM), y, n_replicates=3, fit=FAST)
    assert 0.25 <= found["p_value"] <= 1.0


def test_what_cannot_be_tested_is_refused():
    quakes = sse.datasets.earthquakes()
    one, two = fits(quakes)
    with pytest.raises(ParameterError, match="the smaller model has 5 free parameters, the larger 1"):
        likelihood_ratio_bootstrap(two, one, quakes)
    with pytest.raises(ParameterError, match="n_replicates is 0, expected"):
        likelihood_ratio_bootstrap(one, two, quakes, n_replicates=0)
    with pytest.raises(DataError, match="fitted to other data"):
        likelihood_ratio_bootstrap(one, two, quakes[:50])
    heavy = sse.PoissonHMM(2).fit(quakes, weights=np.linspace(0.5, 1.5, len(quakes)), **FAST)
    with pytest.raises(DataError, match=r"model 'larger' .* with weights of rows.*: fit both to y alone, for draws"):
        likelihood_ratio_bootstrap(one, heavy, quakes)
    mixture = sse.Mixture(2, sse.emissions.Poisson()).fit(quakes, **FAST)
    with pytest.raises(ParameterError, match="'PoissonHMM' and 'Mixture' of different families"):
        likelihood_ratio_bootstrap(one, mixture, quakes)
