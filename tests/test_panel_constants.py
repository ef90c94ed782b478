"""What each sequence of a panel has for good: as if it were written out for every row."""

import warnings

import numpy as np
import pytest
import xarray as xr

import statespace_em as sse
from statespace_em.errors import DataError, ParameterError
from statespace_em.sequence.lgssm_loading import loaded

LENGTHS, FUTURE = {"a": 22, "b": 13, "c": 17}, 3
RNG = np.random.default_rng(0)
SCALE, MOVE = {"a": 1.0, "b": 4.0, "c": 2.0}, {"a": 0.9, "b": 0.5, "c": -0.3}
NAMES = {"a": "early", "b": "late", "c": "early"}
W = {key: RNG.uniform(0.5, 3.0, n + FUTURE) for key, n in LENGTHS.items()}
START = {"initial": "known", "initial_mean": [0.3], "initial_cov": [[2.0]]}
LEVEL = {"transition": [[1]], "process_cov": [["q"]], "observation": [[1]], "measurement_cov": [["r"]]}
MATRICES = ("sequence", "next_state", "state")
Y = {key: 0.5 * RNG.normal(size=(n, 1)).cumsum(0) + RNG.normal(size=(n, 1)) for key, n in LENGTHS.items()}


def rows(value, key):
    """The same for every row of one sequence."""
    return np.repeat(np.asarray(value[key])[None], LENGTHS[key] + FUTURE, axis=0)


def each(value):
    return {key: rows(value, key) for key in value}


def labelled(value, dims=("sequence",)):
    return xr.DataArray(np.array(list(value.values())), {"sequence": list(value)}, dims)


def stacked(value):
    parts = [xr.DataArray(rows(value, key), dims="time") for key in value]
    return xr.concat([part.pad(time=(0, 25 - part.sizes["time"])) for part in parts], "sequence").assign_coords(
        sequence=list(value), length=("sequence", [LENGTHS[key] + FUTURE for key in value])
    )


ONE = {key: [[value]] for key, value in MOVE.items()}
# how it is written, and the same for every row
CASES = {
    "factors": ({"measurement_cov": [[{"r": SCALE}]]}, {"measurement_cov": [[{"r": each(SCALE)}]]}),
    "other order": (
        {"measurement_cov": [[{"r": dict(reversed(SCALE.items()))}]], "process_cov": [[{"q": SCALE}]]},
        {"measurement_cov": [[{"r": each(SCALE)}]], "process_cov": [[{"q": each(SCALE)}]]},
    ),
    "pair": ({"measurement_cov": [[("r", SCALE)]]}, {"measurement_cov": [[{"r": each(SCALE)}]]}),
    "labelled": ({"measurement_cov": [[{"r": labelled(SCALE)}]]}, {"measurement_cov": [[{"r": each(SCALE)}]]}),
    "names": ({"measurement_cov": [[NAMES]]}, {"measurement_cov": [[stacked(NAMES)]]}),
    "labelled names": ({"measurement_cov": [[labelled(NAMES)]]}, {"measurement_cov": [[stacked(NAMES)]]}),
    "offsets": ({"state_offset": [{"m": MOVE}]}, {"state_offset": [{"m": each(MOVE)}]}),
    "known dynamics": ({"transition": {1: ONE}}, {"transition": [[{1: each(MOVE)}]]}),
    "labelled dynamics": ({"transition": labelled(ONE, MATRICES)}, {"transition": [[{1: each(MOVE)}]]}),
    "beside rows": (
        {"process_cov": [[{"q": SCALE}]], "measurement_cov": [[{"r": W}]]},
        {"process_cov": [[{"q": each(SCALE)}]], "measurement_cov": [[{"r": W}]]},
    ),
    "beside rows in one matrix": (
        {"measurement_cov": [[{"r": W, "s": SCALE}]]}, {"measurement_cov": [[{"r": W, "s": each(SCALE)}]]}
    ),
    "beside shared rows": (
        {"process_cov": [[{"q": W["a"]}]], "measurement_cov": [[{"r": SCALE}]]},
        {"process_cov": [[{"q": W["a"]}]], "measurement_cov": [[{"r": each(SCALE)}]]},
    ),
    "loadings": (
        {"process_loading": {key: [[value]] for key, value in SCALE.items()}},
        {"process_loading": {key: rows({key: [[SCALE[key]]]}, key) for key in SCALE}},
    ),
}  # fmt: skip


def models(case):
    return [sse.LinearGaussianSSM(**(LEVEL | settings), **START) for settings in CASES[case]]


def at_same_values(one, other):
    """Parameters of the other model, with the values that the first has found."""
    spec, own, params = one._specification(1), other._specification(1), {}
    for name, value in one.params_.data_vars.items():
        if name in own.patterns and own.patterns[name].names:
            words = spec.free_values(name, value.values)
            loading = own.loadings.get(name)
            params[name] = loaded(own.patterns[name].build(np.array(list(words.values()))), loading)
        elif name not in own.varying:
            params[name] = value.values
    return other.parameters(**params)


@pytest.mark.parametrize("case", CASES)
def test_answers_are_those_of_rows_written_out(case):
    one, other = models(case)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # short data
        one.fit(Y, n_starts=1)
    params = at_same_values(one, other)
    assert one.score(Y) == pytest.approx(one.trace_["log_likelihood"].iloc[-1], abs=1e-9)
    for name in ("filter", "e_step", "impute", "residuals"):
        xr.testing.assert_allclose(getattr(one, name)(Y), getattr(other, name)(Y, params), rtol=1e-9, atol=1e-10)
    xr.testing.assert_allclose(one.forecast(Y, FUTURE), other.forecast(Y, FUTURE, params), rtol=1e-9)
    own = {"b": Y["b"]}
    xr.testing.assert_allclose(one.simulate(own, 3, 2, seed=1), other.simulate(own, 3, 2, params, seed=1), rtol=1e-9)
    drawn = other.sample(9, params, seed=1, sequence="c")
    xr.testing.assert_allclose(one.sample(9, seed=1, sequence="c"), drawn, rtol=1e-9)


def test_the_estimates_are_those_of_rows_written_out():
    one, other = (model.fit(Y, n_starts=1) for model in models("names"))
    np.testing.assert_allclose(one.summary()["value"], other.summary()["value"], rtol=1e-4)
    assert list(one.summary().index) == list(other.summary().index)
    errors = one.standard_errors(Y), other.standard_errors(Y)
    np.testing.assert_allclose(*(found["process_cov"].values.ravel() for found in errors), rtol=1e-3)


def test_constants_have_a_future_without_end_and_are_saved(tmp_path):
    model = models("labelled dynamics")[0].fit(Y, n_starts=1)
    ahead = model.forecast(Y, 500)["mean"].sel(sequence="b")
    np.testing.assert_allclose(ahead.values[1:20] / ahead.values[:19], MOVE["b"], rtol=1e-6)
    model.save(tmp_path / "model.nc")
    again = sse.LinearGaussianSSM.load(tmp_path / "model.nc")
    assert again.score(Y) == model.score(Y)
    xr.testing.assert_identical(again.forecast(Y, 2), model.forecast(Y, 2))


def test_inputs_beside_constants():
    settings = LEVEL | {"state_offset": [{"m": MOVE}], "observation_input": "free"}
    written = LEVEL | {"state_offset": [{"m": each(MOVE)}], "observation_input": "free"}
    inputs = {key: RNG.normal(size=n + FUTURE) for key, n in LENGTHS.items()}
    one = sse.LinearGaussianSSM(**settings, **START).fit(Y, inputs=inputs, n_starts=1)
    other = sse.LinearGaussianSSM(**written, **START).fit(Y, inputs=inputs, n_starts=1)
    found = [model.forecast(Y, FUTURE, inputs=inputs)["mean"] for model in (one, other)]
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-4)


def test_sequences_go_by_name_and_others_are_refused():
    model = models("factors")[0]
    few = {"c": Y["c"], "a": Y["a"]}
    assert model.fit(Y, n_starts=1).score(few) == pytest.approx(sum(model.score({k: v}) for k, v in few.items()))
    with pytest.raises(DataError, match="has matrices for the sequences 'a', 'b', 'c', but y has 'd'"):
        model.score({"d": Y["a"]})
    with pytest.raises(ParameterError, match=r"has no rows for sequence 'a': give .*, as for 'b', or one"):
        sse.LinearGaussianSSM(**LEVEL | {"measurement_cov": [[{"r": {"a": 1.0, "b": W["b"]}}]]}).fit(Y)
    with pytest.raises(ParameterError, match=r"'a' \(1\), 'b' \(1\), 'c' \(1\), and for 'a' \(1\)"):
        sse.LinearGaussianSSM(**LEVEL | {"process_cov": [[{"q": SCALE}]], "measurement_cov": [[{"r": {"a": 1}}]]}).fit(
            Y
        )
    with pytest.raises(ParameterError, match=r"if they are sequences, put them under one name, .*numbers under 1"):
        sse.LinearGaussianSSM(**LEVEL | {"transition": {"a": [[1]], "b": [[0.9]]}}).fit(Y)
