"""Masks, fixed entries, ties, frozen blocks, known states, weights, priors at once: EM climbs, fixed values stay."""

from itertools import permutations

import numpy as np
import pytest
from hmm_cases import case, model_of, with_prior
from hypothesis import given, settings
from hypothesis import strategies as st

import statespace_em as sse
from statespace_em.sequence.hmm_core import HMMCore

pytestmark = pytest.mark.filterwarnings("ignore::statespace_em.errors.StateSpaceWarning")
NAN = np.nan
SLACK = 1e-11  # relative to the objective, for round-off
CYCLE = [[0.0, NAN, 0.3], [NAN, 0.0, NAN], [NAN, NAN, NAN]]
TIES = {
    "full": [None, [[0, 1]], {"cov": "all"}, {"mean": [[0, 2]]}],
    "diagonal": [None, [[1, 2]], {"var": [[0, 1]]}, {"mean": "all"}],
    "poisson": [None, [[0, 2]]],
    "categorical": [None, [[0, 1]]],
}


@given(
    seed=st.integers(0, 10_000),
    kind=st.sampled_from(list(TIES)),
    tie=st.integers(0, 3),
    transition=st.sampled_from(["free", "left-right", "cyclic", "banded", CYCLE]),
    initial=st.sampled_from(["free", "uniform", "stationary", [0.5, NAN, NAN]]),
    frozen=st.sampled_from([(), ("transition",), ("emission",)]),
    known=st.booleans(),
    weights=st.sampled_from([None, "rows", "sequences"]),
    informed=st.booleans(),
    fast=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_em_climbs_under_all_of_it_and_what_is_fixed_is_never_touched(
    seed, kind, tie, transition, initial, frozen, known, weights, informed, fast
):
    if initial == "stationary" and transition == "left-right":
        initial = "free"  # there is no such thing
    rng = np.random.default_rng(seed)
    tie = TIES[kind][tie % len(TIES[kind])]
    model = (with_prior(kind, 3) if informed else model_of(kind, 3)).set_params(
        transition=transition, initial=initial, tie=tie
    )
    parts = [case(kind, 3, n, seed % 5, holes=True)[2] for n in (40, 25)]
    said = {}
    if weights is not None:
        said["weights"] = [1.5, 0.5] if weights == "sequences" else [rng.gamma(2.0, 0.5, size=len(p)) for p in parts]
    first = model.fit(parts, n_starts=1, max_iter=3, tol=0, **said).params_
    pattern = model._chain()
    if known:  # states that this chain can visit
        drawn = [model.sample(len(p), first, seed=seed + i)["state"].values for i, p in enumerate(parts)]
        said["states"] = [np.where(rng.random(len(p)) < 0.3, path, NAN) for p, path in zip(parts, drawn)]
        if kind in ("poisson", "categorical"):  # a symbol may be impossible there
            said["states"] = [np.where(rng.random(len(p)) < 0.05, path, NAN) for p, path in zip(parts, drawn)]
    names = {"emission": tuple(model._family().dims), "transition": ("transition",)}
    freeze = [name for block in frozen for name in names[block]]
    seen = []
    own = HMMCore.e_step
    HMMCore.e_step = lambda self, params, data: seen.append(params) or own(self, params, data)
    try:
        model.fit(parts, start=first, freeze=freeze, max_iter=12, tol=0, accelerate=fast, **said)
    except sse.errors.ImpossibleStateError:
        return  # the draw of known states is at odds with the rows
    finally:
        HMMCore.e_step = own
    objective = model.trace_["objective"].to_numpy()
    assert model.status_ != "decreased"  # a step that falls is not in the trace
    assert (np.diff(objective) >= -SLACK * (1.0 + np.abs(objective[1:]))).all()
    assert len(seen) > 5
    for params in seen:
        held = ~pattern.transition.free
        np.testing.assert_array_equal(params.transition[held], pattern.transition.fixed[held])
        begins = ~pattern.initial.free
        if initial != "stationary":
            np.testing.assert_array_equal(params.initial[begins], pattern.initial.fixed[begins])
        for name, groups in model._core().ties.groups.items():
            value = getattr(params.emission, name)
            np.testing.assert_array_equal(value, value[np.unique(groups, return_index=True)[1]][groups])
    for name in freeze:
        np.testing.assert_array_equal(model.params_[name], first[name])


@pytest.mark.parametrize("kind", ["full", "diagonal", "poisson", "categorical"])
def test_a_fit_does_not_know_the_order_of_sequences(kind):
    parts = {key: case(kind, 2, n, 3 + i)[2] for i, (key, n) in enumerate({"u": 60, "v": 45, "w": 70}.items())}
    model = model_of(kind, 2)
    start = model.fit(parts, n_starts=1, max_iter=2, tol=0).params_
    fits = [model.fit({key: parts[key] for key in order}, start=start).params_ for order in permutations("uvw")]
    for other in fits[1:]:
        for name in other.data_vars:
            np.testing.assert_allclose(other[name], fits[0][name], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", ["full", "poisson", "categorical"])
def test_a_fit_does_not_know_the_order_of_states(kind):
    y = case(kind, 3, 150, 3)[2]
    model = model_of(kind, 3)
    start = model.fit(y, n_starts=4).params_
    order = [2, 0, 1]
    dims = [dim for dim in ("state", "next_state") if dim in start.dims]
    turned = start.isel(dict.fromkeys(dims, order)).assign_coords({dim: [0, 1, 2] for dim in dims})
    near = {name: value * (1.02 if name == "rate" else 1.0) for name, value in start.data_vars.items()}
    plain = model.fit(y, start=start.assign(near)).params_
    near = {name: value * (1.02 if name == "rate" else 1.0) for name, value in turned.data_vars.items()}
    other = model.fit(y, start=turned.assign(near)).params_
    expected = plain.isel(dict.fromkeys(dims, order))
    for name in other.data_vars:
        np.testing.assert_allclose(other[name].values, expected[name].values, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("tie", [{"mean": [["a", "b"]]}, {"var": "all"}, [["a", "c"]]])
def test_units_under_ties_and_known_states(tie):
    """fit(c * y + b) is the transformed fit, with states known in some rows and parameters shared."""
    y = case("diagonal", 3, 120, 4)[2]
    states = np.where(np.arange(120) % 10 == 0, np.repeat(["a", "b", "c"], 40), None)
    model = sse.GaussianHMM(list("abc"), "diagonal", tie=tie, initial="uniform")
    c, shift = 1e-3, np.array([5.0, -2.0])
    start = model.fit(y, states=states, n_starts=2, max_iter=5, tol=0).params_
    moved = start.assign(mean=c * start["mean"] + shift, var=c**2 * start["var"])
    plain = model.fit(y, states=states, start=start).params_
    scaled = model.fit(c * y + shift, states=states, start=moved).params_
    np.testing.assert_allclose((scaled["mean"] - shift) / c, plain["mean"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(scaled["var"] / c**2, plain["var"], rtol=1e-4)
    np.testing.assert_allclose(scaled["transition"], plain["transition"], rtol=1e-4, atol=1e-4)
