"""Variances at exactly 0 in structured noises: where a fit may go onto such a face of the parameters, and leave it.

The score is that of the filter, which inverts covariances of innovations only: it is exact also where a variance is 0,
and its sign there says whether the likelihood rises with the variance (the conditions of Karush, Kuhn and Tucker).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from statespace_em._typing import Floats
from statespace_em.sequence.lgssm_expectation import Statistics
from statespace_em.sequence.lgssm_noise import Block, Noise
from statespace_em.sequence.lgssm_params import LGSSMParams, span_of, varies
from statespace_em.sequence.lgssm_structure import Structure

SHARES = (1e-2, 1e-4, 1e-6)  # of its value at the start, below which a variance may belong at 0
LIFTS = (1.0, 0.1, 1e-2, 1e-3, 1e-4)  # nats that its slope promises, tried for a variance that does not
TINY = 1e-4  # of the largest variance at the start: a start that says nothing of where a variance belongs


def onto_faces(structure: Structure, params: LGSSMParams, start: LGSSMParams) -> Iterator[LGSSMParams]:
    """Parameters with small free variances at 0, as many as possible first."""
    tried = -1
    for share in SHARES:
        values, n_small = params._asdict(), 0
        for name, noise in _noises(structure, params):
            values[name], n = _reduced(noise, getattr(params, name), getattr(start, name), share)
            n_small += n
        if n_small and n_small != tried:
            yield structure.complete(values)
        tried = n_small


def off_faces(
    structure: Structure, params: LGSSMParams, statistics: Statistics, start: LGSSMParams
) -> Iterator[LGSSMParams]:
    """Parameters with those variances raised that are next to 0 but along which the likelihood rises."""
    assert statistics.gradients is not None
    gradients = structure.entry_gradients(statistics.gradients, params)
    starts = [np.diag(noise.inner(getattr(start, name))) for name, noise in _noises(structure, start)]
    tiny = TINY * max((float(each.max()) for each in starts), default=0.0)
    for lift in LIFTS:
        values, n_raised = params._asdict(), 0
        for name, noise in _noises(structure, params):
            half = 0.5 * gradients[name]
            values[name], n = _raised(noise, getattr(params, name), getattr(start, name), half, tiny, lift)
            n_raised += n
        if not n_raised:
            return
        yield structure.complete(values)


def at_zero(structure: Structure, params: LGSSMParams) -> list[str]:
    """Names of the free variances that are exactly 0, and of covariances free as a whole that are singular."""
    found = []
    for name, noise in _noises(structure, params):
        inner = noise.inner(getattr(params, name))
        for block in _variances(noise):
            found += [noise.pattern.names[j] for j, v in zip(block.values, noise.read(block, inner)) if v == 0.0]
        whole = [np.ix_(block.rows, block.rows) for block in noise.blocks if block.kind == "free"]
        found += [name for square in whole if span_of(inner[square]) is not None]
    return found


def _noises(structure: Structure, params: LGSSMParams) -> Iterator[tuple[str, Noise]]:
    for name in structure.names:
        if name in structure.noises and not varies(params, name):
            yield name, structure.noises[name]


def _variances(noise: Noise) -> list[Block]:
    """Blocks whose free values are variances."""
    return [block for block in noise.blocks if block.kind in ("variances", "scale")]


def _reduced(noise: Noise, cov: Floats, start: Floats, share: float) -> tuple[Floats, int]:
    inner, origin, n = np.array(noise.inner(cov)), noise.inner(start), 0
    for block in _variances(noise):
        values = noise.read(block, inner)
        small = (values > 0.0) & (values < share * noise.read(block, origin))
        n += int(small.sum())
        inner[np.ix_(block.rows, block.rows)] = noise.written(block, np.where(small, 0.0, values))
    return noise.outer(inner), n


def _raised(noise: Noise, cov: Floats, start: Floats, gradient: Floats, tiny: float, lift: float) -> tuple[Floats, int]:
    inner, origin, n = np.array(noise.inner(cov)), noise.inner(start), 0
    for block in _variances(noise):
        values, before = noise.read(block, inner), noise.read(block, origin)
        slopes = noise.slopes(block, gradient)
        higher = lift / np.where(slopes > 0.0, slopes, np.inf)
        low = (values < SHARES[0] * before) | (before < tiny)
        up = low & (before > 0.0) & (higher > values)
        n += int(up.sum())
        inner[np.ix_(block.rows, block.rows)] = noise.written(block, np.where(up, higher, values))
    return noise.outer(inner), n
