"""Two fits whose states are in a different order, matched by what they emit."""

import itertools

import numpy as np
import pytest
import xarray as xr
from hmm_cases import FAMILIES, case, parameters_of
from scipy import integrate, stats

import statespace_em as sse
from statespace_em.compare import match_states
from statespace_em.errors import ParameterError
from statespace_em.matching import matching_order, state_distances


def permuted(params, order):
    dims = [dim for dim in ("state", "next_state") if dim in params.dims]
    moved = params.isel({dim: list(order) for dim in dims})
    return moved.assign_coords(dict.fromkeys(dims, params["state"].values))


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_permutation_is_undone(kind):
    params = parameters_of(kind, 3, np.random.default_rng(3))[1]
    for order in itertools.permutations(range(3)):
        xr.testing.assert_identical(match_states(permuted(params, order), params), params)


def test_mixtures_are_matched_too():
    params = parameters_of("full", 3, np.random.default_rng(3))[1]
    weights = params.drop_vars(["initial", "transition"]).assign(weight=("state", np.array([0.2, 0.3, 0.5])))
    xr.testing.assert_identical(match_states(permuted(weights, [2, 0, 1]), weights), weights)


def test_the_names_of_the_reference_are_taken():
    params = sse.PoissonHMM(2).parameters(initial=[0.5, 0.5], transition=np.eye(2), rate=[[1.0], [9.0]])
    named = sse.PoissonHMM(["many", "few"]).parameters(initial=[0.5, 0.5], transition=np.eye(2), rate=[[8.0], [2.0]])
    matched = match_states(params, named)
    assert matched["rate"].sel(state="many").item() == 9.0
    assert matched["next_state"].values.tolist() == ["many", "few"]


def test_a_pair_is_given_up_for_the_sum():
    """State 0 is nearest to both, but the sum of the distances decides."""
    one = sse.PoissonHMM(2).parameters(initial=[0.5, 0.5], transition=np.eye(2), rate=[[4.0], [1.0]])
    other = sse.PoissonHMM(2).parameters(initial=[0.5, 0.5], transition=np.eye(2), rate=[[4.5], [9.0]])
    assert state_distances(one, other).argmin(0).tolist() == [0, 0]
    assert matching_order(one, other).tolist() == [1, 0]


def test_distances_by_quadrature():
    exact = {"rtol": 1e-9}
    one = sse.GaussianHMM(1).parameters(mean=[[0.3]], cov=[[[2.0]]])
    other = sse.GaussianHMM(1, "diagonal").parameters(mean=[[-1.0]], var=[[0.5]])
    overlap = integrate.quad(
        lambda x: np.sqrt(stats.norm(0.3, 2.0**0.5).pdf(x) * stats.norm(-1.0, 0.5**0.5).pdf(x)), -15, 15, epsabs=1e-14
    )[0]
    same = sse.GaussianHMM(1).parameters(mean=[[-1.0]], cov=[[[0.5]]])
    np.testing.assert_allclose(state_distances(one, same), -np.log(overlap), **exact)
    with pytest.raises(ParameterError, match="the emissions differ: one has 'cov', 'mean', the other 'mean', 'var'"):
        match_states(one, other)
    counts = np.arange(200)
    rates = [sse.PoissonHMM(1).parameters(rate=[[rate]]) for rate in (2.0, 7.0)]
    overlap = np.sqrt(stats.poisson(2.0).pmf(counts) * stats.poisson(7.0).pmf(counts)).sum()
    np.testing.assert_allclose(state_distances(*rates), -np.log(overlap), **exact)
    symbols = [sse.CategoricalHMM(1, symbols="ab").parameters(prob=[row]) for row in ([0.2, 0.8], [1.0, 0.0])]
    np.testing.assert_allclose(state_distances(*symbols), -np.log(np.sqrt(0.2)), **exact)


def test_distributions_without_overlap_can_be_matched():
    one = sse.CategoricalHMM(2, symbols="ab").parameters(prob=[[1.0, 0.0], [0.0, 1.0]])
    assert matching_order(permuted(one, [1, 0]), one).tolist() == [1, 0]


def test_an_unknown_family_is_matched_by_its_parameters():
    rng = np.random.default_rng(0)
    values = {"low": 100 + rng.normal(size=(4, 2)), "width": np.exp(5 * rng.normal(size=(4, 2)))}
    params = xr.Dataset({name: (("state", "feature"), value) for name, value in values.items()}, {"state": range(4)})
    near = params * (1 + 1e-3 * rng.normal())
    assert matching_order(permuted(near, [3, 1, 0, 2]), params).tolist() == [2, 1, 3, 0]


def test_what_cannot_be_matched_is_refused():
    two = case("poisson", 2, 5, 0)[1]
    with pytest.raises(ParameterError, match="one fit has 3 states, the other 2: states are matched one to one"):
        match_states(case("poisson", 3, 5, 0)[1], two)
    with pytest.raises(ParameterError, match=r"the features differ: one fit has 'a', 'b', the other 0, 1"):
        match_states(two.assign_coords(feature=["a", "b"]), two)
    with pytest.raises(ParameterError, match="pass the params_ of fitted models"):
        match_states(two["rate"], two)
    level = sse.LinearGaussianSSM(1).parameters(process_cov=[[1.0]])
    with pytest.raises(ParameterError, match="coordinates of a vector, not regimes"):
        match_states(level, level)
