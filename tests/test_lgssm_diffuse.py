"""Answers of a diffuse start rest on its first rows only, and are those of all rows."""

import numpy as np
import pandas as pd
import pytest

import statespace_em as sse
from statespace_em.sequence import lgssm_diffuse, lgssm_guesses

MODELS = {
    "trend": (sse.designs.local_trend(), 1),
    "motion": (sse.designs.constant_velocity(["east", "north"]), 2),
    "trend and season": (sse.designs.local_trend() + sse.designs.seasonal(4), 1),
}


def walk(n_rows, n_columns, seed=0):
    rng = np.random.default_rng(seed)
    speed = 0.1 * rng.normal(size=(n_rows, n_columns)).cumsum(0)
    return speed.cumsum(0) + rng.normal(size=(n_rows, n_columns))


def gappy(y):
    """Missing entries at random, and in the rows where the start would be told."""
    y = np.where(np.random.default_rng(1).random(y.shape) < 0.2, np.nan, y)
    y[1:40] = np.nan
    return y


def answers(model, y):
    """Everything that is known of the rows, and their number that was looked at for the start."""
    looked = []
    with pytest.MonkeyPatch.context() as patch:
        forward = lgssm_diffuse.forward
        patch.setattr(lgssm_diffuse, "forward", lambda start, part: looked.append(len(part.y)) or forward(start, part))
        posterior, known = model.e_step(y), model.filter(y)
    return posterior, known, max(looked)


def test_stand_ins_are_found_once_for_known_dynamics(monkeypatch):
    moves, calls = lgssm_diffuse._moves, []
    monkeypatch.setattr(lgssm_diffuse, "_moves", lambda *args: calls.append(args) or moves(*args))
    model, y = sse.designs.local_trend(), walk(50, 1)
    params = model.parameters(process_cov=np.diag([1.0, 2.0]), measurement_cov=[[3.0]])
    core, tree, batch, *_ = model._prepare(y, params, freeze=())
    other = tree._replace(process_cov=np.eye(2))
    found = core.e_step(tree, batch)[1], core.log_likelihood(other, batch)
    assert len(calls) == 1
    core.e_step(tree._replace(transition=np.array([[1.0, 2.0], [0.0, 1.0]])), batch)
    assert len(calls) == 2
    assert found == pytest.approx((model.score(y, params), core.e_step(other, batch)[1]))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("spoiled", [lambda y: y, gappy], ids=["whole", "gappy"])
def test_the_first_rows_are_enough(name, spoiled, monkeypatch):
    monkeypatch.setattr(lgssm_guesses, "shared_variances", lambda *args: {})  # parameters do not hang on ranking
    model, n_columns = MODELS[name]
    y = {key: spoiled(walk(n_rows, n_columns, key)) for key, n_rows in enumerate((2500, 50, 3000))}
    model = model.fit(y, n_starts=1, max_iter=2, tol=0.0)
    posterior, known, looked = answers(model, y)
    monkeypatch.setattr(lgssm_diffuse, "HEAD", 10_000)
    whole_posterior, whole_known, all_rows = answers(model, y)
    assert all_rows == 5550
    assert looked < 2600  # of the three sequences together; a gap of 39 rows and slow forgetting included
    for few, many in ((posterior, whole_posterior), (known, whole_known)):
        for variable in many.data_vars:
            # moments are known to the last digits of the largest of their factors: in a gap variances are large
            largest = np.nanmax(np.abs(many[variable].where(np.isfinite(many[variable]))))
            atol = {"xi": 1e-15, "cov": 1e-12, "cross_cov": 1e-12}.get(variable, 1e-11 / largest) * largest
            np.testing.assert_allclose(few[variable], many[variable], rtol=1e-11, atol=atol, err_msg=variable)


def test_a_start_that_is_never_told_stays_unknown():
    """A state that fades and is not seen: its response dies out, but not the doubt about it."""
    y = walk(400, 1)
    model = sse.LinearGaussianSSM(2, initial="diffuse")
    params = model.parameters(
        transition=np.diag([1.0, 0.5]), process_cov=np.eye(2), observation=[[1.0, 0.0]], measurement_cov=[[1.0]],
        initial_mean=[0, 0], initial_cov=np.diag([np.inf, np.inf]),
    )  # fmt: skip
    known = model.filter(y, params)
    assert np.isinf(known.filtered_cov.values[:, 1, 1]).all()
    assert np.isfinite(known.filtered_cov.values[1:, 0, 0]).all()
    with pytest.raises(sse.errors.StateSpaceError, match="do not determine"):
        model.e_step(y, params)


def test_states_that_rows_do_not_tell_apart_are_named():
    y = walk(60, 1)
    x = pd.DataFrame({"one": np.ones(60), "x": np.sin(np.arange(60.0)), "twice": 2.0 * np.sin(np.arange(60.0))})
    for columns, named in ((["one", "x"], "'level', 'one'"), (["x", "twice"], "'x', 'twice'")):
        model = sse.designs.local_level() + sse.designs.regression(x[columns])
        with pytest.raises(sse.errors.UndeterminedStartError, match=f"fixed first state of {named}: give it more rows"):
            model.fit(y)
    params = sse.designs.local_trend().fit(y).params_
    with pytest.raises(sse.errors.UndeterminedStartError, match="of 'slope': give"):
        sse.designs.local_trend().decode(y[:1], params)


def test_the_sequence_that_does_not_tell_its_start_is_named():
    y = {"long": walk(100, 1), "blank": np.full((300, 1), np.nan)}
    model = sse.designs.local_trend()
    model.fit(y["long"])
    with pytest.raises(sse.errors.DataError, match="sequence 'blank'"):
        model.e_step(y)


FAR_AWAY = {
    "level": {"transition": [[1.0]], "process_cov": [[1.0]], "observation": [[1.0]], "initial": "diffuse"},
    "fixed": {"transition": [[1.0]], "process_cov": [[1.0]], "observation": [[1.0]], "initial": "fixed"},
    "trend": {
        "transition": [[1.0, 1.0], [0.0, 1.0]], "process_cov": [[1.0, 0.0], [0.0, 0.1]], "observation": [[1.0, 0.0]],
        "initial": "diffuse", "likelihood": "marginal",
    },
}  # fmt: skip


@pytest.mark.parametrize("far", [1e4, 1e6, 1e9])
@pytest.mark.parametrize("name", FAR_AWAY)
def test_levels_far_from_zero_cost_no_digits(name, far):
    """Metres of a map grid, in millimetres: only the digits are lost that y itself has not."""
    y = gappy(walk(150, 1))
    y[:3] = np.nan
    moved = y + far
    model = sse.LinearGaussianSSM(**FAR_AWAY[name], measurement_cov=[[1.0]])
    near, params = moved - far, model.parameters()
    assert model.score(moved, params) == pytest.approx(model.score(near, params), abs=1e-10 + 1e-14 * far)
    assert model.score([moved, moved], params) == pytest.approx(
        model.score([near, near], params), abs=1e-9 + 1e-14 * far
    )
    shift = far * np.eye(len(FAR_AWAY[name]["transition"]))[0]
    found = model.e_step(moved, params)
    np.testing.assert_allclose(
        found.gamma - shift, model.e_step(near, params).gamma, rtol=0.0, atol=1e-10 + 1e-14 * far
    )
    assert float(found.log_likelihood) == pytest.approx(model.score(near, params), abs=1e-10 + 1e-14 * far)


@pytest.mark.parametrize(
    "design", [sse.designs.local_level(), sse.designs.constant_velocity(1)], ids=["level", "motion"]
)
def test_fits_far_from_zero_are_those_near_it(design):
    y = walk(80, 1)
    moved = y + 2.0**20  # which costs y its last digits only
    near = moved - 2.0**20
    fitted, expected = (design.fit(rows).summary()["value"].to_numpy() for rows in (moved, near))
    np.testing.assert_allclose(fitted, expected, rtol=1e-6)
