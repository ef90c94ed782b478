"""The ascent on a score: few evaluations, around walls, and never down; and which starts are worth one."""

import numpy as np
import pytest

import statespace_em as sse
from statespace_em import em
from statespace_em.quasi_newton import Point, ascend


class Valley:
    """Rosenbrock's valley upside down, with nothing to be computed beyond a wall; counts evaluations."""

    def __init__(self, wall=np.inf):
        self.wall, self.count = wall, 0

    def __call__(self, x):
        self.count += 1
        if x[1] > self.wall:
            return None
        a, b = x
        rise = np.array([400.0 * a * (b - a * a) + 2.0 * (1.0 - a), -200.0 * (b - a * a)])
        return Point(x, -100.0 * (b - a * a) ** 2 - (1.0 - a) ** 2, rise)


@pytest.mark.parametrize("start", [(-1.2, 1.0), (2.0, -1.0), (0.0, 0.0)])
def test_an_ascent_takes_few_evaluations_and_never_goes_down(start):
    valley, seen = Valley(), []
    first = valley(np.array(start))
    assert ascend(valley, first, tol=1e-12, on_step=seen.append)
    np.testing.assert_allclose(seen[-1].x, [1.0, 1.0], atol=1e-5)
    assert (np.diff([first.objective, *(point.objective for point in seen)]) > 0.0).all()
    assert valley.count < 80
    assert valley.count < 1.6 * len(seen) + 10


def test_an_ascent_ends_where_no_step_could_show_what_it_gains():
    """Next to a top the objective is what round-off leaves of it: searches for a higher point find noise."""
    top = Point(np.zeros(3), -645.9, np.array([2e-8, 6e-10, 4e-8]))
    assert ascend(lambda x: pytest.fail("nothing is left to gain"), top, tol=1e-8, on_step=pytest.fail)
    steep = top._replace(gradient=np.array([2e-3, 0.0, 0.0]))
    assert not ascend(lambda x: None, steep, tol=1e-8, on_step=pytest.fail)


def test_a_wall_is_climbed_along():
    """Where nothing can be computed beyond b = 0.5 the top is next to it: (0.7, 0.5)."""
    valley = Valley(wall=0.5)
    seen = [valley(np.array([-0.5, 0.2]))]
    ascend(valley, seen[0], tol=1e-10, on_step=seen.append, patience=200)
    assert all(point.x[1] <= 0.5 for point in seen)
    assert seen[-1].objective > -0.1


class Climbs:
    """Climbs without coordinates: where they lead, and how fast."""

    tops, rates = (0.0, 5.0, -50.0), (0.5, 0.93, 0.5)

    def e_step(self, params, data):
        number, steps = params
        return params, self.tops[number] - 20.0 * self.rates[number] ** steps

    def m_step(self, statistics, previous):
        return previous[0], previous[1] + 1

    def log_prior(self, params):
        return 0.0

    def to_vector(self, params, reference):
        return None

    def from_vector(self, vector, reference):
        return reference


def test_starts_that_may_still_come_as_far_as_the_best_are_not_left_behind():
    """The slow one passes the best in the end; the one that stands still far below is left."""
    options = {"n_polish": 1, "is_degenerate": lambda params, statistics: False, "accelerate": False, "short": 10}
    runs = em.run_starts(Climbs(), None, [(0, 0), (1, 0), (2, 0)], **options)
    assert [run.status for run in runs] == ["converged", "converged", "max_iter"]
    assert em.best_of(runs) == 1
    assert runs[2].n_steps == 10


def test_loadings_of_either_sign_are_tried():
    """Two factors with named loadings: the first starts agree on a top 4 nats below that of 24 others."""
    rng = np.random.default_rng(8)
    size, n_rows = int(rng.integers(3, 6)), int(rng.integers(15, 32))
    decay, loadings, factors = rng.uniform(-0.3, 0.9, 2), rng.normal(size=(size, 2)), np.zeros((n_rows, 2))
    for t in range(1, n_rows):
        factors[t] = decay * factors[t - 1] + rng.normal(size=2)
    y = np.round(0.7 * factors @ loadings.T + rng.normal(size=(n_rows, size)), 2)
    names = [[f"z{i}{j}" if j <= i else 0 for j in range(2)] for i in range(size)]
    model = sse.LinearGaussianSSM(
        transition=[["a", 0], [0, "b"]], process_cov=np.eye(2), observation=names, measurement_cov="diagonal",
        initial="stationary",
    ).fit(y)  # fmt: skip
    assert model.status_ == "converged"
    assert model.trace_["objective"].iloc[-1] > -154.8034301 - 1e-6


def test_many_rows_get_few_starts():
    y = np.random.default_rng(0).normal(size=10_001).cumsum()
    model = sse.LinearGaussianSSM(2, observation=[[1.0, 1.0]])
    with pytest.warns(sse.errors.ConvergenceWarning, match="stopped after 1 E-steps"):
        assert len(model.fit(y, max_iter=1).starts_) == 3
    with pytest.warns(sse.errors.ConvergenceWarning, match="stopped after 1 E-steps"):
        assert len(model.fit(y[:50], max_iter=1).starts_) == 12
