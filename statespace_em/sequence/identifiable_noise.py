"""Are the variances identified? Noises, and dynamics, of which only a sum shapes the distribution of y.

A noise of the states that is gone in the next row is one of the measurement; a moving average of an order not below
that of its autoregression takes in any measurement noise. Whether there is such a direction is a question on how the
covariance of some rows of y changes with the values at random points: its derivatives along random weights of the rows
then depend on each other.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np

from statespace_em._typing import Floats
from statespace_em.errors import InformationWarning, ParameterError, UndeterminedStartError, UnstableDynamicsError
from statespace_em.labels import listed
from statespace_em.patterns import Pattern, from_word
from statespace_em.sequence.even_rows import outside
from statespace_em.sequence.lgssm_loading import loaded
from statespace_em.sequence.lgssm_specification import Specification
from statespace_em.sequence.lgssm_stationary import stationary_moments
from statespace_em.sequence.lgssm_structure import COVARIANCES

POINTS = 3  # random points: what is flat at all of them is flat everywhere
FLAT = 1e-7  # least singular value of derivatives of size 1, beyond what differences are off by
NEAR = 1e-3  # step of differences of the fourth order
STENCIL = {-2: 1.0, -1: -8.0, 1: 8.0, 2: -1.0}  # over 12 steps
HALVED, SETTLED = 8, 0.95  # times that the dynamics are made slower, until they decay so fast
MAX_STATES = 64  # of larger models the question is too dear
NAMED = 1e-4  # share in a flat direction, from which on a value is named


class _Model(NamedTuple):
    """What the covariance of y depends on."""

    spec: Specification
    patterns: Mapping[str, Pattern]  # of transition, process_cov, measurement_cov
    observation: Floats  # (rows, D, n)


def check_noise_identified(spec: Specification, held: Collection[str]) -> None:
    """Refuse noises of which only a sum matters, and warn of noises that the dynamics make up for.

    Raises
    ------
    ParameterError
        Naming the values.
    """
    names = unidentified_values(spec, held)
    if not names:
        return
    dynamics, which = spec.patterns.get("transition"), listed(names)
    moving = isinstance(dynamics, Pattern) and set(dynamics.names) & set(names)
    if moving and len(names) > 2:
        warnings.warn(
            f"{which} cannot be told apart: whatever y is, a change of one makes up for others. Likelihood, forecasts "
            "and the other values are right, but these are one choice of many. Leave one out, as the measurement "
            'noise beside a moving average by model.set_params(noise="zero").',
            InformationWarning,
            stacklevel=outside(),
        )
        return
    if len(names) == 1 or moving:
        raise ParameterError(
            f"{which} {'has' if len(names) == 1 else 'have'} no part in y, whatever y is: fix what no measurement "
            "shows by numbers, or leave it out."
        )
    raise ParameterError(
        f"{which} cannot be told apart: whatever y is, only sums of them matter. Fix one by a number, leave one out, "
        "or give the noises a prior."
    )


def unidentified_values(spec: Specification, held: Collection[str]) -> tuple[str, ...]:
    """Names of values that no data tell apart; () where all are, or where bases or rows are free in other ways.

    ``held`` are names of matrices that are not estimated.
    """
    model = _model_of(spec)
    if model is None:
        return ()
    names = [word for matrix, own in model.patterns.items() if matrix not in held for word in own.names]
    left, rng = set(names), np.random.default_rng(0)
    for _ in range(POINTS):
        if not left:
            return ()
        try:
            left &= _flat_at(model, held, rng)
        except (UnstableDynamicsError, UndeterminedStartError):  # which the fit refuses in words of its own
            return ()
    return tuple(name for name in names if name in left)


def _model_of(spec: Specification) -> _Model | None:
    """The covariance of a model whose loadings are known, and whose noises are written value by value."""
    n, D = len(spec.names), spec.n_features or 1
    C = spec.value("observation")
    if (
        C is None
        or spec.flow is not None
        or spec.has_inputs
        or n > MAX_STATES
        or set(spec.by_row) - {"observation"}
        or (C.ndim > 2 and not spec.regressors)
    ):
        return None
    whole = {"transition": (n, n), "process_cov": (n, n), "measurement_cov": (D, D)}
    patterns: dict[str, Pattern] = {}
    for name, shape in whole.items():
        own = spec.patterns.get(name)
        if own is None and max(shape) > 1:
            return None
        found = from_word("free", shape, name, symmetric=name in COVARIANCES) if own is None else own
        if not isinstance(found, Pattern):
            return None
        patterns[name] = found
    n_rows = 3 * n + 4
    if C.ndim == 2:
        return _Model(spec, patterns, np.broadcast_to(C, (n_rows, D, n)))
    observation = np.array(np.broadcast_to(C[0], (n_rows, D, n)))
    columns = list(spec.regressors.values())
    observation[:, :, columns] = np.random.default_rng(1).normal(size=(n_rows, D, len(columns)))
    return _Model(spec, patterns, observation)


def _flat_at(model: _Model, held: Collection[str], rng: np.random.Generator) -> set[str]:
    """Values in directions that are flat at a random point."""
    point = {name: rng.uniform(0.5, 1.5, len(own.names)) for name, own in model.patterns.items()}
    point["transition"] = _settling(model, rng)
    free = [(name, i) for name, own in model.patterns.items() if name not in held for i in range(len(own.names))]
    weights = rng.normal(size=(3 * len(free) + 4, *model.observation.shape[:2]))
    at = {name: own.build(point[name]) for name, own in model.patterns.items()}
    zero = {name: np.zeros_like(value) for name, value in at.items()}
    seen = _responses(model, at["transition"], weights)
    slopes = np.empty((len(weights), len(free)))
    for column, (name, i) in enumerate(free):
        if name == "transition":
            slopes[:, column] = _along(model, point[name], i, at, weights)
        else:  # variances are linear in covariances
            moved = zero | {"transition": at["transition"], name: model.patterns[name].tangent(at[name]).design[i]}
            slopes[:, column] = _variances(model, moved, seen)
    size = np.linalg.norm(slopes, axis=0)
    blind = size <= FLAT * size.max(initial=0.0)
    slopes = np.where(blind, 0.0, slopes / np.where(blind, 1.0, size))
    values, axes = np.linalg.svd(slopes, full_matrices=False)[1:]
    shares = np.abs(axes[values <= FLAT]).max(0, initial=0.0)
    return {model.patterns[name].names[i] for (name, i), share in zip(free, shares) if share > NAMED}


def _settling(model: _Model, rng: np.random.Generator) -> Floats:
    """Values of the transition at which the states that start stationary settle, if they do at any."""
    own, some = model.patterns["transition"], model.spec.starts_as("stationary")
    values = rng.uniform(0.1, 0.5, len(own.names)) * rng.choice([-1.0, 1.0])
    for _ in range(HALVED if some.any() else 0):
        if np.abs(np.linalg.eigvals(own.build(values)[np.ix_(some, some)])).max() < SETTLED:
            break
        values = values / 2.0
    return np.asarray(values)


def _along(model: _Model, values: Floats, i: int, at: Mapping[str, Floats], weights: Floats) -> Floats:
    """Derivative of the variances of weighted sums of rows with respect to a value of the transition."""
    total = np.zeros(len(weights))
    for step, factor in STENCIL.items():
        moved = np.array(values)
        moved[i] += NEAR * step
        A = model.patterns["transition"].build(moved)
        total += factor * _variances(model, {**at, "transition": A}, _responses(model, A, weights))
    return np.asarray(total / (12.0 * NEAR))


def _responses(model: _Model, A: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Weights (m, rows, D) of what diffuse states leave of the rows, and those (rows, m, n) that states have in it."""
    (n_rows, D, n), diffuse = model.observation.shape, model.spec.starts_as("diffuse")
    if diffuse.any():
        seen, state = np.empty((n_rows, D, int(diffuse.sum()))), np.eye(n)[:, diffuse]
        for t in range(n_rows):
            seen[t], state = model.observation[t] @ state, A @ state
        columns = seen.reshape(n_rows * D, -1)
        size = np.linalg.norm(columns, axis=0)
        axes, triangle = np.linalg.qr(columns / np.where(size > 0.0, size, 1.0))
        if not np.abs(triangle.diagonal()).min() > FLAT:
            raise UndeterminedStartError(0, np.flatnonzero(diffuse).tolist())
        flat = weights.reshape(len(weights), -1)
        weights = (flat - flat @ axes @ axes.T).reshape(weights.shape)
    states = np.zeros((n_rows + 1, len(weights), n))
    for t in range(n_rows - 1, -1, -1):
        states[t] = states[t + 1] @ A + weights[:, t] @ model.observation[t]
    return weights, states[:-1]


def _variances(model: _Model, at: Mapping[str, Floats], seen: tuple[Floats, Floats]) -> Floats:
    """Variances (m,) of weighted sums of rows of y."""
    spec, (weights, states) = model.spec, seen
    A, Q, R = (loaded(at[name], spec.loadings.get(name)) for name in model.patterns)
    first, some = np.zeros_like(Q), spec.starts_as("stationary")
    if (spec.starts_as("estimated") | spec.starts_as("tied")).all():
        first = Q
    if some.any():
        block = np.ix_(some, some)
        first[block] = stationary_moments(A[block], np.zeros(int(some.sum())), Q[block])[1]
    parts = (weights @ R * weights).sum((1, 2)), (states[1:] @ Q * states[1:]).sum((0, 2))
    return np.asarray(sum(parts) + (states[0] @ first * states[0]).sum(1))
