"""Likelihoods without bound: climbed by hand, found by a fit, said with the reason, and cured by what is advised."""

import warnings

import numpy as np
import pytest

import statespace_em as sse
from statespace_em.em import EMResult, Step
from statespace_em.errors import ConvergenceWarning
from statespace_em.fitting import outdone
from statespace_em.sequence.lgssm_resolution import resolution


def series(n: int, size: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    states, A = np.zeros((n, 2)), np.array([[0.8, 0.2], [-0.3, 0.6]])
    for t in range(1, n):
        states[t] = A @ states[t - 1] + rng.normal(size=2)
    return states @ rng.normal(size=(size, 2)).T + 0.7 * rng.normal(size=(n, size))


ONE, TWO = series(60, 1, 1), series(60, 2, 2)


@pytest.mark.parametrize("initial", ["estimated", "tied"])
def test_a_free_first_mean_beside_noise_that_does_not_show_at_once_has_no_bound(initial):
    """Q = q q' with C q = 0: the first row has only the measurement noise, later ones have C A Q A' C' besides."""
    model = sse.LinearGaussianSSM(2, observation=[[1, 0]], initial=initial)
    at = {"transition": [[0.5, 1.0], [0.0, 0.5]], "process_cov": [[0, 0], [0, 1]], "observation": [[1, 0]],
          "initial_mean": [ONE[0, 0], 0.0], "initial_cov": [[0, 0], [0, 1]]}  # fmt: skip
    small = [model.score(ONE, model.parameters(**at, measurement_cov=[[r]])) for r in (1e-6, 1e-16, 1e-26, 1e-66)]
    assert np.diff(small)[1] == pytest.approx(5.0 * np.log(10.0), abs=1e-3)  # of 1e-10: half its logarithm a row
    assert small[-1] - small[0] > 60.0


def test_a_first_state_that_is_fixed_has_no_bound():
    model = sse.LinearGaussianSSM(1, observation=[[1]], initial="fixed")
    at = {
        "transition": [[0.5]],
        "process_cov": [[1]],
        "observation": [[1]],
        "initial_mean": ONE[0],
        "initial_cov": [[0]],
    }
    small = [model.score(ONE, model.parameters(**at, measurement_cov=[[r]])) for r in (1e-6, 1e-16, 1e-26)]
    assert np.diff(small)[1] == pytest.approx(5.0 * np.log(10.0), abs=1e-3)


def test_units_that_dynamics_can_change_have_no_bound():
    """Noise of the states counts for little where their units are large; a diffuse start gains their logarithm."""
    model = sse.LinearGaussianSSM(2, observation=[[1, 0]], process_cov=np.eye(2), initial="diffuse")
    known = {"process_cov": np.eye(2), "observation": [[1, 0]], "measurement_cov": [[1]],
             "initial_mean": [0, 0], "initial_cov": np.diag([np.inf, np.inf])}  # fmt: skip
    small = [
        model.score(ONE, model.parameters(**known, transition=[[0.5, a], [0.0, 0.9]])) for a in (1e-6, 1e-16, 1e-26)
    ]
    assert np.diff(small)[1] == pytest.approx(10.0 * np.log(10.0), abs=1e-3)


BEGINS = r"the mean of the first state is free, and one series says nothing else of where it begins"
UNITS = r"units of 0, 1 are free, and a diffuse start is measured in them"
FIRST = r"a first state that is fixed but unknown explains the first row exactly"
BLANK = r"a sequence begins with a row that has no entry.* Leave out the rows before the first"
CASES = {
    "one column": (2, {"observation": [[1, 0]]}, ONE, BEGINS),
    "all free": (2, {}, ONE, BEGINS),
    "diagonal noise": (2, {"observation": [[1, 0]], "process_cov": "diagonal"}, ONE, BEGINS),
    "free covariance": (1, {"initial": "free"}, ONE, BEGINS),
    "free covariance, two columns": (1, {"initial": "free"}, TWO, BEGINS),
    "fixed": (1, {"initial": "fixed"}, ONE, FIRST),
    "fixed, two columns": (1, {"initial": "fixed"}, TWO, FIRST),
    "diffuse": (2, {"initial": "diffuse"}, TWO, UNITS),
    "diffuse, noise of one size": (
        2, {"initial": "diffuse", "observation": [[1, 0]], "process_cov": "scalar", "measurement_cov": "scalar"},
        ONE, UNITS,
    ),
    "diffuse, told through the dynamics": (
        1, {"initial": "diffuse", "observation": [[1]]},
        np.concatenate([[np.nan], np.random.default_rng(1).normal(size=59)]), BLANK,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_reason_is_said_and_what_is_advised_helps(case):
    n, pieces, y, said = CASES[case]
    with pytest.warns(ConvergenceWarning, match=f"the likelihood (has no|grows without) bound: {said}") as told:
        model = sse.LinearGaussianSSM(n, **pieces).fit(y)
    assert {w.category for w in told} == {ConvergenceWarning}
    assert model.status_ == "degenerate"
    message = str(told[0].message)
    cures = []
    if 'initial="stationary"' in message:
        cures.append({**pieces, "initial": "stationary"})
    if 'likelihood="marginal"' in message:
        cures.append({**pieces, "initial": "diffuse", "likelihood": "marginal"})
    if "InverseWishart" in message:
        prior = message[message.index("InverseWishart(") :].rstrip(".")[:-1]
        cures.append({**pieces, "measurement_prior": eval(prior, {"InverseWishart": sse.priors.InverseWishart})})
    assert len(cures) == 2
    for cured in cures:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", sse.errors.LocalOptimumWarning)
            found = sse.LinearGaussianSSM(n, **cured).fit(y, n_starts=3)
        assert found.status_ == "converged"


@pytest.mark.parametrize(
    ("n", "pieces", "y"),
    [
        (1, {}, ONE),
        (1, {}, TWO),
        (1, {"initial": "stationary"}, TWO),
        (1, {"initial": "diffuse", "observation": [[1], [1]]}, TWO),
        (1, {"initial": "fixed", "measurement_cov": "scalar"}, TWO),
        (2, {"transition": "diagonal", "process_cov": "diagonal", "observation": [[1, 1]]}, ONE),
        (2, {"measurement_cov": [[0.5]], "observation": [[1, 0]]}, ONE),
        (2, {"initial": "stationary", "observation": [[1, 0]]}, ONE),
        (2, {"observation": np.eye(2), "process_cov": "scalar", "measurement_cov": "scalar"}, TWO),
        (2, {"initial": "diffuse", "observation": np.eye(2)}, TWO),
        (1, {"initial": "diffuse", "observation": [[1]]}, np.random.default_rng(1).normal(size=59)),
    ],
)
def test_bounded_likelihoods_have_a_top(n, pieces, y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sse.errors.LocalOptimumWarning)
        found = sse.LinearGaussianSSM(n, **pieces).fit(y, n_starts=3)
    assert found.status_ == "converged"


def test_a_run_without_a_top_does_not_stand_for_those_that_went_higher_without_end():
    def ended(status, objective):
        return EMResult(None, None, (Step(1, objective, 0.0),), status, 1)

    low, top, endless, slow = (
        ended(*end) for end in (("converged", 1.0), ("converged", 2.0), ("degenerate", 5.0), ("max_iter", 6.0))
    )
    assert outdone([low, endless, slow], 2) == 1
    assert outdone([endless, slow, ended("degenerate", 5.5)], 1) == 2
    assert outdone([low, ended("degenerate", 0.5), slow], 2) == 2  # what has no end is below a top
    assert outdone([ended("decreased", 1.0), endless], 0) == 1
    assert outdone([low, top, endless], 1) == 1  # a top is what one wants
    with pytest.warns(ConvergenceWarning, match=BEGINS):
        assert sse.LinearGaussianSSM(3).fit(ONE).status_ == "degenerate"


def test_a_climb_that_may_not_end_is_not_told_to_go_on_only():
    with pytest.warns(ConvergenceWarning, match=f"raise max_iter.*A climb may not end: the likelihood.*{BEGINS}"):
        sse.LinearGaussianSSM(2, observation=[[1, 0]]).fit(ONE, n_starts=1, max_iter=5)
    with pytest.warns(ConvergenceWarning, match=r"raise max_iter, or loosen tol=1e-08\.$"):
        sse.LinearGaussianSSM(1).fit(ONE, n_starts=1, max_iter=5)


def test_a_climb_on_data_without_error_says_so_wherever_it_stops():
    with pytest.warns(ConvergenceWarning, match="A climb may not end: .* y follows its own past without error"):
        sse.LinearGaussianSSM(2).fit(2.0 + 0.5 * np.arange(40.0), n_starts=1, max_iter=3)


def test_the_prior_that_is_advised_has_no_density_where_round_off_makes_a_covariance_indefinite():
    """Its log density there was 1e15, and fits ended there."""
    prior, direction = sse.priors.InverseWishart(dof=4, scale=0.03), np.array([[0.6], [0.8000000001]])
    flat = direction @ direction.T
    flat[0, 0] -= 1e-16
    with pytest.raises(sse.errors.ParameterError, match="no density at a singular covariance"):
        prior.log_density(flat)
    model = sse.LinearGaussianSSM(1, measurement_prior=prior).fit(TWO)
    assert model.status_ == "converged"
    assert model.log_prior() < 100.0


# what arithmetic tells of a likelihood


def test_round_off_beside_noise_fixed_at_next_to_nothing_is_no_decrease():
    """Residuals of 1e6 times their fixed noise: the log-likelihood of -1e7 is told to 1e-3 nats, and no better."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        warnings.simplefilter("ignore", sse.errors.LocalOptimumWarning)
        model = sse.LinearGaussianSSM(1, measurement_cov=1e-6 * np.eye(2)).fit(TWO, n_starts=3)
    assert model.status_ == "converged"


@pytest.mark.parametrize("level", [0.0, 1e3, 1e6, 1e9])
def test_the_resolution_is_what_the_likelihood_scatters_by_when_data_move(level):
    """Of a model that knows where it begins, so that data stay where they are."""
    model = sse.LinearGaussianSSM(
        transition=[[1]], process_cov="free", observation=[[1]], measurement_cov="free", initial="known"
    )
    walk = np.cumsum(np.round(8.0 * series(400, 1, 3)) / 8.0, axis=0)
    first = model.parameters(
        transition=[[1]], process_cov=[[1.5]], observation=[[1]], measurement_cov=[[0.7]], initial_mean=[level],
        initial_cov=[[1]],
    )  # fmt: skip
    core, tree, batch, *_ = model._prepare(walk + level, first)
    said = resolution(tree, core.e_step(tree, batch)[0])
    exact = model.score(walk, first.assign(initial_mean=("state", [0.0])))
    assert abs(model.score(walk + level, first) - exact) <= max(3.0 * said, 1e-10)
    assert said < 1e-13 * (level + 1e3) * 20.0 * 4.0


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize(
    "y", [2.0 + 0.5 * np.arange(40.0), 1.05 ** np.arange(40.0), np.resize([0.0, 1.0], 40), np.eye(40)[7]],
    ids=["line", "power", "two values in turn", "spike"],
)  # fmt: skip
def test_data_that_are_hardly_any_end_without_words_of_other_libraries(n, y):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        sse.LinearGaussianSSM(n).fit(y, n_starts=3)
    assert {w.category.__module__ for w in told} <= {"statespace_em.errors"}


def test_a_true_decrease_is_still_one():
    class Falls:
        """A model whose M-step leads down by more than its resolution."""

        def e_step(self, params, data):
            return params, -float(params)

        def m_step(self, statistics, previous):
            return previous + 1e-3

        def log_prior(self, params):
            return 0.0

        def to_vector(self, params, reference):
            return None

        def from_vector(self, vector, reference):
            return vector

        def resolution(self, params, statistics):
            return 1e-4

    from statespace_em import em

    assert em.run_em(Falls(), None, 0.0).status == "decreased"
    Falls.resolution = lambda self, params, statistics: 1e-2
    assert em.run_em(Falls(), None, 0.0).status == "converged"
