"""M-step of the linear-Gaussian model under any structure (Shumway & Stoffer 1982, joint and constrained)."""

from __future__ import annotations

import numpy as np

from statespace_em._typing import Floats
from statespace_em.errors import ParameterError
from statespace_em.priors import InverseWishart
from statespace_em.sequence.lgssm_expectation import Statistics
from statespace_em.sequence.lgssm_params import LGSSMParams, varies
from statespace_em.sequence.lgssm_priors import SidePrior
from statespace_em.sequence.lgssm_regression import Residuals, update
from statespace_em.sequence.lgssm_structure import RowKinds, Structure

HALVINGS = 30
FLAT = InverseWishart()
SIDES = (
    ("transition", "state_offset", "state_input", "process_cov"),
    ("observation", "observation_offset", "observation_input", "measurement_cov"),
)


def m_step(
    structure: Structure,
    s: Statistics,
    previous: LGSSMParams,
    process_prior: SidePrior,
    measurement_prior: SidePrior,
) -> LGSSMParams:
    """Maximise the expected log joint over what is free.

    Where the start is stationary the dynamics have no closed form: the maximiser without the start is approached
    only as far as the whole expectation rises (a generalised M-step).
    """
    new = previous._asdict()
    first = _start(structure, s, previous, new)
    n_pairs, scatter = s.n_pairs, s.S_ww
    if structure.tied:
        n_pairs, scatter = s.n_pairs + s.n_sequences, s.S_ww + first
    one = np.zeros(len(s.first_mean), np.int64)
    state, rows = s.steps, s.rows
    if state is None:
        state = Residuals(scatter[None], s.S_wz[None], s.S_zz[None, None], np.array([[float(n_pairs)]]), one)
    if rows is None:
        rows = Residuals(s.S_vv[None], s.S_vz[None], s.S_uu[None], s.n_rows[None], structure.blocks)
    # sums that were added up, over chunks, no longer say which blocks they are of
    state, rows = state._replace(blocks=one), rows._replace(blocks=structure.blocks)
    _side(structure, SIDES[1], rows, previous, new, measurement_prior, structure.rows)
    _side(structure, SIDES[0], state, previous, new, process_prior, structure.steps)
    if structure.stationary is not None:
        return _guarded(structure, s, previous, new, process_prior)
    return structure.complete(new)


def _first(s: Statistics, previous: LGSSMParams) -> Floats:
    """First mean that the statistics are residuals of."""
    return previous.initial_mean if s.start is None else s.start


def _start(structure: Structure, s: Statistics, previous: LGSSMParams, new: dict[str, Floats | None]) -> Floats:
    """Update the moments of the first state; returns the sum of its outer products around its new mean."""
    start = _first(s, previous)
    new["initial_mean"] = start
    shift, count = s.first_mean - s.n_sequences * start, np.array([[float(s.n_sequences)]])
    cov = previous.initial_cov
    if not np.isfinite(cov).all():
        return np.zeros(cov.shape)
    zero = np.zeros(len(shift), np.int64)
    scatter = s.first_cov + s.first_outer
    sums = Residuals(scatter[None], shift[None, :, None], count[:, :, None, None], count, zero)
    pattern = structure.beside(("initial_mean",), len(shift), (1,))
    change, cov = update(pattern, sums, structure.noises["initial_cov"], cov, FLAT)
    moved = change[0, :, 0]
    new["initial_mean"], new["initial_cov"] = start + moved, cov
    half = np.outer(moved, shift)
    return np.asarray(scatter - half - half.T + s.n_sequences * np.outer(moved, moved))


def _side(
    structure: Structure,
    names: tuple[str, str, str, str],
    sums: Residuals,
    previous: LGSSMParams,
    new: dict[str, Floats | None],
    prior: SidePrior,
    kinds: RowKinds | None,
) -> None:
    """Update the coefficients and the noise of one side, in place."""
    matrix, offset, inputs, cov = names
    if varies(previous, cov) and kinds is None:  # nothing closed
        return
    if not sums.counts.sum(0).all() and prior.is_flat:  # nothing speaks
        return
    (_, size, width), n_states = sums.cross.shape, len(previous.initial_mean)
    coefficient, widths = (matrix, offset, inputs), (n_states, 1, width - n_states - 1)
    if not prior.coefficients.is_flat:
        sums = prior.added(sums, coefficients(previous, coefficient, size, width), n_states)
    pattern, noise = structure.beside(coefficient, size, widths), getattr(previous, cov)
    if kinds is not None and varies(previous, cov):
        noise = noise[kinds.first]
    change, noise = update(pattern, sums, structure.noises[cov], noise, prior.noise)
    if structure.is_free(cov):
        new[cov] = structure.rows_of(cov, noise)
    begin = 0
    for name, wide in zip(coefficient, widths):
        if structure.is_closed(name):
            old = structure.kinds_of(name, previous)
            own = change if structure.kinds(name) is not None else change[0]
            new[name] = structure.rows_of(name, old + own[..., begin : begin + wide].reshape(old.shape))
        begin += wide


def coefficients(params: LGSSMParams, names: tuple[str, str, str], size: int, width: int) -> Floats:
    """Put matrix, offset and effects of inputs side by side (size, width); what varies or is not there is 0."""
    found = np.zeros((size, width))
    matrix, offset, inputs = (getattr(params, name) for name in names)
    n = len(params.initial_mean)
    if matrix.ndim == 2:
        found[:, :n] = matrix
    if offset.ndim == 1:
        found[:, n] = offset
    if inputs is not None and inputs.ndim == 2:
        found[:, n + 1 :] = inputs
    return found


def _guarded(
    structure: Structure, s: Statistics, previous: LGSSMParams, new: dict[str, Floats | None], prior: SidePrior
) -> LGSSMParams:
    """Go as far towards the new dynamics as raises the expectation with the stationary start in it."""
    names = SIDES[0]
    if any(varies(previous, name) for name in names if getattr(previous, name) is not None):
        return structure.complete(new | {name: getattr(previous, name) for name in names})  # they follow the score
    try:
        before = _expected(structure, s, previous, previous, prior)
    except np.linalg.LinAlgError:  # a start without density: EM leaves the dynamics to the score
        return structure.complete(new | {name: getattr(previous, name) for name in names})
    for halving in range(HALVINGS):
        values = dict(new)
        for name in names:
            old = getattr(previous, name)
            if old is not None:
                values[name] = old + 0.5**halving * (np.asarray(new[name]) - old)
        try:
            params = structure.complete(values)
            if _expected(structure, s, params, previous, prior) >= before:
                return params
        except (ParameterError, np.linalg.LinAlgError):
            continue
    kept = {name: getattr(previous, name) for name in names}
    return structure.complete(new | kept)


def _expected(structure: Structure, s: Statistics, params: LGSSMParams, old: LGSSMParams, prior: SidePrior) -> float:
    """Expected log density of the states, up to constants, plus the log prior of their noise."""
    there, here = (coefficients(each, SIDES[0][:3], *s.S_wz.shape) for each in (params, old))
    change = there - here
    half = change @ s.S_wz.T
    scatter = s.S_ww - half - half.T + change @ s.S_zz @ change.T
    moved = params.initial_mean - _first(s, old)
    shift = s.first_mean - s.n_sequences * _first(s, old)
    outer = np.outer(moved, shift)
    first = s.first_cov + s.first_outer - outer - outer.T + s.n_sequences * np.outer(moved, moved)
    noise = structure.noises["process_cov"]
    known = np.isfinite(np.diag(params.initial_cov))
    block = np.ix_(known, known)
    return (
        _log_density(noise.inner(params.process_cov), noise.inner(scatter), s.n_pairs)
        + _log_density(params.initial_cov[block], first[block], s.n_sequences)
        + prior.log_density(noise, params.process_cov, there, len(params.initial_mean))
    )


def _log_density(cov: Floats, scatter: Floats, count: float) -> float:
    """Sum of Gaussian log densities on the range of a covariance that may be singular by structure."""
    values, vectors = np.linalg.eigh(cov)
    kept = values > 1e-13 * values[-1]
    if values[0] < -1e-10 * values[-1] or not kept.any():
        raise np.linalg.LinAlgError("a covariance is not positive semi-definite")
    squares = np.einsum("ik,ij,jk->k", vectors[:, kept], scatter, vectors[:, kept])
    return float(-0.5 * (count * np.log(values[kept]).sum() + (squares / values[kept]).sum()))
