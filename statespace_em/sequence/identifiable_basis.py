"""How many free parameters are a mere choice of basis and origin for the states, and so not identified."""

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
    """Number of directions in which the free parameters move without changing the distribution of y.

    States s' = M s + v leave y as it is when A, Q, C, m, P, b, d, B become M A M^-1, M Q M', C M^-1, M m + v, M P M',
    M b + (I - M A M^-1) v, d - C M^-1 v, M B. With M = I + X, those (X, v) that move nothing out of its structure but
    something within it are counted. The free values are taken at random, because a
    first guess is often more symmetric than what it stands for. A first state that is diffuse, fixed or stationary is
    so in any basis.
    """
    _, everything, outside = _moves(params, structure)
    if not len(everything):
        return 0
    kept = null_space(outside, NOTHING)
    left = everything if len(kept) == len(everything) else product(kept, everything)
    return len(kept) - len(null_space(left, NOTHING))


def has_free_units(params: LGSSMParams, structure: Structure, diffuse: Bools) -> bool:
    """Whether free parameters can measure states that start diffuse in other units, and leave y as it is.

    A diffuse likelihood moves by the logarithm of the units then, without bound.
    """
    free = [structure.patterns[name].touched for name in ("transition", "observation") if structure.is_free(name)]
    if not any(touched[:, diffuse].any() for touched in free):
        return False
    moves, _, outside = _moves(params, structure)
    n = len(diffuse)
    X = (null_space(outside, NOTHING) @ moves)[:, : n * n].reshape(-1, n, n)
    volume = X[:, diffuse, diffuse].sum(1)
    return bool((np.abs(volume) > NOTHING * np.abs(X).max((1, 2), initial=0.0)).any())


def _moves(params: LGSSMParams, structure: Structure) -> tuple[Floats, Floats, Floats]:
    """Each (X, v) (moves, n^2 + n), what it changes (moves, entries), and what of that the structure does not allow."""
    rng = np.random.default_rng(0)
    skipped = {"measurement_cov"}
    if structure.tied:
        skipped.add("initial_cov")
    if not np.isfinite(params.initial_cov).all() or structure.fixed is not None or structure.stationary is not None:
        skipped |= {"initial_mean", "initial_cov"}
    names = [name for name in PARAMETERS if name not in skipped and getattr(params, name) is not None]
    values = {name: value.mean(0) if varies(params, name) else value for name, value in params._asdict().items()}
    for name in [name for name in names if structure.is_free(name)]:
        noise = rng.standard_normal(values[name].shape)
        noise = noise @ noise.T if name.endswith("cov") else noise
        pattern = structure.patterns[name]
        if name in structure.noises:
            inner = pattern.build(pattern.read(structure.noises[name].inner(noise)))
            drawn = structure.noises[name].outer(inner)
        else:
            drawn = pattern.build(pattern.read(noise))
        if isinstance(pattern, RowPattern):
            params = params._replace(**{name: structure.rows_of(name, drawn)})
            drawn = drawn.mean(0)
        values[name] = drawn
    size = len(params.initial_mean)
    if "initial_cov" in skipped:
        values |= {"initial_mean": np.zeros(size), "initial_cov": np.zeros((size, size))}
    generic = LGSSMParams(**values)
    many, one, factors = _rows(params, generic, structure)
    units = _candidates(generic, many, structure, not varies(params, "transition"))
    if not len(units):
        return units, np.zeros((0, 0)), np.zeros((0, 0))
    moves = _moved(many, one, units[:, : size * size].reshape(-1, size, size), units[:, size * size :])
    changes = {name: moves[name].reshape(len(units), -1) for name in names}
    outside = [_outside(structure, generic, one, factors, name, change) for name, change in changes.items()]
    return units, np.hstack(list(changes.values())), np.hstack(outside)


def _candidates(generic: LGSSMParams, many: LGSSMParams, structure: Structure, steady: bool) -> Floats:
    """Moves (moves, n^2 + n) among which are all that move nothing out of its structure.

    They change A by some D and C by some E that the structure allows, ``X A - A X = D`` and ``-C X = E``. Where y tells
    all states apart X follows from these: ``C A^k X = R_k`` with ``R_0 = -E`` and ``R_(k+1) = R_k A - C A^k D``.
    """
    A, C = generic.transition, many.observation.reshape(-1, len(generic.transition))
    n = len(A)
    free = {name: structure.patterns[name] for name in ("transition", "observation") if structure.is_free(name)}
    if (
        not (steady and all(isinstance(pattern, Pattern) for pattern in free.values()))
        or sum(len(pattern.names) for pattern in free.values()) >= n * n
        or ("observation" in free and len(many.observation) > 1)
    ):
        return np.eye(n * n + n)
    rows = [C / _size(C)]
    for _ in range(n - 1):
        rows.append(rows[-1] @ A)
    seen = np.concatenate(rows)
    if np.linalg.matrix_rank(seen, tol=SEEN * float(np.linalg.norm(seen))) < n:
        return np.eye(n * n + n)
    back, turns = np.linalg.pinv(seen), []
    for name, pattern in free.items():
        for own in pattern.tangent(getattr(generic, name)).dense(0, 1)[:, 0]:
            R = [-own / _size(C) if name == "observation" else np.zeros_like(C)]
            for row in rows[:-1]:
                R.append(R[-1] @ A - (row @ own if name == "transition" else 0.0))
            X = back @ np.concatenate(R)
            turns.append(X.ravel() / (np.linalg.norm(X) or 1.0))
    moves = generic.state_offset.any() or any(
        structure.is_free(name) for name in ("state_offset", "observation_offset")
    )
    shifts = (
        np.eye(n) if moves else np.zeros((0, n))
    )  # else a shift that moves nothing is none, as y tells states apart
    units = np.zeros((len(turns) + len(shifts), n * n + n))
    units[: len(turns), : n * n] = np.array(turns).reshape(len(turns), n * n)
    units[len(turns) :, n * n :] = shifts
    return units


def _rows(
    params: LGSSMParams, generic: LGSSMParams, structure: Structure
) -> tuple[LGSSMParams, Floats, dict[str, Floats]]:
    """Parameters (K, ...) as combinations of the rows, and what each makes of a constant 1, and of factors of names.

    Conditions on all rows are linear in these: a basis of what the rows span tells as much as the rows. Without
    parameters that vary there is one combination, the parameters themselves.
    """
    own = [name for name in ROWWISE if varies(params, name)]
    values = generic._asdict()
    factors = {}
    for name in own:
        pattern, kinds = structure.patterns.get(name), structure.kinds(name)
        if isinstance(pattern, RowPattern) and kinds is not None:
            factors[name] = (
                _designs(structure, name)[kinds.of_row]
                if _loads_rows(structure, name)
                else (pattern.factors.T[kinds.of_row])
            )
    if not own:
        basis = np.ones((1, 1))
    else:
        flat = [getattr(params, name).reshape(len(getattr(params, name)), -1) for name in own]
        flat += [factors[name] for name in factors]
        length = min(map(len, flat))
        whole = np.hstack([*(part[:length] / _size(part) for part in flat), np.ones((length, 1))])
        size, vectors = np.linalg.eigh(whole.T @ whole / length)
        basis = vectors[:, size > 1e-12 * size[-1]].T
    one, begin = basis[:, -1], 0
    for name in values:
        if name in own:
            value = getattr(params, name)
            end = begin + value[0].size
            values[name] = _size(value) * basis[:, begin:end].reshape(len(basis), *value.shape[1:])
            begin = end
        else:
            values[name] = np.multiply.outer(one, values[name])
    for name, factor in factors.items():
        end = begin + factor.shape[1]
        factors[name], begin = basis[:, begin:end], end
    return LGSSMParams(**values), one, factors


def _outside(
    structure: Structure, params: LGSSMParams, one: Floats, factors: dict[str, Floats], name: str, changes: Floats
) -> Floats:
    """Part of changes (moves, entries) of a parameter that its structure does not allow."""
    if not structure.is_free(name):
        return changes
    if len(one) == 1 and _is_whole(structure, name):
        return changes[:, :0]
    pattern = structure.patterns[name].tangent(getattr(params, name))
    if _loads_rows(structure, name):
        size = getattr(params, name).shape[-1]
        design = factors[name].reshape(len(one), len(pattern.names), size, size).swapaxes(0, 1)
    elif isinstance(pattern, RowPattern):
        design = replace(pattern, factors=factors[name].T, numbers=np.zeros((len(one), *pattern.shape))).dense(
            0, len(one)
        )
    else:
        design = np.array([np.multiply.outer(one, part) for part in pattern.design])
    if name in structure.noises and not _loads_rows(structure, name):
        design = np.array([structure.noises[name].outer(part) for part in design])
    flat = design.reshape(len(design), -1)
    if flat.any(1).all() and ((flat != 0.0).sum(0) <= 1).all():  # no entry is of two values: they are at right angles
        back = np.ascontiguousarray((flat / (flat * flat).sum(1, keepdims=True)).T)
        return np.asarray(changes - product(product(np.ascontiguousarray(changes), back), flat))
    return np.asarray(changes - np.linalg.lstsq(flat.T, changes.T, rcond=None)[0].T @ flat)


def _loads_rows(structure: Structure, name: str) -> bool:
    """Whether disturbances enter a noise otherwise from row to row."""
    noise = structure.noises.get(name)
    return noise is not None and noise.loading is not None and noise.loading.ndim == 3


def _designs(structure: Structure, name: str) -> Floats:
    """Factors (kinds, values * entries) of the values of such a noise in all of its entries."""
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


def _moved(params: LGSSMParams, one: Floats, X: Floats, v: Floats) -> dict[str, Floats]:
    """First-order changes of every parameter (moves, K, ...), each on its own scale, by moves (moves, ...)."""
    X, v = X[:, None], v[:, None]
    A, C, P, Q, Xt = params.transition, params.observation, params.initial_cov, params.process_cov, X.swapaxes(2, 3)
    shift = one[:, None] * v
    change = {
        "transition": X @ A - A @ X,
        "process_cov": X @ Q + Q @ Xt,
        "observation": -C @ X,
        "initial_mean": _each(X, params.initial_mean) + shift,
        "initial_cov": X @ P + P @ Xt,
        "state_offset": _each(X, params.state_offset) + shift - _each(A, v),
        "observation_offset": -_each(C, v),
    }
    if params.state_input is not None:
        change["state_input"] = X @ params.state_input
    if params.observation_input is not None:
        change["observation_input"] = np.zeros((len(X), *params.observation_input.shape))
    return {name: value / _size(getattr(params, name)) for name, value in change.items()}


def _each(matrices: Floats, vectors: Floats) -> Floats:
    """Products (moves, K, p) of matrices (..., p, n) with vectors (..., n)."""
    return np.asarray((matrices @ vectors[..., None])[..., 0])


def _size(value: Floats) -> float:
    largest = float(np.abs(value).max())
    return largest if 0.0 < largest < np.inf else 1.0
