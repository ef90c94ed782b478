"""Student-t noise by draws: the likelihood itself is climbed, with weights drawn given y (Monte Carlo EM)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from statespace_em._typing import Floats, Ints
from statespace_em.data import Batch
from statespace_em.quasi_newton import run_quasi_newton
from statespace_em.sequence.lgssm_core import LGSSMCore
from statespace_em.sequence.lgssm_draws import drawn
from statespace_em.sequence.lgssm_expectation import flowed
from statespace_em.sequence.lgssm_params import VARYING, LGSSMParams, positions, varies
from statespace_em.sequence.state_space import StateSpaceModel
from statespace_em.sequence.student import best_dof
from statespace_em.sequence.weighted_rows import WeightedRows, distances


class Weighted(NamedTuple):
    """Copies of the rows, each with weights of its own: given these all is Gaussian."""

    core: LGSSMCore
    rows: Batch  # entries times the roots of their weights, copies end to end; each copy counts as a share of one
    plain: Batch  # the same rows, entries as they are
    factor: Floats  # (n N, D)
    view: Floats  # (n N, D, states), of entries as they are


@dataclass
class Problem:
    """What does not change in a fit with Student-t noise."""

    inner: StateSpaceModel
    batch: Batch
    owner: Ints  # (D,)
    names: tuple[str, ...]  # of the parameters that a fit starts from
    entries: Floats  # (N, G), seen

    def weighted(self, weight: Floats) -> Weighted:
        """Copies with weights (n, N, G)."""
        n, n_rows = weight.shape[:2]
        batch = self.batch
        factor = np.sqrt(weight)[:, :, self.owner].reshape(n * n_rows, -1)
        ends = batch.starts[1:] + n_rows * np.arange(n)[:, None]
        inputs = None if batch.inputs is None else np.tile(batch.inputs, (n, 1))
        plain = Batch(
            np.tile(batch.y, (n, 1)), np.concatenate([[0], ends.ravel()]), inputs=inputs,
            place=np.tile(positions(batch), n),
        )  # fmt: skip
        now = WeightedRows(self.inner, factor, plain)
        view = np.broadcast_to(now.plain_view, (n * n_rows, *now.plain_view.shape[-2:]))
        rows = plain._replace(
            y=factor * plain.y, place=np.arange(n * n_rows), sequence_weight=np.full(ends.size, 1.0 / n)
        )
        alone = self.inner._specification(None).initial == "estimated" and len(batch.starts) == 2
        core = now._core(batch=rows, given=self.names, freeze=("initial_cov",) if alone else ())
        return Weighted(replace(core, shift=None), rows, plain, factor, view)

    def spread(self, tree: LGSSMParams, copies: Weighted) -> LGSSMParams:
        """Parameters of the copies from those of the rows."""
        n = len(copies.plain.y) // len(self.batch.y)
        own = [name for name in VARYING if name != "observation" and varies(tree, name)]
        values: dict[str, Any] = {name: np.concatenate([getattr(tree, name)] * n) for name in own}
        return tree._replace(**values, observation=copies.factor[:, :, None] * copies.view)

    def gathered(self, tree: LGSSMParams) -> LGSSMParams:
        """Parameters of the rows from those of copies."""
        own = [name for name in VARYING if varies(tree, name)]
        return tree._replace(**{name: getattr(tree, name)[: len(self.batch.y)] for name in own})


@dataclass
class Chains:
    """Gibbs draws of weights and states in turn, several chains side by side."""

    problem: Problem
    weight: Floats  # (M, N, G)
    rng: np.random.Generator

    def sweep(self, tree: LGSSMParams, nu: Floats) -> Floats:
        """Draw states, then weights given these; return the squared distances (M, N, G) in between."""
        copies = self.problem.weighted(self.weight)
        whole = flowed(self.problem.spread(tree, copies), copies.core.flow)
        states = drawn(whole, copies.rows._replace(sequence_weight=None), self.rng)
        noise = self.problem.spread(tree, copies).measurement_cov
        distance = distances(copies.plain.y, copies.view, states, None, noise, self.problem.owner)
        distance = distance.reshape(self.weight.shape)
        shape = (nu + self.problem.entries) / 2.0
        found = self.rng.standard_gamma(np.broadcast_to(shape, distance.shape)) / ((nu + distance) / 2.0)
        self.weight = np.where(self.problem.entries > 0, found, 1.0)
        return distance
