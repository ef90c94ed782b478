"""The exact score of every structure against central differences of the likelihood, in one table."""

import numpy as np
import pandas as pd
import pytest

import statespace_em as sse
from statespace_em import designs
from statespace_em.priors import InverseWishart

RNG = np.random.default_rng(11)
ONE = RNG.normal(size=24).cumsum()
ONE[[5, 6, 13]] = np.nan
TWO = RNG.normal(size=(24, 2)).cumsum(0)
TWO[4, 1] = TWO[10] = np.nan
PANEL = {"a": TWO[:14], "b": TWO[9:] + 1.0}
TIMES = np.sort(RNG.uniform(0.0, 20.0, 24))
X = RNG.normal(size=(24, 2))
RATES = np.abs(RNG.normal(size=24)) + 0.5
SSM = sse.LinearGaussianSSM
MOVES = [["a", "b"], ["c", 0.6]]
SQUARE = {"transition": MOVES, "observation": np.eye(2)}
CASES = {
    "free": (SSM(2), TWO),
    "free, panel": (SSM(2, initial="free"), PANEL),
    "diagonal": (
        SSM(2, transition="diagonal", process_cov="diagonal", observation=np.eye(2), measurement_cov="equal"), TWO,
    ),
    "known start": (SSM(2, **SQUARE, initial="known", initial_mean=[0, 1], initial_cov=np.eye(2)), TWO),
    "diffuse start": (SSM(2, **SQUARE, initial="diffuse"), TWO),
    "diffuse start, full": (SSM(2, **SQUARE, initial="diffuse", likelihood="full"), TWO),
    "diffuse start, marginal": (SSM(2, **SQUARE, initial="diffuse", likelihood="marginal"), TWO),
    "stationary start": (SSM(2, **SQUARE, initial="stationary", state_offset="free"), PANEL),
    "fixed start": (SSM(2, **SQUARE, initial="fixed", process_cov="scalar"), TWO),
    "mixed starts": (
        SSM(
            transition=[[1, 0], [0, "phi"]], observation=[[1, 1]], initial=["diffuse", "stationary"],
            process_cov="diagonal",
        ), ONE,
    ),
    "tied": (SSM(transition=[["p", "q"], [0, "p"]], process_cov=[["v", 0], [0, "v"]], observation=np.eye(2)), TWO),
    "expressions": (
        SSM(
            transition=[["p", "1 - p"], [0, "p"]], process_cov=[["v", 0], [0, "2*v"]], observation=[[1, 0]],
            initial="diffuse",
        ), ONE,
    ),
    "products": (
        SSM(
            transition=[["p", "q", "p*q"], [1, 0, 0], [0, 1, 0]], process_cov=[["v", 0, 0], [0, 0, 0], [0, 0, 0]],
            observation=[[1, 0, 0]], initial="known", initial_mean=np.zeros(3), initial_cov=np.eye(3),
        ), ONE,
    ),
    "scaled matrix": (SSM(2, **SQUARE, process_cov=("v", [[2.0, 0.5], [0.5, 1.0]]), measurement_cov="diagonal"), TWO),
    "general pattern": (
        SSM(2, **SQUARE, process_cov=[["u", "w"], ["w", "u"]], measurement_cov=[["r", 0], [0, "s"]]), TWO,
    ),
    "offsets": (SSM(2, **SQUARE, state_offset=["m", 0], observation_offset=[0, "d"], initial="fixed"), TWO),
    "inputs": (SSM(2, **SQUARE, state_input="free", observation_input=[[0, "e"], ["f", 0]], initial="diffuse"), TWO),
    "loadings": (
        SSM(
            transition=[[1, 1], [0, "p"]], process_cov="free", process_loading=[[0.5], [1.0]], initial="diffuse",
            observation=[[1, 0], [1, 0]], measurement_cov="free", measurement_loading=[[1.0, 0.0], [0.5, 1.0]],
        ), TWO,
    ),
    "a name with a factor a row": (
        SSM(
            transition=[[1]], observation=[[{"beta": RATES}], [1]], process_cov=[[{"v": RATES}]], initial="diffuse",
        ), TWO,
    ),
    "names by row": (
        SSM(
            transition=[[1]], observation=[[1]], initial="diffuse",
            measurement_cov=[[np.array(["r"] * 12 + ["s"] * 12, dtype=object)]],
        ), ONE,
    ),
    "priors": (
        SSM(2, **SQUARE, process_prior=InverseWishart(dof=5.0, scale=np.eye(2)), initial="diffuse",
            measurement_prior=InverseWishart(dof=4.0, scale=0.3 * np.eye(2))), TWO,
    ),
    "trend and season": (designs.local_trend() + designs.seasonal(4), ONE),
    "cycle": (designs.smooth_trend() + designs.cycle(6), ONE),
    "arma": (designs.arma(2, 1) + designs.constant(), ONE),
    "seasonal arma": (designs.arima(1, 1, 1, seasonal=(1, 0, 1, 4)), ONE),
    "regression": (designs.local_level() + designs.regression(X, drifting=True), ONE),
    "continuous trend": (designs.local_trend(unit="s"), ONE),
    "continuous decays": (designs.local_level(unit="s") + designs.cycle(6, unit="s") + designs.ar(1, unit="s"), ONE),
    "motion": (designs.constant_velocity(1), ONE),
    "turn": (designs.coordinated_turn(0.2), TWO),
    "sensors": (
        designs.constant_velocity(1, sensors={"gps": ["x"], "radar": ["x"]}) + designs.ar(1).on("gps")
        + designs.constant().on("radar"), TWO,
    ),
}  # fmt: skip
CONTINUOUS = ("continuous trend", "continuous decays", "motion", "turn", "sensors")


def placed(name):
    """Core of a model on its data, the data, and parameters that are no special place."""
    model, y = CASES[name]
    if name == "inputs":
        model = model._with_inputs(X, y)
    if name in CONTINUOUS:
        y = pd.DataFrame(y, index=pd.Index(TIMES, name="time"))
        model = model._bound(y, None)
    batch, _, _ = model._read(y, None)
    core = model._core(batch=batch, given={})
    start = next(iter(core.starts(batch, 1, np.random.default_rng(0), {})))
    vector = core.to_vector(start, start)
    here = core.from_vector(vector + 0.1 * np.random.default_rng(1).normal(size=len(vector)), start)
    return core, batch, here


@pytest.mark.parametrize("name", CASES)
def test_the_score_is_the_slope_of_the_likelihood(name):
    core, batch, here = placed(name)
    centre = core.to_vector(here, here)
    score = core.score_vector(here, core.e_step(here, batch)[0], here)

    def objective(x):
        there = core.from_vector(x, here)
        return core.e_step(there, batch)[1] + core.log_prior(there)

    step = 1e-4
    for i, unit in enumerate(np.eye(len(centre))):
        near, far = (objective(centre + s * step * unit) - objective(centre - s * step * unit) for s in (1.0, 2.0))
        assert score[i] == pytest.approx((8.0 * near - far) / (12.0 * step), rel=1e-6, abs=2e-7 * np.abs(score).max())
