"""Free parameters of a linear-Gaussian model: less what a change of basis of the states moves."""

import numpy as np
import pytest

import statespace_em as sse
from statespace_em import designs
from statespace_em.sequence import lgssm_basis

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
    batch, _, _ = model._read(y, None)
    core = model._core(batch=batch, given={})
    return core.n_free(next(iter(core.starts(batch, 1, np.random.default_rng(0), {}))))


@pytest.mark.parametrize("name", COUNTS)
def test_free_parameters_are_those_counted_by_hand(name, monkeypatch):
    model, width, expected = COUNTS[name]
    assert count(model, Y[:, :width]) == expected

    def everything(generic, *rest):
        n = len(generic.transition)
        return np.eye(n * n + n)

    monkeypatch.setattr(lgssm_basis, "_candidates", everything)  # every change of basis, not those that may matter
    assert count(model, Y[:, :width]) == expected


def test_long_seasons_are_counted_at_once():
    """All changes of basis of 47 states took 43 s, those of 1439 an array of 31 TiB."""
    y = np.random.default_rng(0).normal(size=100)
    assert count(designs.seasonal(48), y) == 2
    assert count(designs.seasonal(48) + designs.ar(1), y) == 4
