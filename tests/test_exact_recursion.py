"""Series that follow their own past without error: nothing bounds the likelihood, and a fit says so."""

import numpy as np
import pytest

from statespace_em import designs
from statespace_em.data import as_batch
from statespace_em.errors import ConvergenceWarning
from statespace_em.sequence.exact_recursion import follows_its_past

T = np.arange(60.0)
EXACT = {"line": 3.0 + 0.5 * T, "wave": np.sin(T), "power": 100.0 * 0.9**T}
SAYS = "y follows its own past without error.*so that no noise can be estimated.*Fit what such a part leaves.*prior"


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("far", [0.0, 1e6])
def test_exact_recursions_are_told_from_those_with_the_least_noise(name, far):
    y = EXACT[name] + far
    noise = 1e-9 * np.abs(y).max() * np.random.default_rng(0).normal(size=60)
    assert follows_its_past(as_batch(y)[0], 2)
    assert not follows_its_past(as_batch(y + noise)[0], 2)


def test_gaps_are_left_out_and_short_series_tell_nothing():
    y = EXACT["line"].copy()
    y[[7, 30]] = np.nan
    assert follows_its_past(as_batch(y)[0], 2)
    assert not follows_its_past(as_batch(y[:9])[0], 2)
    assert not follows_its_past(as_batch(np.column_stack([y, np.random.default_rng(1).normal(size=60)]))[0], 2)


@pytest.mark.parametrize("name", ["line", "wave"])
@pytest.mark.parametrize(
    "model",
    [designs.ar(2), designs.ar(2) + designs.constant(), designs.arma(2, 1) + designs.constant()],
    ids=["ar", "ar and constant", "arma and constant"],
)
def test_what_an_autoregression_explains_exactly_is_called_degenerate(name, model):
    with pytest.warns(ConvergenceWarning, match=SAYS):
        model.fit(EXACT[name])
    assert model.status_ == "degenerate"


def test_a_trend_of_a_line_is_called_degenerate():
    with pytest.warns(ConvergenceWarning, match=SAYS):
        assert designs.local_trend().fit(EXACT["line"]).status_ == "degenerate"


@pytest.mark.parametrize(
    ("model", "name"),
    [(designs.local_level(), "line"), (designs.ar(1) + designs.constant(), "wave"), (designs.ar(1), "power")],
    ids=["a level", "one lag of a wave", "a decay from far away"],
)
def test_what_a_model_cannot_follow_exactly_has_a_maximum(model, name):
    """A decay has one too: how far its first row is from 0 says how large the disturbances are."""
    assert model.fit(EXACT[name]).status_ == "converged"


def test_a_line_with_little_noise_has_a_maximum():
    y = EXACT["line"] + 1e-7 * np.random.default_rng(2).normal(size=60)
    assert designs.local_trend().fit(y).status_ == "converged"
