"""Standard errors of linear-Gaussian models against the Hessian of the likelihood in the values themselves."""

import numpy as np
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
    "offset, fixed start": (
        SSM(transition=[[1]], process_cov=[["v"]], observation=[[1]], measurement_cov=[["r"]], state_offset=["m"],
            initial="fixed"), NOISY + 0.4 * np.arange(N), None, 4,
    ),
    "noise of known shape over rows": (
        SSM(transition=[[1]], process_cov=[["v"]], observation=[[1]], measurement_cov=[[{"r": WEIGHTS}]],
            initial="diffuse"), LEVEL + np.sqrt(WEIGHTS) * RNG.normal(size=N), None, 2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_errors_are_those_of_the_inverse_hessian(name):
    model, y, inputs, n_parameters = CASES[name]
    told = {} if inputs is None else {"inputs": inputs}
    model.fit(y, **told)
    assert model.status_ == "converged"
    assert model.n_parameters_ == n_parameters
    errors = model.standard_errors(y, of="named", **told)
    bound = model if inputs is None else model._driven_by(inputs, y)
    batch, _, _ = bound._read(y, model.params_)
    arrays = bound._schema().arrays(model.params_)
    core = bound._core(batch=batch, given=bound._given_by(arrays))
    tree = core.build(arrays)
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
