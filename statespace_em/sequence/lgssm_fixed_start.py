"""First states that are fixed but unknown: generalised least squares estimates and their standard errors."""

from __future__ import annotations

from functools import partial

import numpy as np

from statespace_em._typing import Bools, Floats
from statespace_em.data import Batch
from statespace_em.diagnostics.information import Information
from statespace_em.sequence.flow import Flow
from statespace_em.sequence.lgssm_diffuse import forward, proper_start, solve
from statespace_em.sequence.lgssm_expectation import flowed
from statespace_em.sequence.lgssm_params import LGSSMParams
from statespace_em.sequence.lgssm_passes import each
from statespace_em.sequence.lgssm_shift import Shift


def gls_first_state(
    params: LGSSMParams, batch: Batch, fixed: Bools, likelihood: str, flow: Flow | None = None
) -> tuple[Floats, Floats]:
    """Generalised least squares estimates (k,) of the first states marked by ``fixed`` (n,), and their covariance."""
    start = proper_start(flowed(params, flow), batch, fixed)
    (run,) = each(start.params, batch, partial(forward, start), whole=True)
    assert run.constants is not None
    solved = solve(run.constants, batch.first, start, likelihood=likelihood)
    scale = np.sqrt(start.stand_in[start.fixed])
    base = start.params.initial_mean[fixed]
    return base + scale * solved.value[0, start.fixed], scale[:, None] * solved.fixed_cov * scale


def first_state_errors(
    information: Information, batch: Batch, fixed: Bools, likelihood: str, flow: Flow | None, shift: Shift | None
) -> Floats:
    """Standard errors (n,) of the first states that are fixed but unknown, NaN for the others.

    From the information on constants and parameters together: the variance of the constants given the parameters, and
    what the uncertainty of these adds, for the likelihood at the best constants is that of the parameters.
    """

    def at(params: LGSSMParams) -> tuple[Floats, Floats]:
        if shift is None:
            return gls_first_state(params, batch, fixed, likelihood, flow)
        values, cov = gls_first_state(params, shift.centred(batch), fixed, likelihood, flow)
        mean = np.array(params.initial_mean)
        mean[fixed] = values
        return shift.from_centred(params._replace(initial_mean=mean)).initial_mean[fixed], cov

    moved = information.errors(lambda params: at(params)[0])
    errors = np.full(len(fixed), np.nan)
    errors[fixed] = np.sqrt(np.diag(at(information.reference)[1]) + np.nan_to_num(moved) ** 2)
    return errors
