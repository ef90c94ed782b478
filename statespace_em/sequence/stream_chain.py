"""The filter of a hidden Markov model, one row at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import xarray as xr

from statespace_em._typing import Floats
from statespace_em.emissions.base import HasPrepared
from statespace_em.errors import ImpossibleObservationError, ImpossibleStateError
from statespace_em.kernels import chain_row
from statespace_em.model import LatentModel
from statespace_em.sequence.hmm_core import HMMCore, HMMParams
from statespace_em.sequence.stream import Stream


class ChainStep(NamedTuple):
    """What is known of a hidden chain when a row has come."""

    time: Any
    filtered: Floats  # (K,), p(s_t | y_1..t)
    predicted: Floats  # (K,), p(s_t | y_1..t-1)
    log_likelihood: float  # log p(y_t | y_1..t-1), nats


class ChainStream(Stream[ChainStep]):
    """The filter of a hidden Markov model, one row at a time.

    In log space throughout: one row costs K * K exponentials, and nothing underflows however long it runs.
    """

    conditioning: Mapping[str, str] = {"filtered": "1:t", "predicted": "1:t-1", "log_likelihood": "1:t-1"}
    dims: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "filtered": ("state",),
        "predicted": ("state",),
        "log_likelihood": (),
        "log_predicted": ("state",),
    }

    def __init__(self, model: LatentModel, params: xr.Dataset, core: HMMCore, tree: HMMParams) -> None:
        super().__init__(model, params)
        family, emission = core.family, tree.emission
        self._density: Callable[[Floats], Floats] = (
            family.prepared(emission)
            if isinstance(family, HasPrepared)
            else lambda y: np.asarray(family.log_prob(emission, y[None])[0])
        )
        with np.errstate(divide="ignore"):
            self._log_now, self._log_transition = np.log(tree.initial), np.log(tree.transition)

    @property
    def predicted(self) -> Floats:
        """Probability (K,) of each state in the next row, given the rows so far."""
        return np.exp(self._log_now)

    def _advance(self, y: Floats, time: Any, known: int) -> ChainStep:
        log_b = self._density(y)
        if known >= 0:
            log_b = np.where(np.arange(len(log_b)) == known, log_b, -np.inf)
        predicted, filtered = self.predicted, np.empty(len(log_b))
        value = chain_row.chain_step(log_b, self._log_transition, self._log_now, filtered)
        if value == -np.inf:
            raise ImpossibleObservationError(self.n_rows) if known < 0 else ImpossibleStateError(self.n_rows, known)
        return ChainStep(time, filtered, predicted, value)

    def _state(self) -> dict[str, Floats]:
        return {"log_predicted": self._log_now}
