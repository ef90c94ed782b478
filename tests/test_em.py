"""The EM engine: what a fit returns, that it climbs, where it stops, and what it leaves alone."""

import re
import warnings
from functools import partial

import numpy as np
import pytest
from hmm_cases import FAMILIES, case, model_of, rising, with_prior
from hypothesis import given, settings
from hypothesis import strategies as st

import statespace_em as sse
from statespace_em import em, fitting
from statespace_em.domains import lifted
from statespace_em.errors import ConvergenceWarning, ImpossibleObservationError, ParameterError
from statespace_em.mixing import Anderson
from statespace_em.sequence.hmm_core import HMMCore


def objective_of(model, y):
    return model.score(y) + model.log_prior()


@pytest.mark.filterwarnings("ignore::statespace_em.errors.ConvergenceWarning")
@pytest.mark.parametrize("accelerate", [True, False])
@pytest.mark.parametrize("informed", [False, True])
@pytest.mark.parametrize("kind", FAMILIES)
@given(seed=st.integers(0, 10**6))
@settings(max_examples=4, deadline=None)
def test_fits_climb_and_own_their_last_step(kind, informed, accelerate, seed):
    _, params, y = case(kind, 2, 60, seed, holes=True, zeros=bool(seed % 2))
    model = with_prior(kind, 2) if informed else model_of(kind, 2)
    for max_iter in (7, 60):
        model.fit(y, start=params, accelerate=accelerate, max_iter=max_iter)
        assert model.status_ in ("converged", "max_iter", "degenerate")
        assert rising(model)
        owned = model.trace_["objective"].iloc[-1]
        np.testing.assert_allclose(objective_of(model, y), owned, rtol=1e-12)
        np.testing.assert_array_equal(
            model.trace_["objective"], model.trace_["log_likelihood"] + model.trace_["log_prior"]
        )
        if not informed:
            assert (model.trace_["log_prior"] == 0.0).all()


@pytest.mark.filterwarnings("ignore::statespace_em.errors.ConvergenceWarning")
@pytest.mark.parametrize("informed", [False, True])
@pytest.mark.parametrize("kind", FAMILIES)
def test_plain_em_is_a_loop_of_the_public_steps(kind, informed):
    tolerance = 1e-10
    _, params, y = case(kind, 2, 80, 3, holes=True)
    model = with_prior(kind, 2) if informed else model_of(kind, 2)
    current = params
    for n_steps in range(1, 41):
        if n_steps in (2, 3, 12, 13, 40):
            model.fit(y, start=params, accelerate=False, max_iter=n_steps, tol=0)
            for name in params.data_vars:
                np.testing.assert_allclose(model.params_[name], current[name], rtol=tolerance, atol=tolerance)
        current = model.m_step(y, model.e_step(y, current), current)


def test_plain_em_ends_where_the_loop_ends():
    tolerance = 1e-10
    y = sse.datasets.earthquakes()
    model = sse.PoissonHMM(2)
    start = model.parameters(initial=[0.5, 0.5], transition=[[0.9, 0.1], [0.1, 0.9]], rate=[[15.0], [25.0]])
    fitted = sse.PoissonHMM(2).fit(y, start=start, accelerate=False)
    assert fitted.converged_
    current = start
    for _ in range(len(fitted.trace_) - 1):
        current = model.m_step(y, model.e_step(y, current), current)
    for name in start.data_vars:
        np.testing.assert_allclose(fitted.params_[name], current[name], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("accelerate", [True, False])
@pytest.mark.parametrize("max_iter", [1, 2, 5, 17])
def test_max_iter_counts_e_steps(accelerate, max_iter, monkeypatch):
    model, params, y = case("diagonal", 3, 100, 0)
    calls = []
    own = HMMCore.e_step
    monkeypatch.setattr(HMMCore, "e_step", lambda self, p, data: calls.append(1) or own(self, p, data))
    with pytest.warns(ConvergenceWarning, match=f"after {max_iter} E-steps"):
        model.fit(y, start=params, accelerate=accelerate, max_iter=max_iter, tol=1e-300)
    assert len(calls) == max_iter
    assert model.status_ == "max_iter"
    assert model.trace_.index[-1] <= max_iter


def returns(name):
    return 100 * sse.datasets.stocks()["log_return"][name]


def geyser():
    return sse.datasets.old_faithful()[["duration", "waiting"]].astype(float)


@pytest.mark.parametrize(
    ("model", "data"),
    [
        (sse.PoissonHMM(2), sse.datasets.earthquakes),
        (sse.PoissonHMM(3), sse.datasets.earthquakes),
        (sse.GaussianHMM(2), geyser),
        (sse.GaussianHMM(3, "diagonal"), geyser),
        *[(sse.GaussianHMM(k), lambda name=name: returns(name)) for k in (2, 3, 4) for name in ("IBM", "MSFT")],
    ],
)
def test_a_default_fit_is_within_1e_6_nats_of_where_em_leads(model, data):
    nats = 1e-6
    y = data()
    model.fit(y)
    assert model.status_ == "converged"
    reached = model.trace_["objective"].iloc[-1]
    longer = type(model)(**model.get_params())
    longer.fit(y, start=model.params_, accelerate=False, max_iter=800, tol=0)
    assert longer.trace_["objective"].iloc[-1] <= reached + nats


def flickering(seed, n_rows=120, n_states=3):
    """Rows of states that stay for about ten rows, without a structure that the models below have."""
    rng = np.random.default_rng(seed)
    steps = 0.9 * np.eye(n_states) + 0.1 * rng.dirichlet(np.ones(n_states), n_states)
    path = [0]
    for _ in range(1, n_rows):
        path.append(rng.choice(n_states, p=steps[path[-1]]))
    mean, deviation = 1.5 * rng.normal(size=n_states), np.exp(0.4 * rng.normal(size=n_states))
    return mean[path] + deviation[path] * rng.normal(size=n_rows)


@pytest.mark.parametrize("seed", [10, 22])
def test_saddles_of_states_that_share_their_emission_are_left(seed):
    """States that differ by what they lead to only begin as one, which is a saddle: EM leaves it in growing steps."""
    nats = 1e-6
    y = flickering(seed)
    model = sse.GaussianHMM(["a", "b", "c"], "diagonal", tie=[["a", "b"]])
    model.fit(y, n_starts=1)
    reached, n_steps = model.trace_["objective"].iloc[-1], model.starts_["iterations"].iloc[0]
    assert model.status_ == "converged"
    start = model.params_
    model.fit(y, n_starts=1, accelerate=False, max_iter=3000)
    assert model.starts_["iterations"].iloc[0] >= n_steps
    model.fit(y, start=start, accelerate=False, max_iter=800, tol=1e-10)
    assert model.status_ == "converged"
    assert model.trace_["objective"].iloc[-1] <= reached + nats


def test_mixing_leaps_away_from_a_saddle():
    rates = np.array([0.2, 1.05])  # of the distance along each axis, in one step of a map whose fixed point is 0
    mixer, x = Anderson(), np.array([0.0, 1e-3])
    assert mixer.propose(x, rates * x) is None
    x = rates * x
    ahead = mixer.propose(x, rates * x)
    assert ahead[1] > 1.5 * rates[1] * x[1]
    mixer.reset()
    x = np.array([0.1, 0.0])  # where no step grows, the fixed point is found at once
    assert mixer.propose(x, rates * x) is None
    x = rates * x
    np.testing.assert_allclose(mixer.propose(x, rates * x), 0.0, atol=1e-15)


def test_a_looser_tolerance_stops_sooner_and_is_kept():
    y = returns("IBM")
    fits = {tol: sse.GaussianHMM(3).fit(y, n_starts=1, accelerate=False, tol=tol) for tol in (1e-1, 1e-4, 1e-8)}
    steps = [len(fit.trace_) for fit in fits.values()]
    assert steps == sorted(steps)
    assert steps[0] < steps[-1]
    best = fits[1e-8].trace_["objective"].iloc[-1]
    for tol, fit in fits.items():
        assert best - fit.trace_["objective"].iloc[-1] <= 2.0 * tol


class Falling:
    """A model whose objective drops at the third step."""

    values = (0.0, 1.0, 0.5, 3.0)

    def e_step(self, params, data):
        return params, self.values[int(params)]

    def m_step(self, statistics, previous):
        return previous + 1.0

    def log_prior(self, params):
        return 0.0

    def to_vector(self, params, reference):
        return None

    def from_vector(self, vector, reference):
        return reference


@pytest.mark.parametrize("accelerate", [True, False])
def test_a_decrease_is_never_convergence(accelerate):
    result = em.run_em(Falling(), None, 0.0, accelerate=accelerate)
    assert result.status == "decreased"
    assert result.params == 1.0
    assert [step.objective for step in result.trace] == [0.0, 1.0]
    runs = em.run_starts(Falling(), None, [0.0], n_polish=1, is_degenerate=lambda params, statistics: False)
    assert runs[0].status == "decreased"


class Throws(Falling):
    """Extrapolated points cannot be computed; EM points can."""

    def e_step(self, params, data):
        if params % 1.0:
            raise np.linalg.LinAlgError("not a point of the domain")
        return params, -(2.0 ** -float(params))

    def to_vector(self, params, reference):
        return np.array([params])

    def from_vector(self, vector, reference):
        return float(vector[0]) + 0.5


def test_an_extrapolated_point_without_a_value_is_replaced():
    result = em.run_em(Throws(), None, 0.0, tol=1e-6)
    assert result.status == "converged"
    assert result.params % 1.0 == 0.0


class Breaks(Falling):
    """A model whose third step raises what it is told to; from then on, where it is extrapolated."""

    def __init__(self, error, *, extrapolates):
        self.error, self.extrapolates = error, extrapolates

    def e_step(self, params, data):
        if params >= 2.0 and (params % 1.0 or not self.extrapolates):
            raise self.error
        return params, -(2.0 ** -float(params))

    def to_vector(self, params, reference):
        return np.array([params]) if self.extrapolates else None

    def from_vector(self, vector, reference):
        return float(vector[0]) + 0.25


@pytest.mark.parametrize("extrapolates", [True, False])
@pytest.mark.parametrize("error", [ValueError("wrong axis"), TypeError("wrong type"), ParameterError("no such name")])
def test_a_fault_in_a_later_step_is_not_taken_for_the_end_of_the_climb(error, extrapolates):
    with pytest.raises(type(error), match=str(error)):
        em.run_em(Breaks(error, extrapolates=extrapolates), None, 0.0)


@pytest.mark.parametrize(
    "error",
    [np.linalg.LinAlgError("singular"), FloatingPointError("overflow"), ImpossibleObservationError("3")],
)
def test_what_arithmetic_cannot_resolve_ends_the_climb(error):
    result = em.run_em(Breaks(error, extrapolates=False), None, 0.0)
    assert result.status == "degenerate"
    assert result.params == 1.0
    assert [step.objective for step in result.trace] == [-1.0, -0.5]
    assert em.run_em(Breaks(error, extrapolates=True), None, 0.0).status == "converged"


class Starts(Throws):
    """Starts between the whole numbers have no likelihood."""

    def to_vector(self, params, reference):
        return None


def test_a_start_without_a_likelihood_does_not_end_the_fit():
    """A diffuse state that the dynamics of one start hide from all rows, say; it was the error of the whole fit."""
    judge = {"n_polish": 2, "is_degenerate": lambda params, statistics: False}
    runs = em.run_starts(Starts(), None, [0.5, 0.0, 1.5], **judge)
    assert [run.status for run in runs] == ["degenerate", "converged", "degenerate"]
    assert [run.params for run in runs][::2] == [0.5, 1.5]
    assert em.best_of(runs) == 1
    with pytest.raises(np.linalg.LinAlgError, match="not a point of the domain"):
        em.run_starts(Starts(), None, [0.5, 1.5], **judge)


class Slow(Falling):
    """Three slow climbs; the first two are one path, towards a likelihood without bound."""

    def e_step(self, params, data):
        path, steps = params
        return params, (10.0, 10.0 - em.REPEAT / 2.0, 0.0)[path] - 0.9**steps

    def m_step(self, statistics, previous):
        return previous[0], previous[1] + 1


def test_a_repeat_of_a_degenerate_run_does_not_win_unpolished():
    starts = [(0, 0), (1, 0), (2, 0)]
    judge = {"is_degenerate": lambda params, statistics: params[0] < 2 and params[1] > 2 * em.SHORT}
    runs = em.run_starts(Slow(), None, starts, n_polish=1, accelerate=False, **judge)
    assert [run.status for run in runs] == ["degenerate", "degenerate", "converged"]
    assert em.best_of(runs) == 2


def test_of_starts_that_end_together_the_first_that_converged_wins():
    def run(objective, status="converged"):
        return em.EMResult(None, None, (em.Step(1, objective, 0.0),), status, 1)

    ends = [run(-3e4), run(-3e4 - 1e-3), run(-3e4 + 1e-11)]
    assert em.best_of(ends) == 0
    assert em.best_of(ends[1:]) == 1
    assert em.best_of([run(-3e4, "max_iter"), *ends]) == 1
    assert em.best_of([run(-3e4 - 1e-8), *ends]) == 1  # not round-off
    assert em.best_of([run(-2e4, "degenerate"), *ends]) == 1
    assert em.best_of([run(-np.inf), run(-np.inf)]) == 0
    assert em.best_of([run(-1.0), run(0.0), run(1e-300)]) == 2


class Overflows(Slow):
    """Coordinates of extrapolated points overflow; the EM steps are fine."""

    def to_vector(self, params, reference):
        return np.array([float(params[1]), 0.9 ** params[1]])

    def from_vector(self, vector, reference):
        return (2, np.exp(1e3 * (1.0 + abs(vector[0]))))


def test_an_extrapolation_that_overflows_is_silently_replaced():
    result = em.run_em(Overflows(), None, (2, 0), tol=1e-6)
    assert result.status == "converged"
    assert isinstance(result.params[1], int)


@pytest.mark.filterwarnings("ignore::statespace_em.errors.LocalOptimumWarning")
@pytest.mark.parametrize("kind", FAMILIES)
def test_the_same_call_gives_the_same_answer(kind):
    y = case(kind, 2, 80, 5)[2]
    first, second = model_of(kind, 2).fit(y), model_of(kind, 2).fit(y)
    assert first.params_.identical(second.params_)
    assert first.trace_.equals(second.trace_)
    assert first.starts_.equals(second.starts_)


def test_the_table_of_starts():
    model = sse.GaussianHMM(2).fit(returns("IBM"), n_starts=6)
    table = model.starts_
    assert len(table) == 6
    np.testing.assert_allclose(table["objective"].max(), model.trace_["objective"].iloc[-1], rtol=1e-14)
    polished = table[table["status"] == "converged"]
    assert len(polished) >= 3
    assert (polished["found_by"] >= 1).all()
    assert (table["iterations"] <= 1000).all()
    assert len(sse.GaussianHMM(2).fit(returns("IBM"), start=model.params_).starts_) == 1


@pytest.mark.parametrize("covariance", ["full", "diagonal", "spherical"])
@pytest.mark.parametrize("build", [sse.GaussianHMM, lambda k, c: sse.Mixture(k, sse.emissions.Gaussian(c))])
def test_a_start_at_the_floor_never_wins(build, covariance):
    rng = np.random.default_rng(0)
    y = rng.normal(size=400)
    y[rng.choice(400, 50, replace=False)] = 0.0
    y[200:] *= 4.0
    model = build(2, covariance).fit(y)
    spread = model.params_["cov" if covariance == "full" else "var"]
    assert model.status_ == "converged"
    assert float(spread.min()) > 1e-3
    assert (model.starts_["status"] != "degenerate").any()


def spikes():
    """Two values only: every start of two states ends with both variances at the floor."""
    return np.tile([0.0, 0.0, 5.0], 30).astype(float)


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_nothing_but_degenerate_starts_is_reported_with_a_cure(covariance):
    model = sse.GaussianHMM(["low", "high"], covariance)
    with pytest.warns(ConvergenceWarning, match="state '(low|high)'") as caught:
        model.fit(spikes())
    assert model.status_ == "degenerate"
    assert not model.converged_
    advice = str(caught[0].message).split("away from zero: ")[1].removesuffix(".")
    prior = eval(advice.split("prior=")[1].removesuffix(")"), vars(sse.priors))
    cured = sse.GaussianHMM(["low", "high"], covariance, prior=prior).fit(spikes())
    assert cured.status_ == "converged"
    assert rising(cured)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"max_iter": 0}, "max_iter"),
        ({"tol": -1.0}, "tol"),
        ({"n_starts": 0}, "n_starts"),
        ({"freeze": ("transition",)}, "give it in start="),
        ({"freeze": ("nothing",)}, "freeze"),
        ({"threads": 0}, "threads"),
    ],
)
def test_options_out_of_range_are_named(options, word):
    with pytest.raises(ParameterError, match=word):
        sse.PoissonHMM(2).fit(sse.datasets.earthquakes(), **options)


def test_a_probability_driven_next_to_zero_is_brought_back():
    """The accelerator may drive a probability to 1e-49 where it belongs higher; EM alone would take long to grow it."""
    rng = np.random.default_rng(178)
    rng.choice(7), rng.integers(2, 5), rng.choice(3), rng.integers(1, 4), rng.choice(4)
    noise = rng.standard_normal((60, 2)) * np.where(rng.random((60, 1)) < 0.4, rng.choice([0.5, 2, 3]), 1)
    y = np.clip(np.round(noise[:, 0] * 2), -3, 3).astype(int)
    for n_states in (3, 4):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = sse.CategoricalHMM(n_states).fit(y)
            end = model.score(y)
            further = model.fit(y, start=model.params_, accelerate=False, max_iter=3000, tol=0.0).score(y)
        assert further - end < 1e-6


@pytest.mark.parametrize(("image", "raises"), [(1.5e-49, True), (0.9e-49, False), (1.0000001e-49, False)])
def test_only_what_grows_next_to_zero_is_raised(image, raises):
    value = np.array([[1e-49, 0.4, 0.6], [0.0, 0.5, 0.5]])
    raised = lifted(value, np.array([[image, 0.4, 0.6], [0.0, 0.5, 0.5]]))
    assert (raised is not None) == raises
    if raises:
        np.testing.assert_allclose(raised.sum(1), 1.0, rtol=1e-15)
        assert raised[0, 0] > 1e-5
        assert raised[1, 0] == 0.0


@pytest.mark.parametrize(
    ("n_steps", "message"),
    [
        (
            50,
            r"^stopped after 50 E-steps before it converged \(the last 10 gained 0.2 nats\): raise max_iter,",
        ),
        (
            30,
            r"\(the last 10 gained 0.2 nats\): the score is still steep, but no step along it led higher, .* start=m",
        ),
    ],
)
def test_a_run_that_did_not_converge_says_how_far_it_was_and_what_helps(n_steps, message):
    model = sse.GaussianHMM(1).fit(np.random.default_rng(0).normal(size=20))
    core = model._core()
    trace = tuple(em.Step(n_steps - 12 + i, -40.0 + 0.02 * i, 0.0) for i in range(13))
    run = em.EMResult(core.build(model._schema().arrays(model.params_)), None, trace, "max_iter", n_steps)
    options = fitting.FitOptions(max_iter=50)
    ((category, said),) = fitting.not_converged(
        run, core, [0], np.zeros(1, int), partial(model._no_bound, None), str, options
    )
    assert category is ConvergenceWarning
    assert re.search(message, said), said


@pytest.mark.parametrize("short", [em.SHORT, 48])
def test_runs_that_take_no_step_more_are_not_asked_for_ever(short):
    asked = []

    def run(model, data, start, *, max_iter, head=None, **options):
        asked.append(start)
        assert len(asked) < 50
        return em.EMResult(start, None, [em.Step(0, -float(start), 0.0)], "max_iter", 10)

    runs = em.run_starts(
        None, None, [1, 2, 3], n_polish=2, is_degenerate=lambda params, statistics: False, max_iter=1000, tol=1e-8,
        accelerate=True, on_step=None, short=short, run=run,
    )  # fmt: skip
    assert [one.status for one in runs] == ["max_iter"] * 3
