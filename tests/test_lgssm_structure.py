"""Structured linear-Gaussian models: every structure against dense oracles, finite differences and plain EM."""

import warnings

import numpy as np
import pytest
import xarray as xr
from lgssm_cases import core_of, oracle_of, score_and_slopes
from oracles_diffuse import diffuse
from oracles_gaussian import completed, posterior, random_parameters, simulate

import statespace_em as sse
from statespace_em.data import as_batch
from statespace_em.errors import ConvergenceWarning, DataError, DataWarning, ParameterError, UndeterminedStartError
from statespace_em.priors import InverseWishart
from statespace_em.sequence import identifiable_basis
from statespace_em.sequence.lgssm_smoother import smooth
from statespace_em.sequence.lgssm_values import holds

EXACT = 1e-9
SQUARE = [[0.7, 0.2], [-0.1, 0.5]]
WIDE = [[1.0, 0.0], [0.4, 1.0], [0.2, -0.7]]
SHEAR = [["phi", 0.3], [0.0, "phi"]]
SCALE = np.array([[2.0, 0.5], [0.5, 1.0]])

STRUCTURES = {
    "names in the dynamics": {"transition": SHEAR, "observation": WIDE, "process_cov": "diagonal"},
    "tied noises": {"transition": SQUARE, "process_cov": "scalar", "observation": "free", "measurement_cov": "scalar"},
    "equal": {"transition": SQUARE, "process_cov": "equal", "observation": WIDE, "measurement_cov": "equal"},
    "linear": {
        "transition": [["a", "b"], ["-b", "a"]],
        "process_cov": [["q", "0.5*q"], ["0.5*q", "2*q"]],
        "observation": [[1, 0], ["c", 1], ["c", "1 - c"]],
        "measurement_cov": [["r", 0.1, 0], [0.1, "1 + r", 0], [0, 0, "s"]],
    },
    "scale": {"transition": SQUARE, "process_cov": ("q", SCALE), "observation": WIDE, "measurement_cov": "diagonal"},
    "blocks": {"transition": "diagonal", "observation": WIDE, "measurement_cov": "free 2 + diagonal 1"},
    "offsets": {
        "transition": [["a", 0], [0, "b"]], "observation": WIDE, "state_offset": ["m", "m"],
        "observation_offset": ["x", 0, "y"], "process_cov": [["q", 0], [0, "q"]], "measurement_cov": "diagonal",
    },
    "singular noise": {
        "transition": [["a", "b"], [1, 0]], "process_cov": [["q", 0], [0, 0]], "observation": [[1, 0], [0, 1], [1, 1]],
        "measurement_cov": "diagonal",
    },
    "loadings": {
        "transition": [["0.5*a", "0.2*b"], ["0.25*a", "0.2 + 0.1*b"]], "process_loading": [[1.0], [0.5]],
        "process_cov": [["q"]], "observation": [[1, 0], ["c", 1], [0.2, "c"]],
        "measurement_loading": [[1, 0, 0], [0.5, 2, 0], [0, 0.3, 1]], "measurement_cov": "free 2 + diagonal 1",
        "observation_offset": "free",
    },
    "products": {
        "transition": [["0.5*a", "0.4*b"], ["-a*b", "0.3*a + 0.1"]], "process_cov": "diagonal",
        "observation": [["d", 0], ["c", 1], [0.2, "c*d + 1"]], "measurement_cov": "diagonal",
    },
    "loadings of free dynamics": {
        "process_loading": [[1.0], [0.5]], "observation": WIDE, "measurement_loading": np.eye(3),
        "measurement_cov": "scalar",
    },
}  # fmt: skip
STARTS = {
    "known": {"initial": "known", "initial_mean": [0.3, -0.2], "initial_cov": [[1.0, 0.2], [0.2, 0.5]]},
    "estimated": {"initial": "estimated"},
    "tied": {"initial": "tied"},
    "diffuse": {"initial": "diffuse"},
    "fixed": {"initial": "fixed"},
    "stationary": {"initial": "stationary"},
    "diffuse and fixed": {"initial": ["diffuse", "fixed"]},
    "half diffuse": {"initial": ["known", "diffuse"], "initial_mean": [0.3, 0], "initial_cov": [[1.0, 0], [0, 0]]},
}


def data(T=14, missing=0.25, seed=0):
    rng = np.random.default_rng(seed)
    p = random_parameters(rng, 2, 3)
    return simulate(rng, p._replace(A=np.array([SQUARE])), T, missing)


def valid(structure, start):
    return not (start == "tied" and (structure == "singular noise" or "loadings" in structure))


CASES = [(a, b) for a in STRUCTURES for b in STARTS if valid(a, b)]


def set_up(structure, start, n_sequences=2, **settings):
    """Core as in a fit, a batch, and a point inside the structure."""
    model = sse.LinearGaussianSSM(2, **STRUCTURES[structure], **STARTS[start], **settings)
    parts = [data(14, seed=i) for i in range(n_sequences)]
    y, given = parts[0] if n_sequences == 1 else dict(enumerate(parts)), {"initial_cov": np.eye(2)}
    core, batch, point = core_of(model, y, given if start == "estimated" else {})
    vector = core.to_vector(point, point)
    point = core.from_vector(vector + 0.1 * np.random.default_rng(1).normal(size=vector.size), point)
    return model, core, batch, point, parts


def dense(p):
    return oracle_of(p, initial_mean=np.nan_to_num(p.initial_mean))


@pytest.mark.parametrize(("structure", "start"), CASES)
def test_score_is_the_gradient_of_the_objective(structure, start):
    priors = {"process_prior": InverseWishart(5.0, 2.0), "measurement_prior": InverseWishart(4.0, 0.5)}
    _, core, batch, point, _ = set_up(structure, start, **(priors if structure == "linear" else {}))
    score, slopes = score_and_slopes(core, batch, point)
    assert slopes == pytest.approx(score, rel=2e-6, abs=2e-6)


@pytest.mark.parametrize(("structure", "start"), CASES)
def test_plain_em_climbs_inside_the_structure_and_ends_where_the_score_vanishes(structure, start):
    _, core, batch, point, _ = set_up(structure, start)
    last = -np.inf
    for _ in range(60):
        statistics, value = core.e_step(point, batch)
        assert value >= last - 1e-10 * abs(value)
        last, point = value, core.m_step(statistics, point)
        for name, pattern in core.patterns.items():
            if not name.startswith("initial"):
                assert holds(pattern, core.loadings.get(name), getattr(point, name)), name


@pytest.mark.parametrize("structure", [name for name in STRUCTURES if name != "products"])  # the score moves those
def test_m_step_is_the_joint_maximum(structure):
    """The EM step from any point has no free direction left in which the expected log joint rises."""
    _, core, batch, point, _ = set_up(structure, "known")
    statistics, _ = core.e_step(point, batch, moments=True)
    top = core.m_step(statistics, point)
    shape = core.structure(point)

    def expected(p):
        """Expected log density of states and completed y, from the sums."""
        s, total = statistics, 0.0
        dz = np.hstack([p.transition - point.transition, (p.state_offset - point.state_offset)[:, None]])
        du = np.hstack([p.observation - point.observation, (p.observation_offset - point.observation_offset)[:, None]])
        w = s.S_ww - dz @ s.S_wz.T - s.S_wz @ dz.T + dz @ s.S_zz @ dz.T
        used = np.eye(2)[:, np.diag(p.process_cov) > 0.0]
        G = core.loadings.get("process_cov", used)
        left = np.linalg.pinv(G)
        if np.abs(dz - G @ left @ dz).max() > 1e-12:
            return -np.inf  # a mean where there is no noise
        Q, w = (left @ part @ left.T for part in (p.process_cov, w))
        total -= 0.5 * (s.n_pairs * np.linalg.slogdet(Q)[1] + np.trace(np.linalg.solve(Q, w)))
        for j in range(shape.blocks.max() + 1):
            own = np.flatnonzero(shape.blocks == j)
            cell = np.ix_(own, own)
            v = s.S_vv[cell] - du[own] @ s.S_vz[own].T - s.S_vz[own] @ du[own].T + du[own] @ s.S_uu[j] @ du[own].T
            R = p.measurement_cov[cell]
            total -= 0.5 * (s.n_rows[j] * np.linalg.slogdet(R)[1] + np.trace(np.linalg.solve(R, v)))
        return total

    vector, best = core.to_vector(top, top), expected(top)
    for i in range(len(vector)):
        for step in (1e-3, -1e-3):
            there = core.from_vector(vector + step * np.eye(len(vector))[i], top)
            assert expected(there) <= best + 1e-9, i


@pytest.mark.parametrize("likelihood", ["diffuse", "full", "marginal"])
@pytest.mark.parametrize("unknown", [[True, True], [False, True]])
def test_diffuse_start_matches_dense_least_squares(unknown, likelihood):
    start = "diffuse" if all(unknown) else "half diffuse"
    model, core, batch, point, parts = set_up("names in the dynamics", start, 1, likelihood=likelihood)
    y, unknown = parts[0], np.array(unknown)
    finite = np.where(np.isfinite(point.initial_cov), point.initial_cov, 0.0)
    values, _, mean, cov = diffuse(y, dense(point)._replace(P0=finite), unknown)
    params = model.parameters(**{k: v for k, v in point._asdict().items() if not k.endswith("offset")})
    smooth, known = model.e_step(y, params), model.filter(y, params)
    expected = values[likelihood]
    found = (
        core.e_step(point, batch)[1],
        model.score(y, params),
        smooth["log_likelihood"],
        known["log_likelihood"].sum(),
    )
    np.testing.assert_allclose(np.array(found, float), expected, rtol=EXACT)
    np.testing.assert_allclose(smooth["gamma"], mean, rtol=EXACT, atol=EXACT)
    for t in range(len(y)):
        s = slice(2 * t, 2 * t + 2)
        np.testing.assert_allclose(smooth["cov"][t], cov[s, s], rtol=1e-8, atol=EXACT)
        if t + 1 < len(y):
            np.testing.assert_allclose(smooth["cross_cov"][t], cov[s, 2 * t + 2 : 2 * t + 4], rtol=1e-8, atol=EXACT)
    for t in range(2, len(y)):
        _, _, m, V = diffuse(y[: t + 1], dense(point)._replace(P0=finite), unknown)
        np.testing.assert_allclose(known["filtered"][t], m[-1], rtol=1e-8, atol=EXACT)
        np.testing.assert_allclose(known["filtered_cov"][t], V[-2:, -2:], rtol=1e-8, atol=EXACT)
    future = model.forecast(y, 3, params)
    longer = np.vstack([y, np.full((3, 3), np.nan)])
    _, _, m, V = diffuse(longer, dense(point)._replace(P0=finite), unknown)
    np.testing.assert_allclose(future["predicted"], m[-3:], rtol=1e-8, atol=EXACT)
    np.testing.assert_allclose(future["predicted_cov"][-1], V[-2:, -2:], rtol=1e-8, atol=EXACT)


@pytest.mark.parametrize("likelihood", ["diffuse", "full"])
def test_diffuse_and_fixed_states_together_match_dense_least_squares(likelihood):
    """Three sequences: their diffuse states are integrated out one by one, the fixed one is estimated from all."""
    _, core, batch, point, parts = set_up("names in the dynamics", "diffuse and fixed", 3, likelihood=likelihood)
    p = dense(point._replace(initial_mean=np.zeros(2), initial_cov=np.zeros((2, 2))))
    diffuse_at, fixed_at = np.array([True, False]), np.array([False, True])

    def value(constant):
        whole = p._replace(m0=np.where(fixed_at, constant, 0.0))
        return sum(diffuse(y, whole, diffuse_at)[0][likelihood] for y in parts)

    ends = [value(x) for x in (-1.0, 0.0, 1.0)]  # a parabola
    slope, bend = (ends[2] - ends[0]) / 2, ends[2] - 2 * ends[1] + ends[0]
    top = -slope / bend
    statistics, found = core.e_step(point, batch)
    assert statistics.start[1] == pytest.approx(top, rel=1e-8)
    assert found == pytest.approx(value(top), rel=1e-10)
    smoothed, by_sequence = smooth(point, batch, likelihood)
    whole = p._replace(m0=np.where(fixed_at, top, 0.0))
    expected = [diffuse(y, whole, diffuse_at) for y in parts]
    np.testing.assert_allclose(by_sequence, [each[0][likelihood] for each in expected], rtol=1e-9)
    np.testing.assert_allclose(smoothed.mean, np.concatenate([each[2] for each in expected]), atol=1e-8)


def test_fixed_start_is_generalised_least_squares():
    _, core, batch, point, parts = set_up("names in the dynamics", "fixed", 1)
    values, delta, _, _ = diffuse(parts[0], dense(point)._replace(P0=np.zeros((2, 2))), np.array([True, True]))
    statistics, value = core.e_step(point, batch)
    assert value == pytest.approx(values["fixed"], rel=EXACT)
    np.testing.assert_allclose(statistics.start, delta, rtol=1e-8)


def test_stationary_start_is_the_limit_of_a_long_past():
    model, _, _, point, parts = set_up("names in the dynamics", "stationary", 1)
    p, long = dense(point), np.zeros((2, 2))
    for _ in range(4000):
        long = p.A[0] @ long @ p.A[0].T + p.Q[0]
    np.testing.assert_allclose(point.initial_cov, long, rtol=1e-8)
    expected = posterior(parts[0], p._replace(m0=np.zeros(2), P0=long)).log_likelihood
    keep = {k: v for k, v in point._asdict().items() if k in ("transition", "process_cov", "measurement_cov")}
    assert model.score(parts[0], model.parameters(**keep)) == pytest.approx(expected, rel=EXACT)


def test_several_copies_estimate_what_one_does():
    y = sse.datasets.nile()
    settings = {"transition": [[1]], "process_cov": [["q"]], "observation": [[1]], "measurement_cov": [["r"]]}
    one = sse.LinearGaussianSSM(**settings, initial="diffuse").fit(y).summary()["value"]
    three = sse.LinearGaussianSSM(**settings, initial="diffuse").fit(dict.fromkeys(range(3), y)).summary()["value"]
    np.testing.assert_allclose([three["q"].item(), three["r"].item()], [one["q"].item(), one["r"].item()], rtol=1e-4)


@pytest.mark.parametrize("factor", [1e-4, 1e6])
@pytest.mark.parametrize("start", ["diffuse", "fixed"])
def test_units_scale_the_fit(factor, start):
    y = sse.datasets.nile()
    settings = {"transition": [[1]], "process_cov": [["q"]], "observation": [[1]], "measurement_cov": [["r"]]}
    one = sse.LinearGaussianSSM(**settings, initial=start).fit(y)
    other = sse.LinearGaussianSSM(**settings, initial=start).fit(factor * y)
    n = len(y) - (start == "diffuse")
    assert other.score(factor * y) + n * np.log(factor) == pytest.approx(one.score(y), abs=1e-6)
    for name in "qr":
        ratio = other.summary().loc[name, "value"].item() / one.summary().loc[name, "value"].item()
        assert ratio == pytest.approx(factor**2, rel=1e-3)


def test_basis_of_the_state_does_not_matter_to_the_marginal_likelihood():
    y = sse.datasets.nile()
    settings = {"initial": "diffuse", "likelihood": "marginal"}
    model = sse.LinearGaussianSSM(2, observation=[[1, 0]], transition=[[1, 1], [0, 1]], **settings)
    p = model.parameters(process_cov=[[900, 0], [0, 10]], measurement_cov=[[15000]])
    T = np.array([[1.0, 0.3], [0.2, 2.0]])
    back = np.linalg.inv(T)
    C, A = np.array([[1.0, 0.0]]) @ back, T @ np.array([[1.0, 1.0], [0.0, 1.0]]) @ back
    other = sse.LinearGaussianSSM(2, observation=C, transition=A, **settings)
    q = other.parameters(process_cov=T @ np.diag([900.0, 10.0]) @ T.T, measurement_cov=[[15000]])
    assert other.score(y, q) == pytest.approx(model.score(y, p), rel=1e-12)
    plain = other.set_params(likelihood="diffuse").score(y, q) - model.set_params(likelihood="diffuse").score(y, p)
    assert plain == pytest.approx(np.log(np.linalg.det(T)), rel=1e-9)


def test_time_varying_matrices_match_the_dense_oracle():
    rng = np.random.default_rng(2)
    p = random_parameters(rng, 2, 3, T=9, varying=("A", "C", "Q", "R", "b"))
    p = p._replace(d=np.zeros((1, 3)))
    y = simulate(rng, p, 7, 0.2)
    model = sse.LinearGaussianSSM(
        transition=p.A, process_cov=p.Q, observation=p.C, measurement_cov=p.R, state_offset=p.b, initial="known",
        initial_mean=p.m0, initial_cov=p.P0,
    )  # fmt: skip
    params = model.parameters()
    expected = posterior(y, p.rows(slice(0, 7)))
    assert model.score(y, params) == pytest.approx(expected.log_likelihood, rel=EXACT)
    np.testing.assert_allclose(model.e_step(y, params)["gamma"], expected.mean, rtol=EXACT, atol=EXACT)
    longer = posterior(np.vstack([y, np.full((2, 3), np.nan)]), p)
    np.testing.assert_allclose(model.forecast(y, 2, params)["predicted"], longer.mean[7:], rtol=EXACT, atol=EXACT)
    with pytest.raises(DataError, match="9 rows"):
        model.forecast(y, 3, params)
    with pytest.raises(DataError, match="9 rows, but y has 10"):
        model.score(np.zeros((10, 3)), params)


@pytest.mark.parametrize("start", ["diffuse", "fixed", "stationary"])
def test_saved_structures_come_back(start, tmp_path):
    base = pytest.importorskip("sklearn.base")
    y = data(40, 0.2)
    model = sse.LinearGaussianSSM(["a", "b"], **STRUCTURES["linear"], initial=start)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(y, max_iter=8)
    model.save(tmp_path / "model.nc")
    back = sse.LinearGaussianSSM.load(tmp_path / "model.nc")
    assert back.params_.equals(model.params_)
    assert back.score(y) == model.score(y)
    assert base.clone(model).get_params().keys() == model.get_params().keys()
    table = model.summary()
    assert set("abcqrs") <= set(table.index.get_level_values(0))
    assert table.loc["c", "value"].item() == pytest.approx(float(model.params_["observation"][1, 0]), rel=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"transition": [["a", 0], [0, "a"]], "process_cov": [["a", 0], [0, "b"]]}, "'a' stands in .* and in"),
        ({"transition": [[1, "a"], ["c", 1]], "process_cov": [["q", 0], [0, 0]]}, "free entry in the row of state 1"),
        ({"transition": [[1, 1], [0, 1]], "process_cov": ("q", [[1, 2], [2, 1]])}, "'q' scales in process_cov is not"),
        ({"transition": [[1, 1]]}, r"transition has shape \(1, 2\), expected \(1, 1\)"),
        ({"transition": np.eye(2), "process_cov": np.eye(3)}, r"process_cov has shape \(3, 3\), expected \(2, 2\)"),
        ({"transition": np.eye(2), "observation": [[1, 0, 0]]}, r"observation has shape \(1, 3\), expected \(1, 2\)"),
        ({"transition": np.eye(2), "initial": "stationary"}, "not stable .* modulus 1"),
        ({"transition": [[1, "a*b"], [0, 1]]}, "entry 'a\\*b' at .*, a product, but 'a' stands nowhere alone"),
        ({"transition": [[1, "a**2"], [0, 1]]}, "entry 'a..2' at .*, expected a number, a name, or an expression"),
        ({"observation": [["c*d + d", "c"]] * 3}, "a product, but its names cannot be told from it"),
        ({"transition": np.eye(2), "process_cov": [["q", 0], [0, "-q"]]}, "has 'q' and its negative as variances"),
        ({"transition": np.eye(2), "initial": "known"}, "initial is 'known': give initial_mean and initial_cov"),
        (
            {"states": 2, "state_offset": "free", "process_cov": "zero"},
            "free entry in the row of state 0, which has no",
        ),
        ({"process_cov": [["a + b"]]}, "process_cov has the names 'a', 'b', of which only a sum matters"),
        ({"process_cov": [["a + b", 0], [0, "c"]]}, "process_cov has the names 'a', 'b', of which only a sum"),
        ({"transition": {"a": np.eye(2), "b": 2 * np.eye(2)}}, "transition has the names 'a', 'b', of which only"),
        ({"states": 2, "observation_offset": ["a + b", "b + c", "a - c"]}, "names 'a', 'b', 'c', of which only a sum"),
        (
            {"states": 1, "observation_offset": [{"a": np.ones(30), "b": np.full(30, 2.0)}, 0, 0]},
            "'a', 'b', of which only a sum matters",
        ),
        ({"states": 1, "observation_offset": [{"a": np.zeros(30)}, 0, 0]}, "offset has the name 'a' with factors of 0"),
        ({"transition": [["0*a"]]}, "transition has the name 'a' with factors of 0 only"),
        (
            {"transition": np.eye(2), "process_cov": {"q": np.array([[1.0, 2.0], [2.0, 1.0]])}},
            r"process_cov is a multiple of 'q' in the rows 0, 1, of a matrix that is not positive semi-definite",
        ),
        ({"transition": np.eye(2), "process_cov": [["q", "2*q"], ["2*q", "q"]]}, "process_cov is a multiple of 'q'"),
        (
            {"transition": np.eye(2), "process_cov": ("q", np.array([np.eye(2)] * 29 + [[[1, 2], [2, 1]]]))},
            "the matrix that 'q' scales in process_cov is not positive semi-definite in row 29",
        ),
        ({"states": 2, "measurement_cov": "zero"}, "observation has a free entry in the row of feature 0"),
        ({"states": ["a", "b"], "transition": np.eye(3)}, r"transition has shape \(3, 3\), expected \(2, 2\)"),
        ({"transition": [[0.5, "a"], [0, 1.2]], "initial": "stationary", "process_cov": "diagonal"}, "not stable"),
        ({"process_cov": [["a", 0], [0, "b + a*b"]]}, "products have no place in a covariance"),
        ({"transition": [[1, 2], [0]]}, "different lengths"),
        ({"transition": np.eye(2), "process_cov": [["q", "c"], [0, "q"]]}, "process_cov is not symmetric"),
        ({"transition": np.eye(2), "process_cov": [["q", "c"], ["c", 0]]}, "covariance in row 1"),
        ({"transition": np.eye(2), "process_cov": [[1, 2], [2, 1]]}, "process_cov is not positive"),
        ({"transition": "banded", "states": 2}, "transition is 'banded', expected one of 'zero', 'free'"),
        ({"transition": np.eye(2), "initial": ["diffuse"]}, "1 words, expected one for each of 2"),
        ({"transition": np.eye(2), "initial": ["diffuse", "known"]}, "give initial_mean and initial_cov"),
        ({"transition": np.eye(2), "process_cov": "free 1 + diagonal 2"}, "blocks of 3 rows"),
        ({"transition": np.eye(2), "likelihood": "exact"}, "likelihood is 'exact'"),
        ({}, "number of states is not known"),
        ({"process_loading": [[1, 2], [2, 4]]}, "process_loading has 2 columns of rank 1"),
        ({"states": 3, "process_loading": [[1], [2]]}, r"process_loading has shape \(2, 1\), expected \(3, any\)"),
        (
            {"states": 1, "measurement_loading": [["a"]] * 3},
            r"measurement_loading is not all numbers: how disturbances enter is known, \(3, any\)",
        ),
        (
            {"process_loading": np.eye(2), "process_cov": np.tile([[1.0, 2.0], [2.0, 1.0]], (9, 1, 1))},
            "process_cov of row 0 is not positive semi-definite",
        ),
        (
            {"process_loading": [[1], [0]], "process_cov": np.eye(2)},
            r"process_cov has shape \(2, 2\), expected \(1, 1\) for dims \(disturbance, disturbance_aux\)",
        ),
        (
            {"transition": np.eye(2), "observation": np.where(np.eye(3, 2) > 0, np.nan, np.ones((30, 3, 2)))},
            r"observation has nan at \(0, 0\) in row 0, expected a finite number or a name",
        ),
        ({"process_loading": [[1], [0]], "transition": "free"}, "free entry in the row of state 1, which has no noise"),
    ],
)
def test_contradictions_are_refused(arguments, message):
    with pytest.raises(ParameterError, match=message):
        sse.LinearGaussianSSM(**arguments).fit(data(30, 0.0))


SEEN = {"state_offset": "transition", "observation_offset": "observation"}
LEVELS = {"transition": np.eye(2), "observation": np.eye(3, 2), "process_cov": "diagonal", "initial": "diffuse"}


@pytest.mark.parametrize(
    ("arguments", "lost"),
    [
        ({"observation_offset": "free"}, r"'observation_offset\[0\]', 'observation_offset\[1\]' cannot be told"),
        ({"observation_offset": [0, "d", "e"]}, "'d' cannot be told"),
        ({"initial": "fixed", "observation_offset": [0, "d", "e"]}, "'d' cannot be told"),
        ({"transition": [[1, 1], [0, 1]], "observation": [[1, 0]] * 3, "state_offset": ["u", 0]},
         "'u' cannot be told from the first state"),
        ({"transition": 0.5 * np.eye(2), "initial": "stationary", "state_offset": ["u", 0],
          "observation_offset": ["d", 0, 0]}, "'u', 'd' cannot be told"),
        ({"transition": np.diag([1, 0.5]), "observation": np.eye(3, 2), "state_offset": ["m", "n"],
          "observation_offset": [0, "d", "e"]}, "'n', 'd' cannot be told"),
    ],
)  # fmt: skip
def test_offsets_that_a_shift_of_the_states_makes_up_for_are_refused(arguments, lost):
    y = data(30, 0.0)
    model = sse.LinearGaussianSSM(**(LEVELS | arguments))
    with pytest.raises(ParameterError, match=f"^{lost}.* Fix one by a number"):
        model.fit(y)
    held = [name for name in ("state_offset", "observation_offset") if name in arguments]
    zero = {
        name: ("state" if name == "state_offset" else "feature", np.zeros(len(LEVELS[SEEN[name]]))) for name in held
    }
    found = sse.LinearGaussianSSM(**{k: v for k, v in (LEVELS | arguments).items() if k not in held}).fit(y, n_starts=1)
    found = found.params_.assign(zero)
    assert np.isfinite(model.score(y, found))  # given values are another matter, and so are those held or with a prior
    model.fit(y, start=found, freeze=held, n_starts=1)
    assert set(held) <= set(model.params_.data_vars)
    assert np.isfinite(model.score(y))
    kind = "observation_prior" if "observation_offset" in arguments else "transition_prior"
    prior = sse.priors.MatrixNormal(0.0, np.diag([0.0, 0.0, 1e-3]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        sse.LinearGaussianSSM(**(LEVELS | arguments), **{kind: prior}).fit(y, n_starts=1, max_iter=3)


@pytest.mark.parametrize(
    "arguments",
    [
        {"state_offset": "free"},  # of a walk: its drift
        {"observation_offset": [0, 0, "e"]},
        {"transition": 0.5 * np.eye(2), "observation_offset": "free"},  # the start fades, the offset stays
        {"transition": 0.5 * np.eye(2), "initial": "stationary", "observation_offset": "free"},
        {"transition": 0.5 * np.eye(2), "initial": "known", "initial_mean": [0, 0], "initial_cov": np.eye(2),
         "state_offset": ["u", 0], "observation_offset": ["d", 0, 0]},
        {"states": 2, "transition": "diagonal", "observation": "free", "initial": "stationary", "state_offset": "free",
         "observation_offset": "free"},  # in an arbitrary basis
    ],
)  # fmt: skip
def test_offsets_that_rows_tell_are_estimated(arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        sse.LinearGaussianSSM(**(LEVELS | arguments)).fit(data(30, 0.0), n_starts=1, max_iter=2)


def test_starts_and_data_that_do_not_fit_are_refused():
    y = data(30, 0.0)
    model = sse.LinearGaussianSSM(transition=SHEAR, observation=WIDE, initial="diffuse")
    off = {"transition": (("next_state", "state"), np.eye(2))}
    with pytest.raises(ParameterError, match="transition in start is not of the structure"):
        model.fit(y, start=xr.Dataset(off))
    with pytest.raises(ParameterError, match="y has 2 columns, but the matrices of the model are for 3"):
        model.fit(y[:, :2])
    params = model.parameters(transition=[[0.5, 0.3], [0, 0.5]], process_cov=np.eye(2), measurement_cov=np.eye(3))
    with pytest.raises(UndeterminedStartError, match=r"time 0 begins a sequence .*diffuse"):
        model.score(np.full((4, 3), np.nan), params)


@pytest.mark.parametrize(
    ("arguments", "given", "message"),
    [
        ({"transition": [[1]], "observation": [[1]]}, {"transition": [[2]]},
         r"transition is not of the structure given to the model: \(next_state 0, state 0\) is 2, where the model"),
        ({"states": ["u", "v"], "transition": [["phi", 0], [0, "phi"]]}, {"transition": [[0.5, 0.1], [0, 0.5]]},
         r"\(next_state 'u', state 'v'\) is 0.1, where the model has 0; its fixed entries must have their values"),
        ({"states": ["u", "v"], "transition": [["phi", 0], [0, "phi"]]}, {"transition": [[0.5, 0], [0, 0.7]]},
         r"\(next_state 'v', state 'v'\) is 0.7, where the model has 0.6; .* tied ones the same. Names in the model"),
        ({"states": 1, "observation": [[1]], "measurement_cov": [[3]]}, {"measurement_cov": [[2]]},
         r"measurement_cov is not .* \(feature 0, feature_aux 0\) is 2, where the model has 3"),
    ],
)  # fmt: skip
def test_parameters_that_are_written_down_must_have_the_structure(arguments, given, message):
    model = sse.LinearGaussianSSM(**arguments)
    with pytest.raises(ParameterError, match=message):
        model.parameters(**given)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"initial": "diffuse", "initial_mean": [3.0]}, "initial_mean is given, but initial is 'diffuse'"),
        ({"process_prior": 3}, r"process_prior is 3, expected priors.InverseWishart\(\.\.\.\)"),
        ({"transition_prior": "flat"}, r"transition_prior is 'flat', expected priors.MatrixNormal\(\.\.\.\)"),
        ({"process_cov": ("q", [[0]])}, "the matrix that 'q' scales in process_cov is zero"),
        ({"transition": xr.DataArray([[1.0]], dims=("a", "b"))}, r"transition has dims \('a', 'b'\), expected"),
    ],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(arguments, message):
    model = sse.LinearGaussianSSM(**({"transition": [[1]], "observation": [[1]]} | arguments))
    with pytest.raises(ParameterError, match=message):
        model.fit(np.arange(30.0) % 7)


def test_first_states_that_take_all_there_is_to_see_are_told():
    y = np.array([[0.0, 1.0], [2.0, 4.0]])
    with pytest.warns(DataWarning, match=r"y has 4 entries, and as many first states of which nothing is known \(4\)"):
        sse.designs.constant_velocity(2, density=1.0).fit(y)


def test_parameters_of_a_motion_may_be_over_any_step():
    model = sse.designs.constant_velocity(1, noise=3.0)
    assert model.parameters(transition=[[1.0, 2.5], [0.0, 1.0]])["transition"].values[0, 1] == 2.5
    with pytest.raises(ParameterError, match="measurement_cov is not of the structure"):
        model.parameters(measurement_cov=[[2.0]])


def test_imputed_entries_match_dense_conditioning():
    """Correlated noise: what was seen in the same row tells more than the state does."""
    rng = np.random.default_rng(5)
    p = random_parameters(rng, 2, 3)
    y = simulate(rng, p, 12, 0.35)
    y[4] = np.nan
    model = sse.LinearGaussianSSM(2, initial="known", state_offset="free", observation_offset="free")
    params = model.parameters(
        transition=p.A[0], process_cov=p.Q[0], observation=p.C[0], measurement_cov=p.R[0], initial_mean=p.m0,
        initial_cov=p.P0, state_offset=p.b[0], observation_offset=p.d[0],
    )  # fmt: skip
    m, second = completed(y, p)
    mean, variance = m[24:].reshape(12, 3), np.maximum(np.diag(second - np.outer(m, m))[24:], 0.0).reshape(12, 3)
    found = model.impute(y, params, level=0.9)
    np.testing.assert_allclose(found["mean"], mean, rtol=EXACT, atol=EXACT)
    np.testing.assert_allclose(found["variance"], variance, rtol=EXACT, atol=EXACT)
    np.testing.assert_array_equal(found["mean"].values[~np.isnan(y)], y[~np.isnan(y)])
    width = (found["upper"] - found["lower"]).values
    np.testing.assert_allclose(width**2, (2 * 1.6448536269514722) ** 2 * variance, rtol=EXACT, atol=1e-8)
    with pytest.raises(ParameterError, match="level is 95"):
        model.impute(y, params, level=95)


def test_singular_noises_by_loadings_match_the_dense_oracle():
    """One disturbance drives both states, and two the three measurements: densities of y are proper all the same."""
    y = data(12, 0.2)
    G, H = np.array([[1.0], [0.5]]), np.array([[1.0, 0.0], [0.5, 1.0], [0.0, 1.0]])
    model = sse.LinearGaussianSSM(
        transition=SQUARE, observation=WIDE, process_loading=G, process_cov=[["q"]], measurement_loading=H,
        measurement_cov=[["r", "c"], ["c", "s"]], **STARTS["known"],
    )  # fmt: skip
    model.fit(y)
    table, params = model.summary()["value"], model.params_
    np.testing.assert_allclose(params.process_cov, table["q"].item() * G @ G.T, rtol=1e-12)
    R = [[table["r"].item(), table["c"].item()], [table["c"].item(), table["s"].item()]]
    np.testing.assert_allclose(params.measurement_cov, H @ R @ H.T, rtol=1e-9)
    expected = posterior(y, oracle_of(params))
    assert model.score(y) == pytest.approx(expected.log_likelihood, rel=1e-10)
    np.testing.assert_allclose(model.e_step(y).gamma, expected.mean, atol=1e-9)
    assert model.n_parameters_ == 4


def test_parameters_of_states_with_known_regressors_are_all_counted():
    """A coefficient that drifts is told by its regressor, also where that is 0 on average."""
    rng = np.random.default_rng(1)
    z, y = rng.normal(size=40), np.cumsum(rng.normal(size=40))
    z -= z.mean()
    C = np.stack([np.ones(40), z], 1)[:, None, :]
    model = sse.LinearGaussianSSM(transition=np.eye(2), process_cov="diagonal", observation=C, initial="tied")
    assert model.fit(y + z).n_parameters_ == 5  # two variances, two first means, the noise
    free = sse.LinearGaussianSSM(2, observation=C, initial="tied").fit(y + z, max_iter=2, tol=0)
    assert free.n_parameters_ == 4 + 3 + 2 + 1
    same = sse.LinearGaussianSSM(2, observation=np.tile([[1.0, 0.5]], (40, 1, 1)), initial="tied")
    plain = sse.LinearGaussianSSM(2, observation=[[1.0, 0.5]], initial="tied").fit(y, max_iter=2, tol=0)
    assert same.fit(y, max_iter=2, tol=0).n_parameters_ == plain.n_parameters_ == 8  # C hides two directions


def test_a_loading_is_the_design_written_otherwise():
    flow = sse.datasets.nile()
    model = sse.LinearGaussianSSM(
        transition=[[1, 1], [0, 1]], observation=[[1, 0]], process_loading=[[0], [1]], process_cov=[["slope"]],
        measurement_cov=[["noise"]], initial="diffuse",
    )  # fmt: skip
    design = sse.designs.smooth_trend().fit(flow)
    assert model.fit(flow).score(flow) == pytest.approx(design.score(flow), abs=1e-7)
    values = design.summary().loc[["slope_var", "noise_var"], "value"]
    assert model.summary().loc[["slope", "noise"], "value"].tolist() == pytest.approx(values.tolist(), rel=1e-3)
    errors = [each.standard_errors(flow).process_cov.values[1, 1] for each in (model, design)]
    assert errors[0] == pytest.approx(errors[1], rel=2e-2)


@pytest.mark.parametrize(
    "model",
    [
        sse.LinearGaussianSSM(3),
        sse.LinearGaussianSSM(4, observation=np.eye(1, 4)),
        sse.LinearGaussianSSM(3, transition="scalar", process_cov="scalar", state_offset="free"),
        sse.LinearGaussianSSM(3, transition=[["a", "b", 0], ["b", "a", 0], [0, 0, "c"]], initial="diffuse"),
        sse.LinearGaussianSSM(2, observation=np.random.default_rng(0).normal(size=(30, 1, 2))),
        sse.designs.local_level() + sse.designs.local_level(),
        sse.designs.local_trend() + sse.designs.seasonal(6),
        sse.designs.arima(0, 1, 1, seasonal=(0, 1, 1, 4)),
    ],
)
def test_arbitrary_directions_are_a_difference_of_two_ranks(model):
    """Those that change something at all, less those that leave the structure: here by singular values."""
    batch = as_batch(np.random.default_rng(1).normal(size=30).cumsum())[0]
    core = model._core(batch=batch, given=())
    params = next(core.starts(batch, 1, np.random.default_rng(0), {}))
    structure = core.structure(params)
    effects = identifiable_basis._generators_and_effects(params, structure)[1:]
    ranks = [np.linalg.matrix_rank(effect, tol=1e-9) for effect in effects]
    assert identifiable_basis.n_unidentified(params, structure) == ranks[0] - ranks[1]


def test_variances_linked_through_a_third_are_estimated_together():
    """The first and the last share no name, but each shares one with the second."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=300).cumsum()[:, None] + rng.normal(size=(300, 3)) * np.sqrt([1.0, 5.0, 4.0])
    model = sse.LinearGaussianSSM(
        transition=[[1]], process_cov=[["q"]], observation=[[1], [1], [1]], initial="diffuse",
        measurement_cov=[["a", 0, 0], [0, "a + b", 0], [0, 0, "b"]],
    ).fit(y)  # fmt: skip
    a, both, b = np.diag(model.params_.measurement_cov)
    assert both == pytest.approx(a + b, rel=1e-12)
    assert model.score(y) == pytest.approx(-1873.39594385561, rel=1e-9)  # of a simplex search over a, b and q
    assert model.converged_
