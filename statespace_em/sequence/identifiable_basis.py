"""How many free parameters are a mere choice of basis and origin for the states, and so not identified.

States s' = M s + v leave y as it is when A, Q, C, m, P, b, d, B become M A M^-1, M Q M', C M^-1, M m + v, M P M',
M b + (I - M A M^-1) v, d - C M^-1 v, M B. With M = I + X, a pair (X, v) is a generator of such a change: to first
order it changes every parameter, and what of these changes the structure of the model does not allow is its violation.
Combinations of generators without violation, that change something all the same, are directions in which nothing is
identified. Free values are taken at random, because a first guess is often more symmetric than what it stands for; a
first state that is diffuse, fixed or stationary is so in any basis.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from statespace_em._typing import Bools, Floats
from statespace_em.kernels.null_space import null_space, product
from statespace_em.patterns import Pattern
from statespace_em.row_patterns import RowPattern
from statespace_em.sequence.lgssm_params import PARAMETERS, ROWWISE, LGSSMParams, varies
from statespace_em.sequence.lgssm_structure import Structure

NOTHING = 1e-9  # change, each parameter on its own scale, that is none
SEEN = 1e-9  # share of what y tells most of, below which it does not tell a state from others


def n_unidentified(params: LGSSMParams, structure: Structure) -> int:
    """Number of directions in which the free parameters move without changing the distribution of y."""
    _, changes, violations = _generators_and_effects(params, structure)
    if not len(changes):
        return 0
    allowed = null_space(violations, NOTHING)
    left = changes if len(allowed) == len(changes) else product(allowed, changes)
    return len(allowed) - len(null_space(left, NOTHING))


def has_free_units(params: LGSSMParams, structure: Structure, diffuse: Bools) -> bool:
    """Whether free parameters can measure states (n,) that start diffuse in other units, and leave y as it is.

    A diffuse likelihood moves by the logarithm of the units then, without bound.
    """
    free = [structure.patterns[name].touched for name in ("transition", "observation") if structure.is_free(name)]
    if not any(touched[:, diffuse].any() for touched in free):
        return False
    generators, _, violations = _generators_and_effects(params, structure)
    n = len(diffuse)
    X = (null_space(violations, NOTHING) @ generators)[:, : n * n].reshape(-1, n, n)
    trace = X[:, diffuse, diffuse].sum(1)  # of the logarithm of the units
    return bool((np.abs(trace) > NOTHING * np.abs(X).max((1, 2), initial=0.0)).any())


def _generators_and_effects(params: LGSSMParams, structure: Structure) -> tuple[Floats, Floats, Floats]:
    """Generators (k, n^2 + n), what each changes (k, entries), and its violations of the structure (k, entries)."""
    skipped = {"measurement_cov"}
    if structure.tied:
        skipped.add("initial_cov")
    if not np.isfinite(params.initial_cov).all() or structure.fixed is not None or structure.stationary is not None:
        skipped |= {"initial_mean", "initial_cov"}
    names = [name for name in PARAMETERS if name not in skipped and getattr(params, name) is not None]
    params, generic = _generic(params, structure, names)
    n = len(generic.initial_mean)
    if "initial_cov" in skipped:
        generic = generic._replace(initial_mean=np.zeros(n), initial_cov=np.zeros((n, n)))
    by_row, constant, factors = _row_basis(params, generic, structure)
    generators = _generators(generic, by_row, structure, steady=not varies(params, "transition"))
    k = len(generators)
    if not k:
        return generators, np.zeros((0, 0)), np.zeros((0, 0))
    every = _first_order(by_row, constant, generators[:, : n * n].reshape(k, n, n), generators[:, n * n :])
    changes = {name: every[name].reshape(k, -1) for name in names}
    violations = [_violation(structure, generic, constant, factors, *change) for change in changes.items()]
    return generators, np.hstack(list(changes.values())), np.hstack(violations)


def _generic(params: LGSSMParams, structure: Structure, names: list[str]) -> tuple[LGSSMParams, LGSSMParams]:
    """Parameters with their free values at random: those that vary row by row, and all as their mean over rows."""
    rng = np.random.default_rng(0)
    values = {name: value.mean(0) if varies(params, name) else value for name, value in params._asdict().items()}
    for name in [name for name in names if structure.is_free(name)]:
        drawn = rng.standard_normal(values[name].shape)
        drawn = drawn @ drawn.T if name.endswith("cov") else drawn
        pattern, noise = structure.patterns[name], structure.noises.get(name)
        value = pattern.build(pattern.read(drawn if noise is None else noise.inner(drawn)))
        value = value if noise is None else noise.outer(value)
        if isinstance(pattern, RowPattern):
            params = params._replace(**{name: structure.rows_of(name, value)})
            value = value.mean(0)
        values[name] = value
    return params, LGSSMParams(**values)


def _generators(generic: LGSSMParams, by_row: LGSSMParams, structure: Structure, *, steady: bool) -> Floats:
    """Generators (k, n^2 + n) that span all those without violation.

    Such a generator changes A by some D and C by some E that the structure allows, ``X A - A X = D`` and ``-C X = E``.
    Where y tells all states apart (the observability matrix has full rank) X follows from these: ``C A^k X = R_k`` with
    ``R_0 = -E`` and ``R_(k+1) = R_k A - C A^k D``.
    """
    A, C = generic.transition, by_row.observation.reshape(-1, len(generic.transition))
    n = len(A)
    free = {name: structure.patterns[name] for name in ("transition", "observation") if structure.is_free(name)}
    if (
        not (steady and all(isinstance(pattern, Pattern) for pattern in free.values()))
        or sum(len(pattern.names) for pattern in free.values()) >= n * n
        or ("observation" in free and len(by_row.observation) > 1)
    ):
        return np.eye(n * n + n)
    rows = [C / _scale(C)]
    for _ in range(n - 1):
        rows.append(rows[-1] @ A)
    observability = np.concatenate(rows)
    if np.linalg.matrix_rank(observability, tol=SEEN * float(np.linalg.norm(observability))) < n:
        return np.eye(n * n + n)
    inverse, linear = np.linalg.pinv(observability), []
    for name, pattern in free.items():
        for change in pattern.tangent(getattr(generic, name)).dense(0, 1)[:, 0]:
            R = [-change / _scale(C) if name == "observation" else np.zeros_like(C)]
            for row in rows[:-1]:
                R.append(R[-1] @ A - (row @ change if name == "transition" else 0.0))
            X = inverse @ np.concatenate(R)
            linear.append(X.ravel() / (np.linalg.norm(X) or 1.0))
    offsets = generic.state_offset.any() or structure.is_free("state_offset") or structure.is_free("observation_offset")
    n_shifts = n if offsets else 0  # without offsets a shift changes something, as y tells all states apart
    generators = np.zeros((len(linear) + n_shifts, n * n + n))
    generators[: len(linear), : n * n] = np.array(linear).reshape(len(linear), n * n)
    generators[len(linear) :, n * n :] = np.eye(n_shifts, n)
    return generators


def _row_basis(
    params: LGSSMParams, generic: LGSSMParams, structure: Structure
) -> tuple[LGSSMParams, Floats, dict[str, Floats]]:
    """Parameters (K, ...) as combinations of the rows, and what each makes of a constant 1, and of factors of names.

    Conditions on all rows are linear in these: a basis of what the rows span tells as much as the rows. Without
    parameters that vary there is one combination, the parameters themselves.
    """
    varying = [name for name in ROWWISE if varies(params, name)]
    values = generic._asdict()
    factors = {}
    for name in varying:
        pattern, kinds = structure.patterns.get(name), structure.kinds(name)
        if isinstance(pattern, RowPattern) and kinds is not None:
            by_kind = _loaded_design(structure, name) if _has_row_loading(structure, name) else pattern.factors.T
            factors[name] = by_kind[kinds.of_row]
    if not varying:
        basis = np.ones((1, 1))
    else:
        flat = [getattr(params, name).reshape(len(getattr(params, name)), -1) for name in varying]
        flat += [factors[name] for name in factors]
        length = min(map(len, flat))
        whole = np.hstack([*(part[:length] / _scale(part) for part in flat), np.ones((length, 1))])
        size, vectors = np.linalg.eigh(whole.T @ whole / length)
        basis = vectors[:, size > 1e-12 * size[-1]].T
    constant, begin = basis[:, -1], 0
    for name in values:
        if name in varying:
            value = getattr(params, name)
            end = begin + value[0].size
            values[name] = _scale(value) * basis[:, begin:end].reshape(len(basis), *value.shape[1:])
            begin = end
        else:
            values[name] = np.multiply.outer(constant, values[name])
    for name, factor in factors.items():
        end = begin + factor.shape[1]
        factors[name], begin = basis[:, begin:end], end
    return LGSSMParams(**values), constant, factors


def _violation(
    structure: Structure, params: LGSSMParams, constant: Floats, factors: dict[str, Floats], name: str, changes: Floats
) -> Floats:
    """Part of changes (k, entries) of a parameter that its structure does not allow: what no free value makes."""
    if not structure.is_free(name):
        return changes
    if len(constant) == 1 and _is_whole(structure, name):
        return changes[:, :0]
    pattern = structure.patterns[name].tangent(getattr(params, name))
    if _has_row_loading(structure, name):
        size = getattr(params, name).shape[-1]
        design = factors[name].reshape(len(constant), len(pattern.names), size, size).swapaxes(0, 1)
    elif isinstance(pattern, RowPattern):
        numbers = np.zeros((len(constant), *pattern.shape))
        design = replace(pattern, factors=factors[name].T, numbers=numbers).dense(0, len(constant))
    else:
        design = np.array([np.multiply.outer(constant, part) for part in pattern.design])
    if name in structure.noises and not _has_row_loading(structure, name):
        design = np.array([structure.noises[name].outer(part) for part in design])
    flat = design.reshape(len(design), -1)
    if flat.any(1).all() and ((flat != 0.0).sum(0) <= 1).all():  # no entry is of two values: they are orthogonal
        dual = np.ascontiguousarray((flat / (flat * flat).sum(1, keepdims=True)).T)
        return np.asarray(changes - product(product(np.ascontiguousarray(changes), dual), flat))
    return np.asarray(changes - np.linalg.lstsq(flat.T, changes.T, rcond=None)[0].T @ flat)


def _has_row_loading(structure: Structure, name: str) -> bool:
    """Whether the loading of a noise changes from row to row."""
    noise = structure.noises.get(name)
    return noise is not None and noise.loading is not None and noise.loading.ndim == 3


def _loaded_design(structure: Structure, name: str) -> Floats:
    """Factors (kinds, values * entries) of the free values of such a noise in all of its entries."""
    pattern = structure.patterns[name]
    assert isinstance(pattern, RowPattern)
    whole = structure.noises[name].outer(pattern.dense(0, len(pattern.numbers)))
    return np.asarray(whole.swapaxes(0, 1).reshape(whole.shape[1], -1))


def _is_whole(structure: Structure, name: str) -> bool:
    """Whether every entry of a parameter is free for itself."""
    pattern = structure.patterns[name]
    if isinstance(pattern, RowPattern):
        return False
    if name not in structure.noises:
        return pattern.is_whole
    return structure.noises[name].is_whole


def _first_order(params: LGSSMParams, constant: Floats, X: Floats, v: Floats) -> dict[str, Floats]:
    """First-order changes of every parameter (k, rows, ...), each on its own scale, by generators (k, ...)."""
    X, v = X[:, None], v[:, None]
    A, C, P, Q, Xt = params.transition, params.observation, params.initial_cov, params.process_cov, X.swapaxes(2, 3)
    shift = constant[:, None] * v
    change = {
        "transition": X @ A - A @ X,
        "process_cov": X @ Q + Q @ Xt,
        "observation": -C @ X,
        "initial_mean": _apply(X, params.initial_mean) + shift,
        "initial_cov": X @ P + P @ Xt,
        "state_offset": _apply(X, params.state_offset) + shift - _apply(A, v),
        "observation_offset": -_apply(C, v),
    }
    if params.state_input is not None:
        change["state_input"] = X @ params.state_input
    if params.observation_input is not None:
        change["observation_input"] = np.zeros((len(X), *params.observation_input.shape))
    return {name: value / _scale(getattr(params, name)) for name, value in change.items()}


def _apply(matrices: Floats, vectors: Floats) -> Floats:
    """Products (k, rows, p) of matrices (..., p, n) with vectors (..., n)."""
    return np.asarray((matrices @ vectors[..., None])[..., 0])


def _scale(value: Floats) -> float:
    """Largest entry; 1 where there is none."""
    largest = float(np.abs(value).max())
    return largest if 0.0 < largest < np.inf else 1.0
