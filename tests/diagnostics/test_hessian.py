"""Standard errors of linear-Gaussian models against the Hessian of the likelihood in the values themselves."""

import numpy as np
import pandas as pd
import pytest

import statespace_em as sse
from statespace_em import designs

N = 100
RNG = np.random.default_rng(4)
LEVEL = np.cumsum(0.7 * RNG.normal(size=N))
NOISY = LEVEL + RNG.normal(size=N)
GAPS = np.where((np.arange(N) > 20) & (np.arange(N) < 30), np.nan, NOISY)
X, U = RNG.normal(size=(N, 2)), RNG.normal(size=(N, 2))
WEIGHTS = np.abs(RNG.normal(size=N)) + 0.5
BACK = WEIGHTS[::-1]
STATE = np.zeros(N)
for t in range(1, N):
    STATE[t] = 0.7 * STATE[t - 1] + RNG.normal()
PAIR = np.column_stack([STATE + 0.5 * RNG.normal(size=N), 0.6 * STATE + 0.7 * RNG.normal(size=N)])
SSM = sse.LinearGaussianSSM
FACTOR = {"transition": [["p"]], "process_cov": [["v"]]}
CASES = {  # model, y, inputs, free parameters counted by hand
    "level with gaps": (designs.local_level(), GAPS, None, 2),
    "autoregression around a mean": (designs.ar(1) + designs.constant(), STATE + 3.0, None, 3),
    "arma": (designs.arma(1, 1), STATE, None, 3),
    "regression": (designs.local_level() + designs.regression(X, start="fixed"), NOISY + X @ [1.0, -2.0], None, 4),
    "stationary factor": (
        SSM(**FACTOR, observation=[[1], ["l"]], measurement_cov=[["r", 0], [0, "s"]], initial="stationary"),
        PAIR, None, 5,
    ),
    "tied noise": (
        SSM(**FACTOR, observation=[[1], ["l"]], measurement_cov=[["r", 0], [0, "r"]], initial="diffuse"), PAIR, None, 4,
    ),
    "scaled noise": (
        SSM(**FACTOR, observation=[[1], [0.6]], measurement_cov=("r", [[1, 0.2], [0.2, 1]]), initial="diffuse"),
        PAIR, None, 3,
    ),
    "expressions": (
        SSM(transition=[["p"]], process_cov=[["2*v"]], observation=[[1], ["1 - l"]],
            measurement_cov=[["r", 0], [0, "s"]], initial="diffuse"), PAIR, None, 5,
    ),
    "inputs": (
        SSM(**FACTOR, observation=[[1]], measurement_cov=[["r"]], state_input=[["e", "f"]], initial="diffuse"),
        STATE + U.cumsum(0) @ [0.2, -0.1] + 0.5 * RNG.normal(size=N), U, 5,
    ),
    "break with a stationary start": (
        SSM(transition=[["p"]], process_cov=[[np.where(np.arange(N) < 60, "early", "late")]], observation=[[1], [0.6]],
            measurement_cov=[["r", 0], [0, "s"]], initial="stationary"),
        PAIR * np.linspace(1.0, 2.0, N)[:, None], None, 5,
    ),
    "offset, fixed start": (
        SSM(transition=[[1]], process_cov=[["v"]], observation=[[1]], measurement_cov=[["r"]], state_offset=["m"],
            initial="fixed"), NOISY + 0.4 * np.arange(N), None, 4,
    ),
    "noise of known shape over rows": (
        SSM(transition=[[1]], process_cov=[["v"]], observation=[[1]], measurement_cov=[[{"r": WEIGHTS}]],
            initial="diffuse"), LEVEL + np.sqrt(WEIGHTS) * RNG.normal(size=N), None, 2,
    ),
}  # fmt: skip


UNEVEN = pd.Index(np.cumsum(RNG.uniform(0.3, 2.0, N)), name="time")


def moving(order, seed):
    """Positions (and velocities) along two axes at uneven times, of targets that noise pushes."""
    rng, gaps = np.random.default_rng(seed), np.diff(UNEVEN, prepend=0.0)
    s, found = np.zeros((order + 1, 2)), []
    for h in gaps:
        for j in range(order):  # in small steps; what it is of exactly does not matter here
            s[j] += h * s[j + 1]
        s[order] += np.sqrt(0.3 * h) * rng.normal(size=2)
        found.append(np.concatenate([s[0], s[1]]))
    return np.array(found), rng


def seen(order, seed, columns=2):
    states, rng = moving(order, seed)
    y = states[:, :columns] + np.array([1.0, 1.0, 0.3, 0.3])[:columns] * rng.normal(size=(N, columns))
    y[rng.random(y.shape) < 0.1] = np.nan
    return pd.DataFrame(y, UNEVEN)


def coloured(seed, decay=0.6):
    rng, x, found = np.random.default_rng(seed), 0.0, []
    for h in np.diff(UNEVEN, prepend=0.0):
        rho = decay**h
        x = rho * x + np.sqrt(1.0 - rho**2) * rng.normal()
        found.append(x)
    return np.array(found)


SENSORS = {"gps": ["x", "y"], "doppler": ["v_x", "v_y"]}
STEADY = pd.Series(np.cumsum(np.sqrt(np.diff(UNEVEN, prepend=0.0)) * RNG.normal(size=N)), UNEVEN)
TREND = seen(1, 3)[0]
TURNS = coloured(5, 0.9) + 1j * coloured(6, 0.9)
SWING = pd.Series((TURNS * np.exp(2j * np.pi * UNEVEN.to_numpy() / 9.0)).real + 0.3 * RNG.normal(size=N), UNEVEN)
AXES = seen(1, 4) + np.column_stack([coloured(7), coloured(8)])
TIMED = {  # in continuous time
    "constant velocity": (designs.constant_velocity(2), seen(1, 1), None, 2),
    "an axis each": (designs.constant_velocity(2, density="separate", noise="free"), seen(1, 1), None, 5),
    "constant acceleration": (designs.constant_acceleration(2), seen(2, 2), None, 2),
    "turn": (designs.coordinated_turn(0.2, noise="separate"), seen(1, 1), None, 3),
    "two sensors": (designs.constant_velocity(2, sensors=SENSORS), seen(1, 1, 4), None, 3),
    "panel of tracks": (
        designs.constant_velocity(2), {"a": seen(1, 1), "b": seen(1, 9).iloc[7:60].set_axis(UNEVEN[:53])}, None, 2,
    ),
    "level": (designs.local_level(unit="h"), STEADY + RNG.normal(size=N), None, 2),
    "trend": (designs.smooth_trend(unit="h"), TREND, None, 2),
    "level and autoregression": (
        designs.local_level(unit="h") + designs.ar(1), 0.3 * STEADY + 2.0 * coloured(11) + 0.2 * RNG.normal(size=N),
        None, 4,
    ),
    "cycle": (designs.cycle(9.0, unit="h") + designs.constant(), SWING, None, 5),
    "motion with coloured noise": (designs.constant_velocity(2) + designs.ar(1), 3.0 * AXES, None, 6),
    "regression of each sequence": (
        designs.local_level(unit="h") + designs.regression({"a": X, "b": U}),
        {"a": STEADY + X @ [1.0, 2.0] + RNG.normal(size=N), "b": STEADY[::-1].set_axis(UNEVEN) + U @ [1.0, 0.0]},
        None, 2,
    ),
    "accuracies of each sequence": (
        SSM(transition=[[1]], process_cov=[["v"]], observation=[[1]], measurement_cov=[[{"r": [WEIGHTS, BACK]}]],
            initial="diffuse"), [NOISY, LEVEL + np.sqrt(BACK) * RNG.normal(size=N)], None, 2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", [*CASES, *TIMED])
def test_errors_are_those_of_the_inverse_hessian(name):
    model, y, inputs, n_parameters = (CASES | TIMED)[name]
    told = {} if inputs is None else {"inputs": inputs}
    model.fit(y, **told)
    assert model.status_ == "converged"
    assert model.n_parameters_ == n_parameters
    errors = model.standard_errors(y, of="named", **told)
    bound = model if inputs is None else model._with_inputs(inputs, y)
    core, tree, batch, _, _ = bound._prepare(y, None, None, None, ())
    structure = core.structure(tree)
    patterns = {word: structure.patterns[word] for word in structure.names}
    words = [word for pattern in patterns.values() for word in pattern.names]
    top = np.concatenate([p.read(structure.kinds_of(name, tree)) for name, p in patterns.items()])

    def log_likelihood(x):
        values, begin = tree._asdict(), 0
        for name, pattern in patterns.items():
            end = begin + len(pattern.names)
            values[name], begin = structure.rows_of(name, pattern.build(x[begin:end])), end
        return core.e_step(structure.complete(values), batch)[1]

    steps = np.diag(3e-3 * np.maximum(np.abs(top), 0.05))
    information = np.empty((len(top), len(top)))
    for i, a in enumerate(steps):
        for j, b in enumerate(steps):
            near, far = (
                sum(s * r * log_likelihood(top + w * (s * a + r * b)) for s in (-1, 1) for r in (-1, 1)) / (4 * w**2)
                for w in (1.0, 2.0)
            )
            information[i, j] = -(4.0 * near - far) / (3.0 * a[i] * b[j])
    expected = np.sqrt(np.diag(np.linalg.inv(information)))
    np.testing.assert_allclose([errors[word].item() for word in words], expected, rtol=1e-6)
