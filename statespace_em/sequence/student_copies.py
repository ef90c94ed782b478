"""Copies of rows with Student-t noise, each with weights of its own: given these all is Gaussian."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from statespace_em._typing import Floats, Ints
from statespace_em.data import Batch
from statespace_em.errors import RowError
from statespace_em.sequence.lgssm_core import LGSSMCore
from statespace_em.sequence.lgssm_expectation import flowed
from statespace_em.sequence.lgssm_params import VARYING, LGSSMParams, positions, varies
from statespace_em.sequence.state_space import StateSpaceModel
from statespace_em.sequence.weighted_rows import WeightedRows, distances


@contextmanager
def rows_of_copies(n_rows: int) -> Iterator[None]:
    """Let errors about a row of copies name its number among the rows that these are of."""
    try:
        yield
    except RowError as error:
        number, *more = error.args
        raise type(error)(int(number) % n_rows, *more) from None


class Copies(NamedTuple):
    """n copies of the rows, end to end, with weights that are given."""

    model: WeightedRows
    core: LGSSMCore
    rows: Batch  # entries times the roots of their weights; likelihoods of the copies are averaged
    plain: Batch  # the same rows, entries as they are
    observation: Floats  # (n N, D, states), of rows as they are multiplied
    view: Floats  # (n N, D, states), of entries as they are

    @property
    def alone(self) -> Batch:
        """The rows, each sequence for itself."""
        return self.rows._replace(sequence_weight=None)

    def states_of(self, params: LGSSMParams) -> LGSSMParams:
        """Parameters with the dynamics of every step."""
        return flowed(params, self.core.flow)


@dataclass(frozen=True)
class Problem:
    """What stays as it is in a fit with Student-t noise."""

    inner: StateSpaceModel
    batch: Batch
    owner: Ints  # (D,), the weight that each column shares
    names: tuple[str, ...]  # of the parameters that are known to begin with

    @property
    def entries(self) -> Floats:
        """Number (N, G) of entries seen that share a weight."""
        owns = self.owner[:, None] == np.arange(self.owner.max() + 1)
        return np.asarray((~np.isnan(self.batch.y)).astype(float) @ owns)

    def copies(self, weight: Floats) -> Copies:
        """Copies with weights (n, N, G)."""
        n, n_rows, batch = *weight.shape[:2], self.batch
        factor = np.sqrt(weight)[:, :, self.owner].reshape(n * n_rows, -1)
        ends = (batch.starts[1:] + n_rows * np.arange(n)[:, None]).ravel()
        inputs = None if batch.inputs is None else np.tile(batch.inputs, (n, 1))
        starts, place = np.concatenate([[0], ends]), np.tile(positions(batch), n)
        plain = Batch(np.tile(batch.y, (n, 1)), starts, inputs=inputs, place=place)
        model = WeightedRows(self.inner, factor, plain)
        share = np.full(len(ends), 1.0 / n)
        rows = plain._replace(y=factor * plain.y, place=np.arange(len(factor)), sequence_weight=share)
        single = self.inner._specification(None).initial == "estimated" and len(batch.starts) == 2
        core = model._core(batch=rows, given=self.names, freeze=("initial_cov",) if single else ())
        view = np.broadcast_to(model.plain_view, (len(factor), *model.plain_view.shape[-2:]))
        return Copies(model, replace(core, shift=None), rows, plain, factor[:, :, None] * view, view)

    def spread(self, params: LGSSMParams, copies: Copies) -> LGSSMParams:
        """Parameters of the rows as those of copies."""
        n = len(copies.plain.y) // len(self.batch.y)
        own = [name for name in VARYING if name != "observation" and varies(params, name)]
        tiled: dict[str, Any] = {name: np.concatenate([getattr(params, name)] * n) for name in own}
        return params._replace(**tiled, observation=copies.observation)

    def gathered(self, params: LGSSMParams) -> LGSSMParams:
        """Parameters of copies as those of the rows; the observation is that of the first copy."""
        own = [name for name in VARYING if varies(params, name)]
        return params._replace(**{name: getattr(params, name)[: len(self.batch.y)] for name in own})

    def distances(self, copies: Copies, params: LGSSMParams, states: Floats) -> Floats:
        """Squared Mahalanobis distances (n, N, G) of the entries of copies from what states (n N, n_states) say."""
        noise = self.spread(params, copies).measurement_cov
        found = distances(copies.plain.y, copies.view, states, None, noise, self.owner)
        return found.reshape(-1, *self.entries.shape)
