"""Decays: their coordinates, and fits whose likelihood is highest at a unit root."""

import numpy as np
import pytest
from scipy.optimize import minimize

import statespace_em as sse
from statespace_em import designs
from statespace_em.sequence.decays import WALL, Placed, _Lags, _Relaxation, _Turn, in_step, lags, partials
from statespace_em.sequence.lgssm_stationary import stationary_moments

ROWS = np.arange(72)
RNG = np.random.default_rng(3)
SEASON = 2.0 * np.sin(2.0 * np.pi * ROWS / 12.0) + np.cumsum(0.4 * RNG.normal(size=72)) + 0.8 * RNG.normal(size=72)
WALK = np.cumsum(RNG.normal(size=60))
WORDS = "unit root: the likelihood is highest without decay of "


def differences(function, x, step=1e-6):
    return np.array([(function(x + step * e) - function(x - step * e)) / (2.0 * step) for e in np.eye(len(x))]).T


@pytest.mark.parametrize("p", [1, 2, 4])
def test_partial_autocorrelations_are_those_of_a_stable_autoregression(p):
    partial = np.random.default_rng(p).uniform(-0.9, 0.9, p)
    values, slopes = lags(partial)
    np.testing.assert_allclose(partials(values), partial, rtol=1e-12)
    np.testing.assert_allclose(slopes, differences(lambda x: lags(x)[0], partial), atol=1e-8)
    assert np.abs(np.roots([1.0, *-values])).max() < 1.0
    assert np.isnan(partials(values * 0.0 + np.eye(p)[-1] * 1.2)).all()


@pytest.mark.parametrize("kind", ["lags", "turn"])
def test_coordinates_of_a_decay_have_their_slopes(kind):
    values = np.array([0.7, -0.4])
    place = Placed(kind, np.arange(2), np.ones(2, bool), None)
    around = _Lags(values, place) if kind == "lags" else _Turn(values, place)
    x = np.array([0.3, -0.2])
    there, slopes, room, room_slopes = around.at(x)
    np.testing.assert_allclose(around.read(there), x, atol=1e-12)
    np.testing.assert_allclose(around.at(np.zeros(2))[0], values, rtol=1e-12)
    np.testing.assert_allclose(slopes, differences(lambda z: around.at(z)[0], x), atol=1e-8)
    np.testing.assert_allclose(room_slopes, differences(lambda z: np.array([around.at(z)[2]]), x)[0], atol=1e-8)
    roots = partials(there) if kind == "lags" else np.array([np.hypot(*there)])
    assert room == pytest.approx(np.log(1.0 - roots**2).sum(), abs=1e-12)


@pytest.mark.parametrize("shortest", [1.0, 0.2])
@pytest.mark.parametrize("value", [1e-12, 0.3, 0.9999])
def test_coordinates_of_a_relaxation_have_their_slopes(value, shortest):
    around = _Relaxation(np.array([value]), Placed("lags", np.arange(1), np.ones(1, bool), None, shortest=shortest))
    x = np.array([0.4])
    there, slopes, room, room_slopes = around.at(x)
    np.testing.assert_allclose(around.read(there), x, atol=1e-9)
    np.testing.assert_allclose(around.at(np.zeros(1))[0], value, rtol=1e-9)
    np.testing.assert_allclose(slopes, differences(lambda z: around.at(z)[0], x), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(
        room_slopes, differences(lambda z: np.array([around.at(z)[2]]), x)[0], rtol=1e-6, atol=1e-8
    )
    assert room == pytest.approx(np.log(1.0 - there[0] ** 2), rel=1e-9, abs=1e-15)


@pytest.mark.parametrize(
    "model",
    [
        designs.local_level() + designs.cycle(12), designs.local_level() + designs.ar(2), designs.arma(2, 1),
        designs.arima(1, 0, 0, seasonal=(1, 0, 0, 4)),
    ],
    ids=["cycle", "ar", "arma", "seasonal"],
)  # fmt: skip
def test_charts_around_decays_have_the_exact_gradient(model):
    batch, _, _ = model._read(SEASON, None)
    core = model._core(batch=batch, given={})
    start = next(iter(core.starts(batch, 1, np.random.default_rng(0), {})))
    chart = core.chart(start, core.e_step(start, batch)[0], start)
    x = 0.05 * np.random.default_rng(1).normal(size=chart.size)

    def objective(z):
        return np.array([core.e_step(chart.params(z), batch)[1]])

    there = chart.params(x)
    slopes = chart.gradient(x, there, core.e_step(there, batch)[0])
    np.testing.assert_allclose(slopes, differences(objective, x)[0], rtol=2e-6, atol=2e-6)
    vector = core.to_vector(there, start)
    np.testing.assert_allclose(core.from_vector(vector, start).transition, there.transition, atol=1e-12)


# a cycle without damping: its disturbances vanish with the decay, and its first variance stays


def limit(level, noise, first, angle):
    """Log-likelihood of a level and an undamped cycle whose first states have a known variance."""
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    transition = np.block([[np.ones((1, 1)), np.zeros((1, 2))], [np.zeros((2, 1)), turn]])
    model = sse.LinearGaussianSSM(
        transition=transition, process_cov=np.diag([level, 0.0, 0.0]), observation=[[1.0, 1.0, 0.0]],
        measurement_cov=[[noise]], initial=["diffuse", "known", "known"], initial_mean=np.zeros(3),
        initial_cov=np.diag([0.0, first, first]),
    )  # fmt: skip
    return model.score(SEASON, model.parameters())


@pytest.fixture(scope="module")
def undamped():
    return (designs.local_level() + designs.cycle(12)).fit(SEASON, n_starts=2)


def at_limit(model):
    values = model.summary()["value"].droplevel([1, 2])
    angle = np.arctan2(values["cycle_sin"], values["cycle_cos"])
    return [values["level_var"], values["noise_var"], model.params_["initial_cov"].values[1, 1], angle]


def test_a_fit_reaches_the_limit_of_a_unit_root(undamped):
    assert undamped.status_ == "converged"
    assert undamped.params_["transition"].attrs["boundary"] == WORDS + "cycle, cycle*"
    assert "boundary" not in undamped.params_["process_cov"].attrs  # its variance belongs to the decay
    assert 1.0 - undamped.summary()["value"]["cycle_damping"].item() == pytest.approx(WALL, rel=1.5)
    found = undamped.trace_["log_likelihood"].iloc[-1]
    assert found == pytest.approx(undamped.score(SEASON), abs=1e-9)
    top = at_limit(undamped)
    assert found == pytest.approx(limit(*top), abs=1e-7)
    for i in range(4):  # and that is the maximum of the limit
        for sign in (-1.0, 1.0):
            moved = [v * (1.0 + sign * 1e-3 * (i == j)) for j, v in enumerate(top)]
            assert limit(*moved) < limit(*top) + 1e-9


def test_other_starts_and_units_end_there_as_well(undamped):
    model = designs.local_level() + designs.cycle(12)
    start = model.parameters(
        transition=[[1, 0, 0], [0, 0.5, 0.35], [0, -0.35, 0.5]], process_cov=np.diag([0.05, 0.3, 0.3]),
        measurement_cov=[[0.2]],
    )  # fmt: skip
    model.fit(SEASON, start=start)
    assert model.score(SEASON) == pytest.approx(undamped.score(SEASON), abs=1e-7)
    other = (designs.local_level() + designs.cycle(12)).fit(1000.0 * SEASON, n_starts=2)
    assert other.score(1000.0 * SEASON) + 71 * np.log(1000.0) == pytest.approx(undamped.score(SEASON), abs=1e-7)


def test_standard_errors_hold_what_does_not_decay(undamped):
    errors = undamped.standard_errors(SEASON, of="named")
    top = np.array(at_limit(undamped))
    steps = 1e-3 * top
    information = np.empty((4, 4))
    for i in range(4):
        for j in range(4):
            a, b = np.eye(4)[i] * steps, np.eye(4)[j] * steps
            corners = [limit(*(top + s * a + r * b)) * s * r for s in (-1, 1) for r in (-1, 1)]
            information[i, j] = -sum(corners) / (4.0 * steps[i] * steps[j])
    expected = np.sqrt(np.diag(np.linalg.inv(information)))
    assert errors["level_var"].item() == pytest.approx(expected[0], rel=1e-3)
    assert errors["noise_var"].item() == pytest.approx(expected[1], rel=1e-3)
    assert errors["cycle_period"].item() == pytest.approx(expected[3] * 2.0 * np.pi / top[3] ** 2, rel=1e-3)
    first = undamped.standard_errors(SEASON)["initial_cov"].values[1, 1]
    assert first == pytest.approx(expected[2], rel=1e-3)
    assert np.isnan(errors["cycle_damping"])
    assert np.isnan(errors["cycle_var"])
    assert errors["cycle_var"].attrs["boundary"].startswith("unit root")
    assert "boundary" not in errors["noise_var"].attrs
    found = undamped.diagnose(SEASON)
    assert "cycle_var" in found["where"].tolist()


# an autoregression beside a level that nothing is known of: at a unit root both are one random walk


def test_a_random_walk_is_the_limit_of_an_autoregression_beside_a_diffuse_level():
    model = (designs.ar(1) + designs.constant(start="diffuse")).fit(WALK)
    steps = np.diff(WALK)
    variance = np.mean(steps**2)
    walk = -0.5 * len(steps) * (np.log(2.0 * np.pi * variance) + 1.0)
    values = model.summary()["value"].droplevel([1, 2])
    if "boundary" not in model.params_["transition"].attrs:
        pytest.fail(f"ar1 is {values['ar1']}: this series was to have its maximum at a unit root")
    assert model.score(WALK) == pytest.approx(walk, abs=1e-6)
    assert values["arma_var"] == pytest.approx(variance, rel=1e-4)
    errors = model.standard_errors(WALK, of="named")
    assert np.isnan(errors["ar1"])
    assert errors["ar1"].attrs["boundary"].startswith("unit root")
    assert errors["arma_var"].item() == pytest.approx(variance * np.sqrt(2.0 / len(steps)), rel=1e-4)


def test_a_moving_average_beside_a_unit_root_is_fitted_as_well():
    """The variance of the states has no bound there: what drives them must not be measured in their deviations."""
    rng = np.random.default_rng(0)
    draw, noise, level = rng.normal(size=90), rng.normal(size=89), rng.normal(size=89)
    y = 3.0 * np.cumsum(draw[1:] + 0.85 * draw[:-1]) + 0.3 * noise + 0.3 * np.cumsum(level)
    with pytest.warns(sse.errors.InformationWarning, match="cannot be told apart"):
        model = (designs.local_level() + designs.arma(1, 1)).fit(y, n_starts=2)
    assert model.status_ == "converged"
    assert model.params_["transition"].attrs["boundary"].startswith("unit root")

    def negative(x):
        """A walk driven by a moving average, whose first value the level takes up, whatever it is."""
        first = np.diag([0.0, 0.0, x[1] ** 2])
        limit = sse.LinearGaussianSSM(
            transition=[[1, 0, 0], [0, 1, x[0]], [0, 0, 0]], observation=[[1, 1, 0]], measurement_cov=[[x[3] ** 2]],
            process_cov=np.diag([x[2] ** 2, 0.0, 0.0]) + x[1] ** 2 * np.outer([0, 1, 1], [0, 1, 1]),
            initial=["diffuse", "known", "known"], initial_mean=np.zeros(3), initial_cov=first,
        )  # fmt: skip
        return -limit.score(y, limit.parameters())

    ma, level, driven, noise = model.summary()["value"].to_numpy()[1:]
    here = np.array([ma, *np.sqrt([driven, level, noise])])
    highest = -minimize(negative, here, method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-9}).fun
    np.testing.assert_allclose(model.starts_["objective"], highest, rtol=0, atol=1e-6)


@pytest.mark.parametrize("root", [0.999, -0.999, 0.999 * np.exp(0.7j)])
def test_a_moving_average_goes_along_with_a_root_that_it_all_but_cancels(root):
    """The variance of the states, beside that of the disturbances, stays as it is, and so do all other roots."""

    def coefficients(roots):
        return np.poly(np.concatenate([roots, np.conj(roots)] if np.iscomplexobj(roots) else [roots])).real[1:]

    def gathered(lags, shocks):
        p, q = len(lags), len(shocks)
        transition = np.zeros((p + q, p + q))
        transition[0], transition[1:, :-1] = np.append(lags, shocks), np.eye(p + q - 1)
        transition[p] = 0.0
        enters = np.zeros(p + q)
        enters[[0, p]] = 1.0
        return stationary_moments(transition, np.zeros(p + q), np.outer(enters, enters))[1][0, 0]

    other, beside = np.array([0.3]), np.array([-0.4])
    size = np.abs(root)
    near, far = (np.atleast_1d(root / size * (1.0 - distance)) for distance in (5e-4, 1e-7))
    before, after = (-coefficients(np.concatenate([each, other])) for each in (near, far))
    shocks = coefficients(np.concatenate([near - 0.03 * root, beside]))
    moved = in_step(before, after, shocks)
    assert gathered(after, moved) == pytest.approx(gathered(before, shocks), rel=0.05)
    assert gathered(after, shocks) > 100.0 * gathered(before, shocks)
    assert np.abs(np.roots(np.append(1.0, moved)) - beside).min() < 1e-6


def test_noise_about_a_mean_is_the_limit_of_an_autoregression_that_a_moving_average_cancels():
    """The mean is then one draw of a known variance: the maximum of that likelihood is known."""
    n = 60
    y = 2.0 + np.random.default_rng(4).normal(size=n)
    mean, noise = y.mean(), y.var(ddof=1)
    highest = -0.5 * (n * np.log(2.0 * np.pi) + (n - 1) * np.log(noise) + np.log(n * mean**2) + n)
    model = designs.arma(1, 1).fit(y, n_starts=2)
    assert model.status_ == "converged"
    assert model.params_["transition"].attrs["boundary"].startswith("unit root")
    assert model.score(y) == pytest.approx(highest, abs=1e-6)
    assert model.summary()["value"]["arma_var"].item() == pytest.approx(noise, rel=1e-3)


def test_a_maximum_near_a_unit_root_is_not_one_at_it():
    """Without a mean an autoregression of a high level has its maximum inside, if only just."""
    y = 600.0 + np.random.default_rng(5).normal(size=80).cumsum() * 0.5
    model = designs.ar(1).fit(y)
    phi = model.summary()["value"]["ar1"].item()
    assert 1.0 - phi < 1e-5
    assert "boundary" not in model.params_["transition"].attrs
    assert model.standard_errors(y, of="named")["ar1"].item() > 0.0
    batch, _, _ = model._read(y, None)
    core = model._core(batch=batch, given={})
    tree = core.build(model._schema().arrays(model.params_))
    score = core.score_vector(tree, core.e_step(tree, batch)[0], tree)
    np.testing.assert_allclose(score, 0.0, atol=1e-3)


@pytest.mark.parametrize("kind", ["turn", "lags"])
def test_decays_written_with_names_are_known(kind):
    y = 3.0 * np.sin(2.0 * np.pi * ROWS / 11.0) + 0.5 * np.random.default_rng(0).normal(size=72)
    dynamics = [["a", "b"], ["-b", "a"]] if kind == "turn" else [["a", "b"], [1, 0]]
    model = sse.LinearGaussianSSM(
        transition=dynamics, process_cov=[["q", 0], [0, "q" if kind == "turn" else 0]], observation=[[1, 0]],
        measurement_cov="free", initial="stationary",
    )  # fmt: skip
    (decay,) = model._specification(1).decays
    assert (decay.kind, decay.names, decay.noise) == (kind, ("a", "b"), ("q",))
    start = model.parameters(
        transition=[[0.8, 0.5], [-0.5, 0.8]] if kind == "turn" else [[1.6, -0.9], [1, 0]], measurement_cov=[[0.3]],
        process_cov=np.diag([0.5, 0.5 * (kind == "turn")]),
    )  # fmt: skip
    model.fit(y, start=start)
    assert model.status_ == "converged"
    assert model.params_["transition"].attrs["boundary"] == WORDS + "0, 1"
    turned = sse.designs.cycle(11).fit(y, n_starts=1)
    assert model.score(y) == pytest.approx(turned.score(y), abs=2e-6)


def test_dynamics_that_are_linked_are_no_decays_by_their_form():
    model = sse.LinearGaussianSSM(2, transition="free", initial="stationary")
    assert model._specification(1).decays == ()


def test_the_variance_near_a_unit_root_keeps_its_digits():
    """Of two lags it is ``q (1 - b) / ((1 + b) ((1 - b)^2 - a^2))`` (Box & Jenkins 1970, ch. 3)."""
    for distance in (1e-2, 1e-6, 1e-10):
        partial = np.array([0.84, -(1.0 - distance)])
        (a, b), _ = lags(partial)
        transition = np.array([[a, b], [1.0, 0.0]])
        cov = stationary_moments(transition, np.zeros(2), np.diag([distance, 0.0]))[1]
        expected = distance * (1.0 - b) / ((1.0 + b) * ((1.0 - b) ** 2 - a**2))
        assert cov[0, 0] == pytest.approx(expected, rel=3e-9)
        assert cov[1, 1] == pytest.approx(expected, rel=3e-9)


@pytest.mark.parametrize(("seed", "best"), [(0, -107.402368292), (1, -96.189384667), (6, -103.387564394)])
def test_coloured_noise_of_a_track_is_fitted_to_the_end(seed, best):
    """Of seeds 0 and 6 a decay is 0 over a step, of 1 and 6 one is a unit root: both are maxima on a boundary."""
    rng = np.random.default_rng(seed)
    track = np.cumsum(np.cumsum(rng.normal(size=(40, 2)), 0), 0) + 0.1 * rng.normal(size=(40, 2))
    model = (designs.constant_velocity(2) + designs.ar(1)).fit(track)
    assert model.status_ == "converged"
    assert model.score(track) > best - 1e-6
