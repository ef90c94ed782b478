"""What must not matter: units, order, blocks of rows, saving; and models that are limits of others."""

import numpy as np
import pytest
from hmm_cases import FAMILIES, case, family_of, model_of, parameters_of, with_prior

import statespace_em as sse
from statespace_em.emissions import evaluate

GAUSSIAN = ["full", "tied", "diagonal", "spherical"]


def close(left, right, tolerance=1e-9):
    np.testing.assert_allclose(left, right, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("c", [1e-4, 1e6])
@pytest.mark.parametrize("covariance", GAUSSIAN)
def test_units_of_the_data(covariance, c):
    tolerance = 1e-5
    _, _, y = case(covariance, 2, 150, 1, holes=True)
    shift = c * np.array([3.0, -7.0])
    plain = sse.GaussianHMM(2, covariance).fit(y)
    scaled = sse.GaussianHMM(2, covariance).fit(c * y + shift)
    n_seen = np.isfinite(y).sum()
    expected = plain.trace_["objective"].iloc[-1] - n_seen * np.log(c)
    np.testing.assert_allclose(scaled.trace_["objective"].iloc[-1], expected, rtol=1e-9)
    one, other = plain.params_, scaled.params_
    np.testing.assert_allclose((other["mean"] - shift) / c, one["mean"], rtol=tolerance, atol=tolerance)
    spread = "cov" if "cov" in one else "var"
    np.testing.assert_allclose(other[spread] / c**2, one[spread], rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(other["transition"], one["transition"], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", FAMILIES)
def test_one_em_step_does_not_know_the_order_of_states(kind):
    model, params, y = case(kind, 3, 60, 2, holes=True)
    order = [2, 0, 1]
    arrays = {name: params[name].values for name in params.data_vars}
    turned = {
        name: value[np.ix_(order, order)]
        if name == "transition"
        else value[order]
        if params[name].dims[0] == "state"
        else value
        for name, value in arrays.items()
    }
    other = model.parameters(**turned)
    if "symbol" in params.coords:
        other = other.assign_coords(symbol=params["symbol"])
    close(model.score(y, other), model.score(y, params))
    close(model.e_step(y, other)["gamma"], model.e_step(y, params)["gamma"][:, order])
    step = model.m_step(y, model.e_step(y, params), params)
    turned_step = model.m_step(y, model.e_step(y, other), other)
    for name in step.data_vars:
        expected = step[name].values
        if name == "transition":
            expected = expected[np.ix_(order, order)]
        elif step[name].dims[0] == "state":
            expected = expected[order]
        close(turned_step[name], expected)


@pytest.mark.parametrize("kind", FAMILIES)
def test_sequences_in_any_order_and_twice(kind):
    model, params, first = case(kind, 2, 40, 3, holes=True)
    parts = {"u": first, "v": case(kind, 2, 25, 4)[2], "w": case(kind, 2, 60, 5)[2]}
    y = {key: parts[key] for key in ("w", "u", "v")}
    twice = {**parts, **{key * 2: part for key, part in parts.items()}}
    close(model.score(y, params), model.score(parts, params))
    close(model.score(twice, params), 2.0 * model.score(parts, params))
    step = model.m_step(parts, model.e_step(parts, params), params)
    for data in (y, twice):
        other = model.m_step(data, model.e_step(data, params), params)
        for name in step.data_vars:
            close(other[name], step[name])


@pytest.mark.parametrize("kind", FAMILIES)
def test_blocks_of_rows(kind, monkeypatch):
    model, params, y = case(kind, 3, 100, 6, holes=True)
    posterior = model.e_step(y, params)
    step = model.m_step(y, posterior, params)
    monkeypatch.setattr(evaluate, "BLOCK", 7)
    np.testing.assert_array_equal(model.filter(y, params)["filtered"], model.filter(y, params)["filtered"])
    other = model.e_step(y, params)
    close(other["gamma"], posterior["gamma"], 1e-12)
    close(other["log_likelihood"], posterior["log_likelihood"], 1e-12)
    again = model.m_step(y, other, params)
    for name in step.data_vars:
        close(again[name], step[name], 1e-11)


@pytest.mark.parametrize("kind", ["full", "diagonal", "poisson", "categorical", "channels"])
def test_blocks_change_no_bit_of_the_filter(kind, monkeypatch):
    model, params, y = case(kind, 3, 100, 6, holes=True)
    whole = model.filter(y, params)
    monkeypatch.setattr(evaluate, "BLOCK", 7)
    np.testing.assert_array_equal(model.filter(y, params)["filtered"], whole["filtered"])


@pytest.mark.parametrize("build", ["hmm", "mixture"])
@pytest.mark.parametrize("kind", FAMILIES)
def test_one_state_has_the_closed_form(kind, build):
    y = case(kind, 2, 80, 7)[2]
    model = model_of(kind, 1) if build == "hmm" else sse.Mixture(1, family_of(kind))
    params = model.fit(y).params_
    if kind in ("categorical", "channels"):
        for d in range(y.shape[1]):
            prob = params["prob"][0] if y.shape[1] == 1 else params["prob"][0, d]
            close(prob, [(y[:, d] == symbol).mean() for symbol in params["symbol"].values], 1e-12)
        return
    close(params["rate" if kind == "poisson" else "mean"][0], y.mean(0), 1e-12)
    if kind == "poisson":
        return
    cov = np.cov(y.T, bias=True)
    expected = {"full": cov, "tied": cov, "diagonal": np.diag(cov), "spherical": np.diag(cov).mean()}
    close(np.squeeze(params["cov" if kind in ("full", "tied") else "var"]), expected[kind], 1e-11)


@pytest.mark.parametrize("kind", FAMILIES)
def test_identical_rows_are_a_mixture(kind):
    hmm, params, y = case(kind, 3, 60, 8, holes=True)
    weight = np.random.default_rng(0).dirichlet(np.ones(3))
    params = params.assign(initial=("state", weight), transition=(("state", "next_state"), np.tile(weight, (3, 1))))
    mixture = sse.Mixture(3, family_of(kind))
    own = params.drop_vars(["initial", "transition", "next_state"]).assign(weight=("state", weight))
    close(mixture.score(y, own), hmm.score(y, params), 1e-12)
    close(mixture.e_step(y, own)["gamma"], hmm.e_step(y, params)["gamma"], 1e-11)
    close(hmm.filter(y, params)["filtered"], hmm.e_step(y, params)["gamma"], 1e-11)


@pytest.mark.parametrize("kind", FAMILIES)
def test_blank_rows_at_the_end_say_nothing(kind):
    model, params, y = case(kind, 2, 40, 9)
    blank = np.full((3, y.shape[1]), None if y.dtype.kind not in "fi" else np.nan)
    longer = np.vstack([y, blank])
    close(model.score(longer, params), model.score(y, params), 1e-13)
    close(model.e_step(longer, params)["gamma"][:40], model.e_step(y, params)["gamma"], 1e-12)


def test_returns_in_units_of_one():
    """Variances near 1e-4 are not touched by any floor or ridge."""
    tolerance = 1e-6
    y = sse.datasets.stocks()["log_return"]["IBM"]
    plain, percent = sse.GaussianHMM(2).fit(y), sse.GaussianHMM(2).fit(100 * y)
    np.testing.assert_allclose(1e4 * plain.params_["cov"], percent.params_["cov"], rtol=tolerance)
    shifted = percent.trace_["objective"].iloc[-1] + len(y) * np.log(100)
    np.testing.assert_allclose(plain.trace_["objective"].iloc[-1], shifted, rtol=1e-10)


@pytest.mark.parametrize("level", [1e8, 1e10])
@pytest.mark.parametrize("covariance", GAUSSIAN)
def test_levels_whose_squares_swallow_the_spread(covariance, level):
    """The first guess, in squares of y, has no digit of the spread; nothing overflows and the fit is that at 0."""
    rng = np.random.default_rng(0)
    y = np.repeat([[0.0, 0.0], [6.0, 3.0]], 100, axis=0) + rng.normal(size=(200, 2))
    near, far = (sse.GaussianHMM(2, covariance).fit(y + shift) for shift in (0.0, level))
    assert far.score(y + level) == pytest.approx(near.score(y), rel=1e-14 * level)


@pytest.mark.parametrize("covariance", GAUSSIAN)
def test_levels_of_a_million_with_a_spread_of_one(covariance):
    tolerance = 1e-4
    _, _, y = case(covariance, 2, 200, 10)
    near, far = (sse.GaussianHMM(2, covariance).fit(y + level) for level in (0.0, 1e6))
    spread = "cov" if "cov" in near.params_ else "var"
    np.testing.assert_allclose(far.params_[spread], near.params_[spread], rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(far.params_["mean"] - 1e6, near.params_["mean"], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("build", ["own", "generic", "mixture"])
@pytest.mark.parametrize("informed", [False, True])
@pytest.mark.parametrize("kind", FAMILIES)
def test_save_and_load_lose_nothing(kind, informed, build, tmp_path):
    y = case(kind, 2, 60, 11)[2]
    model = with_prior(kind, 2) if informed else model_of(kind, 2)
    if build == "generic":
        model = sse.HMM(["a", "b"], model._family(), transition_prior=model.transition_prior)
    elif build == "mixture":
        model = sse.Mixture(["a", "b"], model._family(), weight_prior=model.initial_prior)
    model.fit(y, n_starts=2)
    model.save(tmp_path / "model.nc")
    again = type(model).load(tmp_path / "model.nc")
    assert again.params_.identical(model.params_)
    assert repr(again) == repr(model)
    assert again.trace_.equals(model.trace_)
    assert again.status_ == model.status_
    assert again.score(y) == model.score(y)
    assert again.log_prior() == model.log_prior()


@pytest.mark.parametrize("informed", [False, True])
@pytest.mark.parametrize("kind", FAMILIES)
def test_scikit_learn_clones_models(kind, informed):
    from sklearn.base import clone

    hmm = with_prior(kind, 2) if informed else model_of(kind, 2)
    mixture = sse.Mixture(["a", "b"], hmm._family())
    generic = sse.HMM(["a", "b"], mixture.emission, transition_prior=hmm.transition_prior)
    for model in (hmm, mixture, generic):
        copy = clone(model)
        assert copy is not model
        assert repr(copy) == repr(model)
        assert copy.get_params() == model.get_params()
        assert (
            eval(repr(model), {**vars(sse), **vars(sse.priors), **vars(sse.emissions)}).get_params()
            == model.get_params()
        )


def test_settings_can_be_changed_by_name():
    model = sse.GaussianHMM(2).set_params(covariance="diagonal", states=["calm", "wild"])
    assert repr(model) == "GaussianHMM(states=['calm', 'wild'], covariance='diagonal')"
    with pytest.raises(sse.errors.ParameterError, match="setting"):
        model.set_params(cov="full")


def test_parameters_survive_a_round_trip_through_names():
    model, params = parameters_of("full", 2, np.random.default_rng(0))
    shuffled = params.transpose("feature_aux", "next_state", "feature", "state").isel(state=[1, 0], next_state=[1, 0])
    y = np.random.default_rng(1).normal(size=(20, 2))
    assert model.score(y, shuffled) == model.score(y, params)
