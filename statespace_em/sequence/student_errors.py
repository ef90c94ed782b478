"""Standard errors of a fit with Student-t noise: from the curvature of the likelihood, or of its bound."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from statespace_em._typing import Floats, Ints
from statespace_em.data import Batch
from statespace_em.diagnostics import standard_errors as errors_of
from statespace_em.diagnostics.information import Information, jacobian, observed_information, score_of
from statespace_em.errors import InformationWarning, ParameterError
from statespace_em.labels import labelled_rows
from statespace_em.sequence.continuous_time import ContinuousTimeModel
from statespace_em.sequence.filter_row import By, owners
from statespace_em.sequence.lgssm_core import LGSSMCore
from statespace_em.sequence.lgssm_expectation import flowed
from statespace_em.sequence.lgssm_params import LGSSMParams, positions
from statespace_em.sequence.lgssm_smoother import smooth
from statespace_em.sequence.student import expected_weights
from statespace_em.sequence.student_copies import Problem
from statespace_em.sequence.student_draws import SETTLING, chains_of, chance
from statespace_em.sequence.weighted_rows import WeightedRows, distances, numbered

ROUNDS = 1000  # of states and weights in turn under the bound
SETTLED = 1e-11  # change of a weight that counts as none


def student_errors(
    model: Any, y: Any, dof: Any, by: By, inputs: Any = None, draws: int = 0, seed: int = 0
) -> xr.Dataset:
    """Standard errors of the named values of a model with Student-t noise, given its degrees of freedom.

    The information on the likelihood is that of Louis (1982), weights being what is missing: the expected curvature of
    the log-likelihood given weights, less the covariance of its slopes, over draws of these given y. Its own error by
    chance is some hundredths for 256 draws.

    Without draws it is that of the variational bound, states and weights at their best for all values: by the envelope
    theorem its slope is the score of the model with these weights held. They tell how the estimates scatter (in
    simulations to a few parts in a hundred), not how far from the truth the bound puts them: see `fit_student`.

    Parameters
    ----------
    model
        With the parameters found.
    y, inputs
        Those of the fit.
    dof
        Degrees of freedom: a number, or a dict of them by owner.
    by
        What has a weight of its own.
    draws, seed
        Number of draws of the weights, and what decides them; 0 for the bound.

    Raises
    ------
    ParameterError
        If no value of the model has a name.
    """
    driven = model if inputs is None else model._with_inputs(inputs, y)
    timed = isinstance(driven, ContinuousTimeModel)
    known = driven._known(None)
    inner = driven._bound(y, known, base_step=driven._step_of(known)) if timed else driven
    batch, labels, _ = inner._read(y, known)
    place = positions(batch)
    names = owners(by, labels.features.tolist(), model._sensor_names())
    owner = numbered(names)
    nu = np.array([dof[name] for name in dict.fromkeys(names)] if isinstance(dof, dict) else [float(dof)])
    now = WeightedRows(inner, np.ones((len(batch.y), len(owner))), batch)
    params = inner._start_on_grid(known) if timed else known
    params = params.isel(time=place).drop_vars("time", errors="ignore") if "time" in params.dims else params
    rows = batch._replace(place=np.arange(len(batch.y)))
    arrays = now._schema().arrays(params.drop_vars("observation", errors="ignore"))
    core = replace(now._core(batch=rows, given=now._given_by(arrays)), shift=None)  # rows have weights of their own
    told = driven._named if timed else now._named
    if not told(core, core.build(arrays)):
        raise ParameterError(
            f"no value of this {type(model).__name__} has a name of its own, and it is for those that there are "
            'standard errors here: write it with names, as in measurement_cov=[["r"]].'
        )
    with labelled_rows(labels):
        if draws:
            problem = Problem(inner, batch, owner, now._given_by(arrays))
            core, information = _by_draws(problem, core.build(arrays), nu, draws, seed)
        else:
            information = observed_information(
                core, arrays, rows, _slopes_of_bound(core, rows, now, owner, nu, batch.y)
            )
    for message in errors_of.complaints(information, {}):
        warnings.warn(message, InformationWarning, stacklevel=3)
    found = errors_of.named_errors(information, partial(told, core))
    return xr.Dataset({name: ((), float(value)) for name, value in found.items()})


def _slopes_of_bound(
    core: LGSSMCore, rows: Batch, now: WeightedRows, owner: Ints, nu: Floats, y: Floats
) -> Callable[[Any], Callable[[Floats], Floats]]:
    """Slope of the bound at coordinates around a reference."""
    view, seen = now.plain_view, ~np.isnan(y)
    entries = seen.astype(float) @ (owner[:, None] == np.arange(len(nu)))
    weight = np.ones(entries.shape)

    def settled(tree: Any) -> tuple[Any, Any]:
        """Rows and parameters with the weights that are best for these parameters."""
        nonlocal weight
        for _ in range(ROUNDS):
            factor = np.sqrt(weight)[:, owner]
            seen_as, moved = rows._replace(y=factor * y), tree._replace(observation=factor[:, :, None] * view)
            states = smooth(flowed(moved, core.flow), seen_as, core.likelihood)[0]
            cov = np.asarray(states.cov)
            distance = distances(y, view, states.mean, cov, tree.measurement_cov, owner)
            before = weight
            weight = np.where(entries > 0, expected_weights(nu, entries, distance)[0], 1.0)
            if np.abs(weight - before).max() <= SETTLED:
                break
        return seen_as, moved

    def score(reference: Any) -> Callable[[Floats], Floats]:
        def at(x: Floats) -> Floats:
            seen_as, moved = settled(core.from_vector(x, reference))
            there = reference._replace(observation=moved.observation)
            return score_of(core, seen_as, there)(x)

        return at

    return score


def _by_draws(
    problem: Problem, params: LGSSMParams, nu: Floats, draws: int, seed: int
) -> tuple[LGSSMCore, Information]:
    """Core of copies with weights drawn, and the information on the likelihood in its coordinates."""
    chains = chains_of(problem, np.ones(problem.entries.shape), draws, seed)
    chains.sweeps(2 * SETTLING, params, nu)
    weight = chains.sweeps(-(-draws // len(chains.weight)), params, nu)[1]
    copies = problem.copies(weight)
    core = copies.core
    given = observed_information(core, core.flatten(problem.spread(params, copies)), copies.rows)

    def likelihoods(x: Floats) -> Floats:
        """Log-likelihood (n,) of each copy."""
        tree = copies.states_of(core.from_vector(x, given.reference))
        return np.asarray(smooth(tree, copies.alone, core.likelihood)[1].reshape(len(weight), -1).sum(1))

    slopes = jacobian(likelihoods, given.centre) @ given.basis
    missing = np.cov(slopes.T).reshape(len(given.values), -1)
    values, vectors = np.linalg.eigh(given.vectors * given.values @ given.vectors.T - missing)
    found = replace(given, values=values, vectors=vectors)
    by_chance = found.decrement < chance(len(values)) / draws  # draws have another top than those of the fit
    return core, replace(found, score=np.zeros(len(values))) if by_chance else found
