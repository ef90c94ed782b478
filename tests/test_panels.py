"""What each sequence of a panel has of its own: against the dense joint Gaussian, and each sequence alone."""

import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from lgssm_cases import core_of, em_steps, oracle_of, score_and_slopes
from oracles_gaussian import posterior

import statespace_em as sse
from statespace_em import checks, designs
from statespace_em.data import as_batch
from statespace_em.errors import DataError, ParameterError

LENGTHS = {"a": 22, "b": 13, "c": 17}
FUTURE = 3
RNG = np.random.default_rng(0)
ROWS = {key: n + FUTURE for key, n in LENGTHS.items()}
W = {key: RNG.uniform(0.5, 3.0, n) for key, n in ROWS.items()}
X = {key: RNG.normal(size=n) for key, n in ROWS.items()}
REGIME = {
    key: np.where(np.arange(n) < cut, "early", "late") for (key, n), cut in zip(ROWS.items(), (9, 4, 12), strict=True)
}
SHARED = RNG.uniform(0.5, 1.5, max(ROWS.values()))
START = {"initial": "known", "initial_mean": [0.3], "initial_cov": [[2.0]]}
LEVEL = {"transition": [[1]], "process_cov": [["q"]], "observation": [[1]], "measurement_cov": [["r"]]}


def stacked(parts):
    """As a Series with two index levels."""
    return pd.concat({key: pd.Series(own) for key, own in parts.items()}, names=["sequence", "time"])


def table(parts):
    """As a DataArray padded to one length."""
    keys, lengths = list(parts), [len(own) for own in parts.values()]
    rest = next(iter(parts.values())).shape[1:]
    values = np.full((len(keys), max(lengths), *rest), np.nan)
    for i, own in enumerate(parts.values()):
        values[i, : len(own)] = own
    coords = {"sequence": keys, "length": ("sequence", lengths)}
    return xr.DataArray(values, coords, ("sequence", "time", *(f"dim_{i}" for i in range(len(rest)))))


def shared(f):
    """What all sequences share, for the rows asked for."""
    own = f(W)
    return SHARED if isinstance(own, dict) else SHARED[: len(own)]


# what a model is made of, given the arrays of all sequences (as f makes them), or of one
CASES = {
    "accuracies": lambda f: {**LEVEL, "measurement_cov": [[{"r": f(W)}]]},
    "breaks": lambda f: {**LEVEL, "process_cov": [[f(REGIME, names=True)]]},
    "loadings": lambda f: {
        **LEVEL, "observation": [[1], [{"beta": f(X)}]], "measurement_cov": "diagonal",
        "observation_offset": [0, {"d": f(W), "e": 1}],
    },
    "dynamics": lambda f: {
        **LEVEL, "transition": [[{"a": 1, "b": f(X)}]], "process_cov": {"q": f(W)}, "state_offset": [{"m": f(X)}],
    },
    "known": lambda f: {**LEVEL, "observation": [[{1: f(X)}], [1]], "measurement_cov": "scalar"},
    "shared rows": lambda f: {
        **LEVEL, "process_cov": [[{"q": shared(f)}]], "measurement_cov": [[{"r": f(W)}]],
    },
}  # fmt: skip


def plain_all(parts, names=False):
    return stacked(parts) if names else parts


def each(key):
    return lambda parts, names=False: parts[key]


def data(columns=1, seed=1, missing=0.1):
    rng = np.random.default_rng(seed)
    found = {}
    for key, n in LENGTHS.items():
        y = 0.5 * rng.normal(size=(n, columns)).cumsum(0) + rng.normal(size=(n, columns))
        y[rng.random(y.shape) < missing] = np.nan
        found[key] = y
    return found


def columns_of(case):
    return len(CASES[case](plain_all)["observation"])


def fitted(model, y, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # short data
        return model.fit(y, **options)


def alone(model, case, key):
    """The model of one sequence, with the values found for all."""
    spec = model._specification(columns_of(case))
    one = sse.LinearGaussianSSM(**CASES[case](each(key)), **START)
    own = one._specification(columns_of(case))
    params = {}
    for name, value in model.params_.data_vars.items():
        pattern = own.patterns.get(name)
        if "time" in value.dims:
            if name in own.varying:
                continue
            words = spec.free_values(name, value.values)
            params[name] = pattern.build(np.array([words[word] for word in pattern.names]))
        else:
            params[name] = value.values
    return one, one.parameters(**params)


@pytest.fixture(scope="module", params=list(CASES))
def found(request):
    y = data(columns_of(request.param))
    return request.param, y, fitted(sse.LinearGaussianSSM(**CASES[request.param](plain_all), **START), y, n_starts=1)


def test_answers_are_those_of_each_sequence_alone(found):
    case, y, model = found
    wholes = {
        "e_step": model.e_step(y), "filter": model.filter(y), "lag": model.fixed_lag(y, 2), "imputed": model.impute(y),
        "forecast": model.forecast(y, FUTURE), "residuals": model.residuals(y),
    }  # fmt: skip
    total = 0.0
    for key, own in y.items():
        one, params = alone(model, case, key)
        total += one.score(own, params)
        singles = {
            "e_step": one.e_step(own, params), "filter": one.filter(own, params), "lag": one.fixed_lag(own, 2, params),
            "imputed": one.impute(own, params), "forecast": one.forecast(own, FUTURE, params),
            "residuals": one.residuals(own, params),
        }  # fmt: skip
        for word, single in singles.items():
            whole = wholes[word].sel(sequence=key)
            for name, value in single.data_vars.items():
                got = whole[name].isel(time=slice(len(own))) if "time" in value.dims else whole[name]
                np.testing.assert_allclose(got.values, value.values, rtol=1e-8, atol=1e-10, err_msg=f"{word} {name}")
        np.testing.assert_allclose(model.score({key: own}), one.score(own, params), rtol=1e-12)
        p = dense(one, params)
        assert posterior(own, p).log_likelihood == pytest.approx(one.score(own, params), rel=1e-10)
        drawn = model.simulate_smoothed({key: own}, 200, seed=3).mean("path")
        np.testing.assert_allclose(drawn, one.simulate_smoothed(own, 200, params, seed=3).mean("path"), rtol=1e-8)
        later = model.simulate({key: own}, FUTURE, 50, seed=3)["y"]
        np.testing.assert_allclose(later, one.simulate(own, FUTURE, 50, params, seed=3)["y"], rtol=1e-8)
    assert model.score(y) == pytest.approx(total, rel=1e-12)


def dense(one, params):
    """The oracle's parameters of one sequence."""
    tree = one._core(n_features=params.sizes["feature"]).build(one._schema().arrays(params))
    return oracle_of(tree)


@pytest.mark.parametrize("case", CASES)
def test_score_and_steps(case):
    """The slope is that of the log-likelihood, and no step of EM loses."""
    y = data(columns_of(case), seed=2)
    model = sse.LinearGaussianSSM(**CASES[case](plain_all), **START)
    core, batch, params = core_of(model, y)
    trace, params = em_steps(core, batch, params, 6)
    assert (np.diff(trace) > -1e-9).all()
    slope, slopes = score_and_slopes(core, batch, params)
    np.testing.assert_allclose(slope, slopes, rtol=1e-6, atol=1e-7 * max(1.0, np.abs(slopes).max()))


def test_standard_errors_are_those_of_the_sum_over_sequences():
    """Against the numerical Hessian in the values themselves."""
    y = {key: np.vstack([own] * 4) for key, own in data(seed=5, missing=0.0).items()}
    wide = {key: np.tile(W[key][: LENGTHS[key]], 4) for key in y}
    model = sse.LinearGaussianSSM(**{**LEVEL, "measurement_cov": [[{"r": wide}]]}, **START).fit(y)
    errors = model.standard_errors(y, of="named")
    names, best = ["q", "r"], model.summary()["value"].to_numpy()

    def at(values):
        total = 0.0
        for key, own in y.items():
            one = sse.LinearGaussianSSM(**{**LEVEL, "measurement_cov": [[wide[key]]]}, **START)
            known = {"process_cov": [[values[0]]], "measurement_cov": values[1] * wide[key][:, None, None]}
            one = sse.LinearGaussianSSM(
                **{**LEVEL, "process_cov": [[values[0]]]} | {"measurement_cov": known["measurement_cov"]}, **START
            )
            total += one.score(own, one.parameters())
        return total

    steps = 1e-3 * best
    hessian = np.empty((2, 2))
    for i, ei in enumerate(np.diag(steps)):
        for j, ej in enumerate(np.diag(steps)):
            corners = at(best + ei + ej) - at(best + ei - ej) - at(best - ei + ej) + at(best - ei - ej)
            hessian[i, j] = corners / (4 * steps[i] * steps[j])
    expected = np.sqrt(np.diag(np.linalg.inv(-hessian)))
    np.testing.assert_allclose([errors[name].item() for name in names], expected, rtol=1e-4)


def test_every_form_is_the_same_model(tmp_path):
    y = data(seed=3)
    forms = (W, list(W.values()), stacked(W), table(W), {key: pd.Series(own) for key, own in W.items()})
    models = [
        fitted(sse.LinearGaussianSSM(**{**LEVEL, "measurement_cov": [[{"r": own}]]}, **START), y) for own in forms
    ]
    cubes = {key: own[:, None, None] for key, own in W.items()}
    models.append(fitted(sse.LinearGaussianSSM(**{**LEVEL, "measurement_cov": {"r": cubes}}, **START), y))
    for model in models[1:]:
        np.testing.assert_allclose(model.summary()["value"], models[0].summary()["value"], rtol=1e-9)
    r = models[0].summary()["value"].to_numpy()[1]
    known = {key: r * own for key, own in cubes.items()}
    named = table(known).rename(dim_0="feature", dim_1="feature_aux")
    for own in (list(known.values()), named, [[{1: {key: part[:, 0, 0] for key, part in known.items()}}]]):
        model = sse.LinearGaussianSSM(**{**LEVEL, "measurement_cov": own, "process_cov": [[0.7]]}, **START)
        scores = [model.score(part, model.parameters()) for part in (y, list(y.values()))]
        whole = sse.LinearGaussianSSM(**{**LEVEL, "process_cov": [[0.7]]} | {"measurement_cov": [[{"r": W}]]}, **START)
        expected = whole.score(y, whole.parameters(measurement_cov=np.concatenate(list(known.values()))))
        np.testing.assert_allclose(scores, expected, rtol=1e-12)
    turned = dict(reversed(list(y.items())))  # sequences go by name
    assert models[0].score(turned) == pytest.approx(models[0].score(y), rel=1e-12)
    models[0].save(tmp_path / "model.nc")
    assert sse.LinearGaussianSSM.load(tmp_path / "model.nc").score(y) == pytest.approx(models[0].score(y), rel=1e-12)


def test_loadings_of_each_sequence():
    y = data(2, seed=4)
    G = {key: np.stack([np.ones(n), X[key]], 1)[:, :, None] for key, n in ROWS.items()}
    arguments = {
        "transition": [[0.9, 0], [0, 0.5]], "observation": [[1, 0], [0, 1]], "measurement_cov": "diagonal",
        "process_cov": [["q"]], "initial": "known", "initial_mean": [0, 0], "initial_cov": np.eye(2),
    }  # fmt: skip
    model = fitted(sse.LinearGaussianSSM(**arguments, process_loading=G), y, n_starts=1)
    q = model.summary()["value"].to_numpy()[0]
    total = 0.0
    for key, own in y.items():
        noise = q * G[key] @ G[key].swapaxes(1, 2)
        one = sse.LinearGaussianSSM(**{**arguments, "process_cov": noise})
        total += one.score(own, one.parameters(measurement_cov=model.params_["measurement_cov"].values))
    assert model.score(y) == pytest.approx(total, rel=1e-10)


def test_draws_are_of_each_sequence():
    """Of many rows with noise of their own size, what is drawn has it."""
    scale = {"small": np.full(400, 0.01), "large": np.full(300, 100.0)}
    noise = {**LEVEL, "process_cov": [[1e-6]], "measurement_cov": [[{"r": scale}]]}
    model = sse.LinearGaussianSSM(**noise, initial="known", initial_mean=[0.0], initial_cov=[[1e-6]])
    rng = np.random.default_rng(0)
    y = {key: np.sqrt(own) * rng.normal(size=len(own)) for key, own in scale.items()}
    model = model.fit(y)
    table = checks.predictive_check(model, y, {key: lambda d, key=key: d[key].std() for key in y}, n_replicates=20)
    np.testing.assert_allclose(table["mean"], [0.1, 10.0], rtol=0.1)
    drawn = model.bootstrap(y, n_replicates=2)
    assert dict(drawn.sizes)["replicate"] == 2
    np.testing.assert_allclose(drawn["measurement_cov"][:, [0, -1]].values.ravel(), [0.01, 100.0] * 2, rtol=0.3)


def test_other_questions_know_which_sequence_they_are_about():
    y = {key: pd.Series(own[:, 0]) for key, own in data(seed=9).items()}
    model = fitted(sse.LinearGaussianSSM(**CASES["accuracies"](plain_all), **START), y)
    rows = model.params_["measurement_cov"]
    assert rows["sequence"].values.tolist() == [key for key, n in ROWS.items() for _ in range(n)]
    assert rows["row"].values.tolist() == [t for n in ROWS.values() for t in range(n)]
    shocks = checks.auxiliary_residuals(y, model.e_step(y), model.params_)
    for key, own in y.items():
        one, params = alone(model, "accuracies", key)
        whole = fitted(one, own, start=params, max_iter=1).params_.assign(
            {name: (one.params_[name].dims, params[name].values) for name in ("process_cov", "measurement_cov")}
        )
        single = checks.auxiliary_residuals(own, one.e_step(own, whole), whole)
        for name, value in single.items():
            np.testing.assert_allclose(shocks[name].sel(sequence=key)[: len(own)], value, rtol=1e-9, atol=1e-12)
    with pytest.raises(DataError, match="the parameters have no transition: add it"):
        checks.auxiliary_residuals(y["a"], model.e_step(y).isel(sequence=0), whole.drop_vars("transition"))
    with pytest.raises(DataError, match="measurement_cov in the parameters has 20 rows, but y goes on to row 21"):
        checks.auxiliary_residuals(y["a"], model.e_step(y).isel(sequence=0), whole)
    walk = sse.walk_forward(model, y, min_train=10, refit=10)
    known = fitted(type(model)(**model.get_params()), {key: own[:10] for key, own in y.items()})
    there = known.filter({"b": y["b"]})["predicted"].isel(sequence=0, time=slice(10, None))
    np.testing.assert_allclose(walk["predicted"].sel(sequence="b")[: len(there)], there, rtol=1e-9)
    assert walk["fitted_measurement_cov"].dims == ("refit", "row", "feature", "feature_aux")
    single = sse.LinearGaussianSSM(**{**LEVEL, "measurement_cov": [[{"r": W["a"]}]]}, **START)
    alone_walk = sse.walk_forward(single, y["a"], min_train=10, refit=10)
    assert alone_walk["predicted"].sizes["time"] == LENGTHS["a"] - 10
    heavy = sse.robust.fit_student(model, y, dof=5.0)
    assert heavy.model.params_["measurement_cov"].sizes["time"] == sum(ROWS.values())
    assert all(value > 0.0 for value in heavy.standard_errors(y).values())


# regressions


def regressed(seed=6):
    rng = np.random.default_rng(seed)
    slopes = {"a": 2.0, "b": -1.0, "c": 0.5}
    return {
        key: pd.Series(0.3 * rng.normal(size=n).cumsum() + slopes[key] * X[key][:n] + 0.5 * rng.normal(size=n))
        for key, n in LENGTHS.items()
    }


@pytest.mark.parametrize("unit", [None, "h", "uneven"])
def test_regressors_of_each_sequence(unit, tmp_path):
    y = regressed()
    if unit == "uneven":
        rng = np.random.default_rng(0)
        y = {key: own.set_axis(rng.uniform(0.5, 1.5, len(own)).cumsum()) for key, own in y.items()}
    step = {} if unit is None else {"unit": "h"}
    model = fitted(designs.local_level(**step) + designs.regression(X), y)
    parts = model.decompose(y)
    ahead = model.forecast(y, FUTURE)
    total = 0.0
    for key, own in y.items():
        one = designs.local_level(**step) + designs.regression(X[key])
        params = model.params_.drop_dims("time")
        total += one.score(own, params)
        single = one.decompose(own, params)
        np.testing.assert_allclose(parts["mean"].sel(sequence=key)[: len(own)], single["mean"], rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(
            ahead["mean"].sel(sequence=key), one.forecast(own, FUTURE, params)["mean"], rtol=1e-8
        )
    assert model.score(y) == pytest.approx(total, rel=1e-10)
    frame = {key: pd.DataFrame({"x0": own}) for key, own in X.items()}
    for form in (list(X.values()), stacked(X), table(X), frame):
        again = designs.local_level(**step) + designs.regression(form)
        assert again.score(y, model.params_) == pytest.approx(total, rel=1e-10)
    model.save(tmp_path / "model.nc")
    assert type(model).load(tmp_path / "model.nc").score(y) == pytest.approx(total, rel=1e-10)
    assert model.bootstrap(y, n_replicates=2).sizes["replicate"] == 2
    residuals = checks.auxiliary_residuals({"b": y["b"]}, model.e_step({"b": y["b"]}), rows_of(model, {"b": y["b"]}))
    assert np.isfinite(residuals["measurement_shock"]).sum() >= LENGTHS["b"] - 2
    both = designs.local_level(**step) + designs.regression(X) + designs.regression(SHARED[:, None])
    one = designs.local_level(**step) + designs.regression(X["c"]) + designs.regression(SHARED[: ROWS["c"], None])
    first = fitted(both, {"c": y["c"]})
    assert first.score({"c": y["c"]}) == pytest.approx(one.score(y["c"], first.params_.drop_dims("time")), rel=1e-9)


def test_regressors_of_different_lengths_are_refused():
    for step in ({}, {"unit": "h"}):
        both = designs.local_level(**step) + designs.regression(X["a"]) + designs.regression(X["c"])
        with pytest.raises(ParameterError, match="X of one regression has 25 rows, that of another 20: give both for"):
            both.fit(regressed()["c"])


@pytest.mark.parametrize("unit", [None, "D"])
def test_regressors_that_become_known_later_and_times_that_do_not_fit(unit):
    step = {} if unit is None else {"unit": unit}
    y, frames = {}, {}
    for i, (key, n) in enumerate(LENGTHS.items()):
        index = pd.date_range("2024-01-01", periods=n + FUTURE) + pd.Timedelta(i, "D")
        frames[key] = pd.DataFrame({"p": X[key], "d": W[key]}, index)
        y[key] = regressed()[key].set_axis(index[:n])
    frames["b"] = frames["b"][["d", "p"]]  # columns go by name
    short = {key: frame.iloc[: LENGTHS[key]] for key, frame in frames.items()}
    model = fitted(designs.local_level(**step) + designs.regression(short), y)
    with pytest.raises(DataError, match="for sequence 'a' has 22 rows, but 2 rows beyond the 22 of y are asked for"):
        model.forecast(y, 2)
    longer = designs.local_level(**step) + designs.regression(frames)
    assert longer.score(y, model.params_) == pytest.approx(model.score(y), rel=1e-12)
    whole = fitted(designs.local_level(**step) + designs.regression(frames), y)
    ahead = longer.forecast(y, FUTURE, params=whole.params_.drop_dims("time"))
    np.testing.assert_allclose(ahead["mean"], whole.forecast(y, FUTURE)["mean"], rtol=1e-12)
    shifted = {**short, "c": short["c"].shift(1, freq="D")}
    with pytest.raises(
        DataError, match="row 0 of y of sequence 'c' is at 2024-01-03 00:00:00, but that of X at 2024-01-04"
    ):
        (designs.local_level(**step) + designs.regression(shifted)).fit(y)
    with pytest.raises(ParameterError, match="X cannot be read: sequence 'b' has columns 'd', but sequence 'a' has"):
        designs.regression({**short, "b": short["b"][["d"]]})


def rows_of(model, y):
    if hasattr(model, "parameters_at"):
        return model.parameters_at(y)
    begin = ROWS["a"]
    return model.params_.isel(time=slice(begin, begin + LENGTHS["b"]))


def test_inputs_go_by_the_name_of_the_sequence():
    y, U = data(seed=8), {key: own[:, None] for key, own in X.items()}
    model = sse.LinearGaussianSSM(**LEVEL, state_input=[["b"]], **START)
    model = fitted(model, y, inputs=U)
    turned = dict(reversed(list(U.items())))
    assert model.score(y, inputs=turned) == pytest.approx(model.score(y, inputs=U), rel=1e-12)
    assert model.score({"b": y["b"]}, inputs=U) == pytest.approx(model.score(y["b"], inputs=U["b"]), rel=1e-12)
    with pytest.raises(DataError, match="inputs= has the sequences 'a', 'c', but y has 'b': give it there too"):
        model.score(y, inputs={key: U[key] for key in "ac"})
    assert model.bootstrap(y, n_replicates=2, inputs=turned).sizes["replicate"] == 2


# refusals


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"measurement_cov": [[{"r": {"a": W["a"], "b": 2.0}}]]}, "has no rows for sequence 'b': give an array"),
        ({"measurement_cov": [[{"r": {}}]]}, "measurement_cov is given for no sequence"),
        ({"measurement_cov": [[{"r": W}]], "process_cov": [[{"q": {"a": W["a"]}}]]},
         r"for the sequences \(and rows\) 'a' \(25\).*, and for 'a' \(25\), 'b' \(16\), 'c' \(20\): give all"),
        ({"measurement_cov": [[{"r": W, "s": {key: own[1:] for key, own in W.items()}}]]},
         r"measurement_cov is given for the sequences \(and rows\) 'a' \(25\).*and for 'a' \(24\)"),
        ({"measurement_cov": [[{"r": W}]], "process_cov": [[{"q": W["b"]}]]},
         "process_cov is given for 16 rows, but what each sequence has of its own for 25 of 'a'"),
        ({"transition": xr.DataArray(np.ones((3, 1, 1)), dims=("ship", "next_state", "state"))},
         r"transition has dims \('ship', .*\), expected .*, or with a time or sequence dim"),
        ({"measurement_cov": [[xr.DataArray(np.ones((3, 25)), dims=("ship", "time"))]]},
         r"an entry with dims \('ship', 'time'\).*call it 'sequence'"),
        ({"measurement_cov": [[{"r": {**W, "b": np.where(np.arange(16) == 5, np.nan, W["b"])}}]]},
         r"measurement_cov has nan at \(0, 0\) in row 5 of sequence 'b', expected a finite number"),
        ({"measurement_cov": [[{"r": {**W, "c": np.where(np.arange(20) == 3, -1.0, W["c"])}}]]},
         r"measurement_cov has -1 times 'r' as the variance at \(0, 0\) in row 3 of sequence 'c'"),
        ({"measurement_cov": {"r": {"a": np.ones((3, 1, 1)), "b": np.ones((3, 2, 2))}}},
         r"arrays of different shapes for the sequences: \(3, 1, 1\) for 'a', \(3, 2, 2\) for 'b'"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(ParameterError, match=message):
        sse.LinearGaussianSSM(**{**LEVEL, **changes}, **START).fit(data())


def test_questions_that_do_not_fit_are_refused():
    y = data()
    same = {key: np.ones(25) for key in y}
    with pytest.raises(ParameterError, match=r"only a sum matters.* if they are sequences, put them under one name"):
        sse.LinearGaussianSSM(**{**LEVEL, "measurement_cov": [[same]]}, **START).fit(y)
    same = {key: np.arange(25.0) ** power for power, key in enumerate(y)}
    with pytest.raises(DataError, match=r"the names 'a', 'b', ..., which are those of the sequences.*under one name"):
        sse.LinearGaussianSSM(**{**LEVEL, "measurement_cov": [[same]]}, **START).fit(y)
    model = fitted(sse.LinearGaussianSSM(**CASES["accuracies"](plain_all), **START), y)
    with pytest.raises(DataError, match=r"matrices for each of the sequences 'a', 'b', 'c', but y is a single one"):
        model.score(y["a"])
    with pytest.raises(DataError, match="the model has matrices for the sequences 'a', 'b', 'c', but y has 'd'"):
        model.score({"d": y["a"]})
    with pytest.raises(DataError, match="for 3 sequences, but y has 2: give as many, or name them, in a dict"):
        model.score([y["a"], y["b"]])
    with pytest.raises(DataError, match="for sequence 'b' has 16 rows, but y has 22"):
        model.score({"b": y["a"]})
    with pytest.raises(DataError, match="for sequence 'a' has 25 rows, but 4 rows beyond the 22 of y are asked for"):
        model.forecast(y, FUTURE + 1)
    with pytest.raises(ParameterError, match="sequence is None, expected one of 'a', 'b', 'c'"):
        model.sample(3)
    with pytest.raises(DataError, match="for sequence 'b' has 16 rows, but 20 are asked for"):
        model.sample(20, sequence="b")
    with pytest.raises(ParameterError, match="sequence is 'a', but all sequences have the same matrices"):
        designs.local_level().fit(y).sample(3, sequence="a")
    with pytest.raises(DataError, match=r"a stream is none of them: give it with the row, update\(row, matrices"):
        model.stream().update(1.0)
    step = model.stream().update(1.0, matrices={"measurement_cov": [[{"r": 2.0}]]})
    assert np.isfinite(step.filtered).all()
    dated = {key: pd.Series(own, pd.date_range("2024", periods=len(own))) for key, own in W.items()}
    timed = sse.LinearGaussianSSM(**{**LEVEL, "measurement_cov": [[{"r": dated}]]}, **START)
    late = {key: pd.Series(own[:, 0], pd.date_range("2024-01-02", periods=len(own))) for key, own in y.items()}
    with pytest.raises(DataError, match="row 0 of sequence 'a' is at 2024-01-02 in y, but at 2024-01-01 in what"):
        timed.fit(late)
    shorter = {key: own[:-1] for key, own in W.items()}
    other = sse.LinearGaussianSSM(**{**LEVEL, "measurement_cov": [[{"r": shorter}]]}, **START)
    with pytest.raises(ParameterError, match=r"measurement_cov in the parameters has 61 rows, but those of .* are 58"):
        other.score(y, model.params_)
    pytest.importorskip("dask")
    chunked = xr.DataArray(np.zeros((3, 25)), dims=("sequence", "time")).chunk(sequence=1)
    with pytest.raises(DataError, match=r"y is in chunks, but the model has matrices for each of its sequences"):
        model.score(chunked)
    with pytest.raises(ParameterError, match=r"X is missing \(.*row.*|X is missing"):
        designs.regression({"a": np.array([1.0, np.nan]), "b": np.ones(3)})
    assert as_batch(y)[0].place is None


def test_series_with_matrices_of_their_own_are_fitted_apart_and_simulated():
    y = data(missing=0.0)
    for model, own in (
        (sse.LinearGaussianSSM(**CASES["accuracies"](plain_all), **START), "accuracies"),
        (designs.constant() + designs.regression({key: X[key][:, None] for key in y}), "regression"),
    ):
        many = sse.fit_many(model, y)
        one = fitted(model, {"b": y["b"]})
        assert many["log_likelihood"].sel(series="b").item() == pytest.approx(one.score({"b": y["b"]}), abs=1e-9)
        if own == "accuracies":
            apart = sse.LinearGaussianSSM(**CASES[own](each("b")), **START)
        else:
            apart = designs.constant() + designs.regression(X["b"][:, None])
        apart = fitted(apart, y["b"])
        assert many["log_likelihood"].sel(series="b").item() == pytest.approx(apart.score(y["b"]), abs=1e-7)
        drawn, alone_ = model.sample(15, one.params_, seed=3, sequence="b"), apart.sample(15, seed=3)
        np.testing.assert_allclose(drawn["y"].values, alone_["y"].values, rtol=1e-4)
    with pytest.raises(DataError, match=r"not one series could be fitted.* for 3 sequences, but y has 1: give as many"):
        sse.fit_many(model, list(y.values()))


def test_a_sample_longer_than_the_regressors_says_so():
    model = (designs.local_level() + designs.regression(np.arange(30.0) ** 2)).fit(RNG.normal(size=30))
    with pytest.raises(DataError, match="X of the regression is given for 30 rows, but 31 are asked for: give X a row"):
        model.sample(31)
