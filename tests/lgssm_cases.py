"""What tests of the linear-Gaussian model share: its core at a start, and its parameters as the oracle has them."""

from __future__ import annotations

import numpy as np
from oracles_gaussian import Parameters

from statespace_em.sequence.lgssm_params import LGSSMParams


def core_of(model, y, given=(), rng=None):
    """Core as in a fit, the batch, and the first start."""
    batch = model._read(y, None)[0]
    core = model._core(batch=batch, given=dict(given))
    return core, batch, next(iter(core.starts(batch, 1, np.random.default_rng(0) if rng is None else rng, {})))


def params_of(p: Parameters) -> LGSSMParams:
    """Parameters of the core that are those of the oracle; what has one row is constant."""
    A, b, Q, C, d, R = (value if len(value) > 1 else value[0] for value in p[:6])
    return LGSSMParams(A, Q, C, R, p.m0, p.P0, b, d)


def oracle_of(params, **others) -> Parameters:
    """Parameters of the oracle: those of the core, or labelled ones; ``others`` stand in their place."""
    known = params._asdict() if isinstance(params, LGSSMParams) else {name: params[name].values for name in params}
    value = {name: np.asarray(v, float) for name, v in (known | others).items() if v is not None}
    D, n = value["observation"].shape[-2:]
    value = {"state_offset": np.zeros(n), "observation_offset": np.zeros(D)} | value
    rows = ("transition", "state_offset", "process_cov", "observation", "observation_offset", "measurement_cov")
    stacked = (value[name] if value[name].ndim == 3 - ("offset" in name) else value[name][None] for name in rows)
    return Parameters(*stacked, value.get("initial_mean", np.zeros(n)), value.get("initial_cov", np.zeros((n, n))))


def score_and_slopes(core, batch, point, step=1e-5):
    """Score in the coordinates of what is free, and the central differences of the objective that it should equal."""

    def objective(x):
        there = core.from_vector(x, point)
        return core.e_step(there, batch)[1] + core.log_prior(there)

    x = core.to_vector(point, point)
    slopes = [(objective(x + step * unit) - objective(x - step * unit)) / (2.0 * step) for unit in np.eye(len(x))]
    return core.score_vector(point, core.e_step(point, batch)[0], point), np.array(slopes)


def em_steps(core, batch, point, n_steps):
    """Objectives (n_steps,) on the way of plain EM, and the parameters it ends at."""
    trace = []
    for _ in range(n_steps):
        statistics, value = core.e_step(point, batch)
        trace.append(value + core.log_prior(point))
        point = core.m_step(statistics, point)
    return np.array(trace), point
