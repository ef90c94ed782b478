"""Single parameters that states share: equal variances at different means, equal means, and what goes with them."""

from itertools import combinations

import numpy as np
import pytest
from hmm_cases import case, holes_in, model_of, rising, with_prior

import statespace_em as sse
from statespace_em.emissions.coordinates import EmissionCoordinates
from statespace_em.emissions.evaluate import (
    family_statistics,
)
from statespace_em.emissions.sharing import groups_of
from statespace_em.errors import ParameterError

pytestmark = pytest.mark.filterwarnings(
    "ignore::statespace_em.errors.LocalOptimumWarning", "ignore::statespace_em.errors.ConvergenceWarning"
)
NAMES = ["a", "b", "c"]
KINDS = ["full", "diagonal", "spherical"]
SHARED = [
    {"mean": "all"},
    {"mean": [["a", "b"]]},
    {"spread": "all"},
    {"spread": [["b", "c"]]},
    {"mean": [["a", "b"]], "spread": [["b", "c"]]},
    {"mean": {"a": 1, "b": 1, "c": 2}, "spread": [["a", "b"]]},
]


def close(left, right, tolerance=1e-12):
    np.testing.assert_allclose(left, right, rtol=tolerance, atol=tolerance)


def named(tie, kind):
    return {("cov" if kind == "full" else "var") if name == "spread" else name: own for name, own in tie.items()}


def tied_model(kind, tie, informed=False, **settings):
    plain = with_prior(kind, 3) if informed else model_of(kind, 3)
    return plain.set_params(states=NAMES, tie=named(tie, kind), **settings)


def data(kind, n_rows=120, holes=False):
    rng = np.random.default_rng(2)
    state = np.repeat([0, 1, 2, 1, 0, 2], n_rows // 6)
    y = np.array([0.0, 1.5, 4.0])[state][:, None] + np.array([0.5, 1.0, 2.0])[state][:, None] * rng.normal(
        size=(n_rows, 2)
    )
    return holes_in(y, rng) if holes else y


@pytest.mark.parametrize("informed", [False, True])
@pytest.mark.parametrize("tie", SHARED)
@pytest.mark.parametrize("kind", KINDS)
def test_the_m_step_is_the_maximum(kind, tie, informed):
    """Of the weighted log density of the rows plus log prior, which know nothing of statistics: no slope is left."""
    model = tied_model(kind, tie, informed)
    family = model._core().family
    rng = np.random.default_rng(0)
    y = data(kind)
    groups = model._core().groups
    weights = rng.dirichlet(np.ones(3), len(y)) @ (np.eye(3) if groups is None else np.eye(groups.max() + 1)[groups])
    params = None
    for _ in range(2):  # the second is around the means of the first
        params = family.m_step(family_statistics(family, params, y, weights), params)
    for name in family.dims:
        own = groups_of(family, name)
        for i, j in combinations(range(weights.shape[1]), 2):
            if own is not None and own[i] == own[j]:
                np.testing.assert_array_equal(getattr(params, name)[i], getattr(params, name)[j])
    coordinates = EmissionCoordinates(family)
    centre = coordinates.to_vector(params, params)
    assert len(centre) == coordinates.n_free(params)
    slope = coordinates.differences(params, y, weights, params)
    step = 1e-5
    for i in range(len(centre)):
        move = step * np.eye(len(centre))[i]
        sides = [coordinates.from_vector(side, params) for side in (centre + move, centre - move)]
        slope[i] += (family.log_prior(sides[0]) - family.log_prior(sides[1])) / (2.0 * step)
    close(slope, 0.0, 2e-5)


@pytest.mark.filterwarnings("ignore::statespace_em.errors.ConvergenceWarning")
@pytest.mark.parametrize("accelerate", [True, False])
@pytest.mark.parametrize("tie", SHARED)
@pytest.mark.parametrize("kind", KINDS)
def test_em_climbs_and_what_is_shared_is_equal(kind, tie, accelerate):
    y = data(kind, holes=True)
    informed = tie in SHARED[::2]
    model = tied_model(kind, tie, informed).fit(y, n_starts=2, max_iter=80, accelerate=accelerate)
    assert rising(model)
    assert len(model.trace_) > 5
    for name, states in named(tie, kind).items():
        groups = {"all": [[0, 1, 2]], "{": None}.get(states if isinstance(states, str) else "")
        if groups is None:
            groups = [[0, 1]] if isinstance(states, dict) else [[NAMES.index(s) for s in group] for group in states]
        for group in groups:
            for k in group[1:]:
                np.testing.assert_array_equal(model.params_[name][k], model.params_[name][group[0]])


@pytest.mark.parametrize(
    ("tie", "expected"),
    [
        ({"mean": "all"}, 2 + 9),
        ({"cov": "all"}, 6 + 3),
        ({"cov": [["b", "c"]]}, 6 + 6),
        ({"mean": [["a", "b"]]}, 4 + 9),
    ],
)
def test_free_parameters_are_counted_once(tie, expected):
    y = data("full")
    model = sse.GaussianHMM(NAMES, tie=tie).fit(y, n_starts=4, max_iter=20, tol=0)
    assert model.n_parameters_ == 2 + 6 + expected


def test_one_covariance_for_all_is_the_tied_model():
    y = data("full", holes=True)
    prior = sse.priors.NormalInverseWishart(dof=6.0, scale=0.5, mean=0.3, strength=2.0)
    shared = sse.GaussianHMM(NAMES, "full", tie={"cov": "all"}, prior=prior, order_by="mean").fit(y)
    tied = sse.GaussianHMM(NAMES, "tied", prior=prior, order_by="mean").fit(y)
    close(shared.score(y), tied.score(y), 1e-9)
    close(shared.log_prior(), tied.log_prior(), 1e-6)
    assert shared.n_parameters_ == tied.n_parameters_
    for name in ("mean", "transition"):
        close(shared.params_[name], tied.params_[name], 1e-5)
    errors, expected = shared.standard_errors(y), tied.standard_errors(y)
    for name in ("mean", "transition"):
        close(errors[name], expected[name], 1e-4)
    for k in range(3):
        close(errors["cov"][k], expected["cov"], 1e-4)


def test_all_parameters_shared_is_the_emission_shared():
    y = data("diagonal")
    ties = [["a", "b"]], {"mean": [["a", "b"]], "var": [["a", "b"]]}
    whole, each = (sse.GaussianHMM(NAMES, "diagonal", tie=tie).fit(y, max_iter=20, tol=0) for tie in ties)
    assert each.params_.equals(whole.params_)
    rate = case("poisson", 3, 90, 1)[2]
    one, other = (sse.PoissonHMM(NAMES, tie=t).fit(rate, n_starts=2) for t in ([["a", "c"]], {"rate": [["a", "c"]]}))
    assert one.params_.equals(other.params_)


def test_the_weight_of_a_shared_mean_is_the_precision():
    """States known, variances frozen: the textbook weighted mean."""
    y = np.array([0.0, 2.0, 10.0, 14.0, 12.0])
    states = ["a", "a", "b", "b", "b"]
    model = sse.GaussianHMM(["a", "b"], "diagonal", tie={"mean": "all"}, initial="uniform")
    start = model.parameters(
        initial=[0.5, 0.5], transition=[[0.5, 0.5], [0.5, 0.5]], mean=[[1.0], [1.0]], var=[[2.0], [0.5]]
    )
    fit = model.fit(y, states=states, start=start, freeze=["var"], tol=0, max_iter=5, accelerate=False)
    close(fit.params_["mean"].values.ravel(), (2 / 2.0 * 1.0 + 3 / 0.5 * 12.0) / (2 / 2.0 + 3 / 0.5))


def test_standard_errors_are_those_of_the_whole_hessian():
    y = 100 * sse.datasets.stocks()["log_return"]["IBM"]["2007":"2010"]
    model = sse.GaussianHMM(["calm", "wild"], "diagonal", tie={"mean": "all"}, initial="uniform").fit(y)
    errors = model.standard_errors(y)
    top = model.params_
    names, steps = ["mean", "v0", "v1", "p", "q"], np.array([1e-3, 1e-3, 1e-2, 1e-4, 1e-4])

    def score(moved):
        mean, v0, v1, p, q = dict(zip(names, moved)).values()
        params = top.copy(deep=True)
        params["mean"].values[:] = top["mean"].values + mean
        params["var"].values[:, 0] = top["var"].values[:, 0] + [v0, v1]
        params["transition"].values[:] = top["transition"].values + np.array([[-p, p], [q, -q]])
        return model.score(y, params)

    hessian = np.empty((5, 5))
    for i, j in np.ndindex(5, 5):
        a, b = steps[i] * np.eye(5)[i], steps[j] * np.eye(5)[j]
        hessian[i, j] = (score(a + b) - score(a - b) - score(b - a) + score(-a - b)) / (4 * steps[i] * steps[j])
    expected = np.sqrt(np.diag(np.linalg.inv(-hessian)))
    close(errors["mean"].values.ravel(), expected[0], 1e-3)
    np.testing.assert_allclose(errors["var"].values.ravel(), expected[1:3], rtol=1e-3)
    np.testing.assert_allclose(errors["transition"].values[[0, 1], [1, 0]], expected[3:], rtol=1e-3)


def test_the_order_of_states_keeps_what_they_share():
    y = data("full")
    model = sse.GaussianHMM(NAMES, "diagonal", tie={"mean": [["a", "b"]]}, order_by="variance").fit(y, n_starts=3)
    assert model.params_["mean"].values[0, 0] == model.params_["mean"].values[1, 0]
    drawn = model.bootstrap(y, n_replicates=3)
    np.testing.assert_array_equal(drawn["mean"].sel(state="a"), drawn["mean"].sel(state="b"))


def test_walks_keep_the_structure():
    """Alignment of states between refits must not contradict what is fixed or shared."""
    y = data("diagonal")[:, 0]
    for settings in ({"tie": {"mean": [["a", "b"]]}}, {"transition": "left-right"}):
        model = sse.GaussianHMM(NAMES, "diagonal", order_by=None, **settings)
        walk = sse.walk_forward(model, y, refit=20, min_train=60, fit={"n_starts": 3, "tol": 1e-3})
        assert np.isfinite(walk["log_score"]).all()


def test_ties_are_saved(tmp_path):
    model = sse.GaussianHMM(NAMES, "diagonal", tie={"var": "all"}).fit(data("diagonal"), n_starts=1)
    model.save(tmp_path / "model.nc")
    again = sse.GaussianHMM.load(tmp_path / "model.nc")
    assert again.tie == {"var": "all"}
    assert again.fit(data("diagonal"), n_starts=1).params_.equals(model.params_)


class Opaque:
    """A family of two parameters that says nothing of ties."""

    support = "real"
    dims = {"mean": ("state", "feature"), "var": ("state", "feature")}
    log_prob = statistics = m_step = log_prior = sample = marginals = None


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: sse.GaussianHMM(NAMES, tie={"sigma": "all"}), "'sigma', which is neither a state nor a parameter"),
        (lambda: sse.GaussianHMM(NAMES, tie={"transition": "all"}), "fixed by transition= and initial="),
        (lambda: sse.GaussianHMM(NAMES, "tied", tie={"cov": "all"}), "'cov', of which there is one for all states"),
        (lambda: sse.GaussianHMM(NAMES, tie={"mean": [["a", "z"]]}), "tie of mean names 'z', which is not a state"),
        (lambda: sse.GaussianHMM(NAMES, tie={"mean": [["a", "b"], ["b"]]}), "tie of mean names 'b' twice"),
        (lambda: sse.GaussianHMM(NAMES, tie={"mean": "some"}), "tie of mean is 'some', expected a list of groups"),
        (lambda: sse.HMM(NAMES, Opaque(), tie={"mean": "all"}), "tie shares 'mean' alone, but Opaque estimates"),
    ],
)
def test_ties_that_cannot_be(model, message):
    with pytest.raises(ParameterError, match=message):
        model().fit(data("full"))


def test_parameters_that_contradict_a_tie():
    model = sse.GaussianHMM(NAMES, "diagonal", tie={"var": [["a", "c"]]})
    params = model.parameters(
        initial=[1, 0, 0], transition=np.full((3, 3), 1 / 3), mean=[[0.0], [1.0], [2.0]], var=[[1.0], [1.0], [1.0]]
    )
    assert np.isfinite(model.score([0.0, 1.0], params))
    params["var"].values[2] = 2.0
    with pytest.raises(
        ParameterError, match=r"var of states 'a' and 'c' differ, .* share it: give them the same value"
    ):
        model.score([0.0, 1.0], params)
