"""Free parameters of a linear-Gaussian model: less what a change of basis of the states moves."""

import numpy as np
import pytest
from lgssm_cases import core_of

import statespace_em as sse
from statespace_em import designs
from statespace_em.sequence import identifiable_basis

Y = np.random.default_rng(0).normal(size=(40, 3)).cumsum(0)
LOADS = [[1, 0], ["a", 1], ["b", "c"]]
SSM = sse.LinearGaussianSSM
COUNTS = {  # by hand
    "level": (designs.local_level(), 1, 2),
    "trend and season": (designs.local_trend() + designs.seasonal(7), 1, 4),
    "cycle": (designs.local_level() + designs.cycle(), 1, 5),
    "arma": (designs.arma(2, 2), 1, 5),
    "products": (designs.arima(1, 1, 1, seasonal=(1, 0, 1, 4)), 1, 5),
    "two alike": (designs.ar(1) + designs.ar(1), 1, 4),
    "drifting coefficients": (designs.regression(Y[:, 1:], drifting=True), 1, 3),
    "a mean": (designs.ar(1) + designs.constant(), 1, 3),
    "all free": (SSM(2), 3, 4 + 3 + 6 + 6 + 2 - 4),  # any basis of two states
    "with an offset": (SSM(2, observation_offset="free"), 3, 17 + 3),
    "factors": (
        SSM(2, transition=np.eye(2), observation="free", process_cov="identity", initial="diffuse"), 3, 6 + 6 - 1,
    ),
    "triangular": (SSM(2, observation=LOADS, process_cov="identity", transition="diagonal"), 3, 3 + 2 + 6 + 2),
    "an origin": (SSM(1, transition=[[1]], observation=[[1]], observation_offset="free", initial="diffuse"), 1, 2),
    "a mean twice": (
        SSM(1, transition=[[0.5]], observation=[[1]], state_offset="free", observation_offset="free",
            initial="stationary"), 1, 3,
    ),
    "fixed starts": (
        SSM(3, transition=np.eye(3), observation=np.eye(3), process_cov="diagonal", state_offset="free",
            initial="fixed"), 3, 3 + 3 + 3 + 6,
    ),
}  # fmt: skip


def count(model, y):
    core, _, start = core_of(model, y)
    return core.n_free(start)


@pytest.mark.parametrize("name", COUNTS)
def test_free_parameters_are_those_counted_by_hand(name, monkeypatch):
    model, width, expected = COUNTS[name]
    assert count(model, Y[:, :width]) == expected

    def everything(generic, *rest, steady):
        n = len(generic.transition)
        return np.eye(n * n + n)

    monkeypatch.setattr(identifiable_basis, "_generators", everything)  # not only those that may matter
    assert count(model, Y[:, :width]) == expected


def test_long_seasons_are_counted_at_once():
    """All changes of basis of 47 states took 43 s, those of 1439 an array of 31 TiB."""
    y = np.random.default_rng(0).normal(size=100)
    assert count(designs.seasonal(48), y) == 2
    assert count(designs.seasonal(48) + designs.ar(1), y) == 4


FREE_UNITS = {
    "all free": ({"states": 1}, True),
    "two states": ({"states": 2, "measurement_cov": "diagonal"}, True),
    "a hidden state": ({"observation": [[1, 0]], "transition": "free"}, True),
    "named loading": ({"transition": [[1]], "observation": [["c"]], "process_cov": "free"}, True),
    "of one of two": (
        {"transition": np.eye(2), "observation": [[1, "c"]], "process_cov": "diagonal", "initial": ["known", "diffuse"],
         "initial_mean": [0, 0], "initial_cov": np.eye(2)}, True,
    ),
    "that start known": (
        {"transition": np.eye(2), "observation": [["c", 1]], "process_cov": "diagonal",
         "initial": ["known", "diffuse"], "initial_mean": [0, 0], "initial_cov": np.eye(2)}, False,
    ),
    "noise of known size": ({"transition": [[1]], "observation": [["c"]], "process_cov": [[1]]}, False),
    "a known loading": ({"transition": [["phi"]], "observation": [[1]], "process_cov": "free"}, False),
    "one of two loadings": ({"transition": [[1]], "observation": [[1], ["c"]], "measurement_cov": "diagonal"}, False),
}  # fmt: skip


@pytest.mark.parametrize("name", FREE_UNITS)
@pytest.mark.filterwarnings("ignore:stopped after:statespace_em.errors.ConvergenceWarning")
def test_free_units_of_a_diffuse_start_are_told(name):
    settings, unbounded = FREE_UNITS[name]
    width = len(settings.get("observation", [0]))
    y = np.cumsum(np.random.default_rng(2).normal(size=(30, width)), axis=0)
    model = sse.LinearGaussianSSM(**({"initial": "diffuse"} | settings))
    if not unbounded:
        assert model.fit(y, n_starts=1, max_iter=20).status_ != "degenerate"
        return
    with pytest.warns(sse.errors.ConvergenceWarning, match=r"units of .* are free, and a diffuse start .*marginal"):
        model.fit(y, n_starts=1, max_iter=20)
    assert model.status_ == "degenerate"
    params = model.params_  # in other units of the state the likelihood is another, by their logarithm
    diffuse = np.isinf(np.diagonal(params["initial_cov"].values))
    scale = np.where(diffuse, 10.0, 1.0)
    other = params.copy(deep=True)
    other["transition"] = params["transition"] * scale[:, None] / scale
    other["process_cov"] = params["process_cov"] * np.outer(scale, scale)
    other["observation"] = params["observation"] / scale
    change = sse.LinearGaussianSSM(len(scale)).score(y, other) - sse.LinearGaussianSSM(len(scale)).score(y, params)
    assert change == pytest.approx(diffuse.sum() * np.log(10.0), abs=1e-6)
    relative = sse.LinearGaussianSSM(len(scale), likelihood="marginal")
    assert relative.score(y, other) == pytest.approx(relative.score(y, params), abs=1e-6)
