"""Observed information of a fit, and what it says of any function of the parameters.

The E-step gives the exact score (Fisher's identity: it is the gradient of the expected complete-data log-likelihood at
the same parameters); central differences of it give the whole Hessian, in the unconstrained coordinates of the core.
The delta method brings its inverse back to the parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from statespace_em._typing import Bools, Floats
from statespace_em.core import Core, HasGradient, HasLimits, HasShift, Limit
from statespace_em.data import Batch
from statespace_em.domains import Domain
from statespace_em.emissions.base import HasDomains
from statespace_em.errors import ParameterError, UnstableDynamicsError
from statespace_em.quasi_newton import HasScore

STEP = 2e-4  # of the differences; coordinates are of order 1
RANK = 1e-9  # singular value of the scaled Jacobian below which a direction does not move the parameters
SINGULAR = 1e-7  # eigenvalue of the information over the largest one, below which the data say nothing
FLAT = 1e-6  # nats per squared unit of a coordinate below which it says nothing either
FEW = 1e-2  # expected events below which a probability or a rate is at its boundary
NOT_AT_TOP = 1e-3  # nats that a Newton step still promises at what is called a maximum


@dataclass(frozen=True)
class Information:
    """Observed information at some parameters, in the directions that move them."""

    core: Core
    reference: Any  # the parameters, those at a boundary exactly on it
    centre: Floats  # (M,), their coordinates
    basis: Floats  # (M, F), orthonormal directions
    values: Floats  # (F,), eigenvalues of the information, upwards
    vectors: Floats  # (F, F), its eigenvectors
    score: Floats  # (F,), gradient of the objective along the directions, nats
    boundary: Mapping[str, Bools]  # entries of the parameters at a boundary
    limit: Limit | None  # what is at a limit of the parameters

    @property
    def usable(self) -> Bools:
        """Eigenvectors (F,) of which the data say something."""
        largest = float(self.values[-1]) if len(self.values) else 0.0
        return self.values > max(SINGULAR * largest, FLAT)

    @property
    def decrement(self) -> float:
        """Gain in nats that a Newton step promises; next to 0 at a maximum."""
        along = self.vectors.T @ self.score
        return float(0.5 * np.sum(along[self.usable] ** 2 / self.values[self.usable]))

    def draw(self, rng: np.random.Generator) -> Any:
        """Parameters drawn from the normal distribution of the estimates, in the coordinates; what is flat stays."""
        spread = np.where(self.usable, 1.0 / np.sqrt(np.where(self.usable, self.values, 1.0)), 0.0)
        away = self.vectors @ (spread * rng.standard_normal(len(spread)))
        return self.core.from_vector(self.centre + self.basis @ away, self.reference)

    def errors(self, function: Callable[[Any], Floats]) -> Floats:
        """Standard errors of a function (P,) of the parameters; NaN where it does not move or nothing is known."""
        return self.error_parts(function)[0]

    def error_parts(self, function: Callable[[Any], Floats]) -> tuple[Floats, Bools]:
        """Standard errors, and which of them are missing because the information is singular."""
        slopes = jacobian(lambda x: function(self.core.from_vector(x, self.reference)), self.centre)
        moves = slopes @ self.basis @ self.vectors
        usable = self.usable
        errors = np.sqrt(np.sum(moves[:, usable] ** 2 / self.values[usable], axis=1))
        size = np.linalg.norm(moves, axis=1)
        unknown = np.linalg.norm(moves[:, ~usable], axis=1) > 1e-6 * size
        still = ~(size > 1e-12 * max(1.0, float(size.max(initial=0.0))))
        return np.where(still | unknown, np.nan, errors), unknown & ~still


def observed_information(
    core: Core,
    arrays: Mapping[str, Floats],
    batch: Batch,
    score_at: Callable[[Any], Callable[[Floats], Floats]] | None = None,
) -> Information:
    """Information at parameters given as named arrays.

    ``score_at(reference)`` makes the gradient at coordinates; None takes that of the objective of the core.

    Raises
    ------
    ParameterError
        If the family does not state the domains of its parameters, or a covariance is singular.
    """
    boundary = {name: at_boundary(value, domain_of(core, name), batch) for name, value in arrays.items()}
    inside = {name: np.where(boundary[name], 0.0, value) for name, value in arrays.items()}
    tree = core.build(inside)
    limit = core.limit(tree, batch) if isinstance(core, HasLimits) else None
    tree = tree if limit is None else limit.params
    try:
        centre = core.to_vector(tree, tree)
        if core.n_free(tree) == 0:
            raise ParameterError("nothing in the model is free: there is no estimate to have a standard error.")
        if centre is None:
            raise ParameterError("the family does not state the domains of its parameters: it has no standard errors.")
        reference = core.from_vector(centre, tree)
        basis = _directions(core, centre, reference, None if limit is None else limit.held)
        score = score_of(core, batch, reference) if score_at is None else score_at(reference)
        here = basis.T @ score(centre)
        slopes = [_difference(lambda x: basis.T @ score(x), centre, direction) for direction in basis.T]
    except UnstableDynamicsError as error:
        raise ParameterError(
            f"these parameters are next to dynamics without a stationary start ({error}) There are no standard errors "
            "at this limit."
        ) from None
    except np.linalg.LinAlgError:
        raise ParameterError(
            "a covariance of these parameters is singular: there are no standard errors at this boundary. Fix what "
            "is known, use fewer states, or a prior that keeps variances away from zero."
        ) from None
    hessian = np.array(slopes).reshape(len(slopes), len(slopes))
    values, vectors = np.linalg.eigh(-(hessian + hessian.T) / 2.0)
    return Information(core, reference, centre, basis, values, vectors, here, boundary, limit)


def domain_of(core: Core, name: str) -> Domain:
    """Domain of one parameter."""
    if isinstance(core, HasDomains):
        return core.domains.get(name, "real")
    return "covariance" if name.endswith("_cov") else "real"


def at_boundary(value: Floats, domain: Domain, batch: Batch) -> Bools:
    """Entries next to zero: a probability or a rate under which next to no event is expected in these rows."""
    if domain not in ("simplex", "nonnegative"):
        return np.zeros(value.shape, bool)
    return np.asarray(value * len(batch.y) < FEW)


def jacobian(function: Callable[[Floats], Floats], centre: Floats) -> Floats:
    """Derivatives (P, M) of a function (P,) of coordinates (M,)."""
    columns = [_difference(function, centre, direction) for direction in np.eye(len(centre))]
    return np.array(columns).T if columns else np.empty((len(function(centre)), 0))


def _difference(function: Callable[[Floats], Floats], centre: Floats, direction: Floats) -> Floats:
    """Derivative along a direction by the central difference of fourth order."""
    step = STEP * direction
    near, far = (_less(function(centre + s * step), function(centre - s * step)) for s in (1.0, 2.0))
    return np.asarray((8.0 * near - far) / (12.0 * STEP))


def _less(left: Floats, right: Floats) -> Floats:
    """Difference; 0 where both are infinite, as the variance of a diffuse start is."""
    return np.subtract(left, right, out=np.zeros(np.shape(left)), where=np.asarray(left) != right)


def flattened(core: Core, tree: Any) -> Floats:
    """All parameters end to end."""
    return np.concatenate([np.ravel(value) for value in core.flatten(tree).values()])


def _directions(core: Core, centre: Floats, reference: Any, held: Bools | None) -> Floats:
    """Orthonormal directions (M, F) that move the parameters; coordinates of probabilities have others as well."""
    own = core.unshifted() if isinstance(core, HasShift) else core  # far from 0 offsets drown in what moves with them
    slopes = jacobian(lambda x: flattened(own, core.from_vector(x, reference)), centre)
    if held is not None:
        slopes[:, held] = 0.0
    size = np.abs(slopes).max(1, initial=0.0)
    moving = size > 1e-12
    _, singular, right = np.linalg.svd(slopes[moving] / size[moving, None], full_matrices=False)
    return np.asarray(right[singular > RANK * max(1.0, float(singular.max(initial=0.0)))].T)


def score_of(core: Core, batch: Batch, reference: Any) -> Callable[[Floats], Floats]:
    """Gradient of log-likelihood plus log prior at coordinates."""

    def prior(x: Floats) -> Floats:
        return np.array([core.log_prior(core.from_vector(x, reference))])

    if not isinstance(core, HasGradient):
        if not isinstance(core, HasScore):
            raise ParameterError(f"{type(core).__name__} knows no score: it has no standard errors.")
        known: HasScore = core

        def score(x: Floats) -> Floats:
            tree = core.from_vector(x, reference)
            return known.score_vector(tree, core.e_step(tree, batch)[0], reference)

        return score
    informed = core
    start = core.to_vector(reference, reference)
    assert start is not None
    flat = all(prior(start * factor)[0] == 0.0 for factor in (1.0, 1.01, 0.98))

    def gradient(x: Floats) -> Floats:
        own = informed.gradient(core.from_vector(x, reference), batch, reference)
        return own if flat else own + jacobian(prior, x)[0]

    return gradient
