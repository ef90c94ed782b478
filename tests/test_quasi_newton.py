"""The ascent on a score: few evaluations, around walls, and never down; and which starts are worth one."""

import numpy as np
import pytest

import statespace_em as sse
from statespace_em import em
from statespace_em.boundary import shape_of
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


def shape_around(function, slope, worth=1e-8):
    """Shape of a function (gradient ``slope``) around 0."""
    return shape_of(lambda x: (function(x), slope(x)), slope(np.zeros(2)), worth)


def test_a_gain_along_what_hardly_curves_is_not_underestimated():
    """A slope of 1e-5 along a curvature of 2e-5, between third derivatives: 2.5e-6 nats, of which a floor made 5e-8."""
    turn = np.array([[0.6, 0.8], [-0.8, 0.6]])

    def slope(x):
        u, v = turn @ x
        return turn.T @ np.array([1e-5 - 2e-5 * u + 0.03 * u * u - 0.1 * v * v, -v - 0.2 * u * v])

    shape = shape_around(lambda x: 0.0, slope)
    assert shape.gain() == pytest.approx(2.5e-6, rel=0.2)
    step = shape.inverse() @ slope(np.zeros(2))
    np.testing.assert_allclose(turn @ step, [0.5, 0.0], rtol=0.2, atol=0.01)


def test_a_bent_valley_is_followed_where_a_straight_step_leads_down():
    """Along ``v = 2 u^2`` it rises by 1e-5 a unit; straight ahead it falls from a step of 0.01 on."""

    def height(x):
        return 1e-5 * x[0] - 0.5 * (x[1] - 2.0 * x[0] ** 2) ** 2

    def slope(x):
        across = x[1] - 2.0 * x[0] ** 2
        return np.array([1e-5 + 4.0 * x[0] * across, -across])

    shape = shape_around(height, slope)
    straight = [height(np.array([far, 0.0])) for far in (0.03, 0.1, 0.3, 1.0)]
    assert max(straight) < 1e-7
    way = shape.upward(lambda x: (height(x), slope(x)), 1e-7, 1e-8)
    assert height(way) > 1e-7


def test_curvature_is_told_from_the_round_off_of_gradients():
    """An error of 3e-5 in gradients makes some 0.3 of curvature over the shortest steps, and 0.003 over longer ones."""
    rng = np.random.default_rng(3)

    def slope(x):
        return -np.array([1.0, 0.5]) * x + 3e-5 * rng.normal(size=2) * (np.abs(x).max() > 0.0)

    bends = np.array([shape_around(lambda x: 0.0, slope).bend for _ in range(50)])
    assert np.median(np.abs(bends - [0.5, 1.0])) < 0.03


def test_round_off_is_no_decrease():
    """The Nile by two free states that start stationary: a likelihood known to 2e-7 nats was said to have fallen."""
    model = sse.LinearGaussianSSM(2, initial="stationary").fit(sse.datasets.nile())
    assert model.status_ == "converged"
    assert model.score(sse.datasets.nile()) > -638.7569280 - 1e-6
