"""Groups of free values of a noise covariance that are estimated together, each with its M-step and coordinates.

What is the same in every row, what is a multiple of one pattern in all kinds of rows (each row's residuals count in
units of their factor), and one name times known matrices (the same after whitening each row) reduce to a constant
`Block`. Any other linear family takes Fisher scoring on the sum over kinds of rows, values as they are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from statespace_em._typing import Floats, Ints
from statespace_em.patterns import Pattern, components
from statespace_em.priors import InverseWishart
from statespace_em.row_patterns import RowPattern
from statespace_em.sequence.lgssm_block import Block, Family, Sums, scored

FLAT = InverseWishart()
SAME = 1e-12  # relative difference of multiples of one matrix


@dataclass(frozen=True, eq=False)
class Place:
    """Rows of a covariance that nothing links to others, in the kinds of rows where certain names stand there."""

    rows: Ints  # (r,)
    kinds: Ints  # (k,)
    family: Family

    def cut(self, matrices: Floats) -> Floats:
        """Part (k, r, r) of matrices (kinds, p, p)."""
        return np.asarray(matrices[self.kinds[:, None, None], self.rows[:, None], self.rows])

    def counts(self, counts: Floats) -> Floats:
        """Part (k, r) of numbers of residuals (kinds, p)."""
        return np.asarray(counts[self.kinds[:, None], self.rows])


class NoiseGroup(ABC):
    """Names that are estimated together.

    A state is what a `Noise` is worked on in: the inner covariance (r, r) if that is the same in every row, else the
    free values of its pattern.
    """

    @abstractmethod
    def read(self, state: Floats) -> Floats:
        """Return what stands for the names: the covariance of a block, or values."""

    @abstractmethod
    def write(self, state: Floats, found: Floats) -> None:
        """Put what stands for the names in place."""

    @abstractmethod
    def gradient(self, gradient: Floats) -> Floats:
        """Gradient with respect to what `read` returns from the symmetric G with d objective = sum of tr(G d inner)."""

    @abstractmethod
    def improve(self, state: Floats, scatter: Floats, counts: Floats, prior: InverseWishart) -> None:
        """Maximise the expected log joint of residuals with these sums, in place."""

    @abstractmethod
    def to_vector(self, state: Floats, origin: Floats) -> Floats:
        """Coordinates of the names; LinAlgError where a covariance has become singular."""

    @abstractmethod
    def from_vector(self, vector: Floats, state: Floats) -> Floats:
        """Move the state of the origin to these coordinates, in place; returns what is left of the vector."""

    @abstractmethod
    def pull_back(self, gradient: Floats, state: Floats, origin: Floats) -> Floats:
        """Gradient in the coordinates, from G as in `gradient`."""


class ClosedForm(NoiseGroup):
    """Names whose residuals reduce to those of a constant covariance."""

    block: Block
    rows: Ints  # all rows that the names stand in
    plain: int | None = None  # a kind of row in which the block stands as it is; None where there is none

    @abstractmethod
    def sums(self, scatter: Floats, counts: Floats) -> tuple[Floats, Floats]:
        """Sum of the outer products and numbers of the residuals of the block."""

    @abstractmethod
    def directions(self, found: Floats, size: int) -> Floats:
        """Directions (size, k) of all disturbances that directions of the block stand for."""

    def improve(self, state: Floats, scatter: Floats, counts: Floats, prior: InverseWishart) -> None:
        """M-step of the block."""
        total, many = self.sums(scatter, counts)
        if prior != FLAT:
            total = total + prior.matrix(scatter.shape[-1])[np.ix_(self.rows, self.rows)]
            many = many + prior.weight(scatter.shape[-1])
        self.write(state, self.block.mode(total, many, self.read(state)))

    def to_vector(self, state: Floats, origin: Floats) -> Floats:
        """Coordinates of the block."""
        return self.block.to_vector(self.read(state), self.read(origin))

    def from_vector(self, vector: Floats, state: Floats) -> Floats:
        """Block at its coordinates."""
        found, left = self.block.from_vector(vector, self.read(state))
        self.write(state, found)
        return left

    def pull_back(self, gradient: Floats, state: Floats, origin: Floats) -> Floats:
        """Gradient in the coordinates of the block."""
        return self.block.pull_back(self.gradient(gradient), self.read(state), self.read(origin))


@dataclass(frozen=True, eq=False)
class _Constant(ClosedForm):
    """Rows of a covariance that is the same in every row."""

    block: Block
    rows: Ints

    @cached_property
    def _square(self) -> tuple[Ints, Ints]:
        return self.rows[:, None], self.rows

    def read(self, state: Floats) -> Floats:
        return np.asarray(state[self._square])

    def write(self, state: Floats, found: Floats) -> None:
        state[self._square] = found

    def gradient(self, gradient: Floats) -> Floats:
        return np.asarray(gradient[self._square])

    def sums(self, scatter: Floats, counts: Floats) -> tuple[Floats, Floats]:
        return scatter[self._square], counts[self.rows]

    def directions(self, found: Floats, size: int) -> Floats:
        return _spread(found, self.rows, size)


@dataclass(frozen=True, eq=False)
class _Multiples(ClosedForm):
    """Rows of a covariance that is a multiple of a block in each kind of row."""

    block: Block
    values: Ints  # positions in the names of the pattern
    place: Place
    factors: Floats  # (k,)

    @property
    def rows(self) -> Ints:  # type: ignore[override]
        """Rows of the block."""
        return self.place.rows

    @property
    def plain(self) -> int | None:  # type: ignore[override]
        return int(self.place.kinds[0]) if (self.factors == 1.0).all() else None

    def read(self, state: Floats) -> Floats:
        return self.block.pattern.build(state[self.values])

    def write(self, state: Floats, found: Floats) -> None:
        state[self.values] = self.block.pattern.read(found)

    def gradient(self, gradient: Floats) -> Floats:
        return np.asarray(np.einsum("k,kab->ab", self.factors, self.place.cut(gradient)))

    def sums(self, scatter: Floats, counts: Floats) -> tuple[Floats, Floats]:
        total = np.einsum("k,kab->ab", 1.0 / self.factors, self.place.cut(scatter))
        return total, self.place.counts(counts).sum(0)

    def directions(self, found: Floats, size: int) -> Floats:
        return _spread(found, self.rows, size)


@dataclass(frozen=True, eq=False)
class _Whitened(ClosedForm):
    """One name times a known matrix in each kind of row and each of several places."""

    block: Block
    values: Ints  # (1,), position in the names of the pattern
    places: list[Place]

    @cached_property
    def rows(self) -> Ints:  # type: ignore[override]
        """All rows that the name stands in."""
        return np.unique(np.concatenate([place.rows for place in self.places]))

    @cached_property
    def _left(self) -> list[Floats]:
        """Inverses (k, r, r) of the known matrices on their range."""
        return [np.linalg.pinv(place.family.design[0], rcond=1e-12, hermitian=True) for place in self.places]

    @cached_property
    def _shares(self) -> list[Floats]:
        """Share (k, r) of each row in the rank of a known matrix."""
        return [np.einsum("kab,kba->ka", left, p.family.design[0]) for left, p in zip(self._left, self.places)]

    def read(self, state: Floats) -> Floats:
        return state[self.values][:, None]

    def write(self, state: Floats, found: Floats) -> None:
        state[self.values] = found[0]

    def gradient(self, gradient: Floats) -> Floats:
        return np.array([[sum(float(np.sum(p.family.design[0] * p.cut(gradient))) for p in self.places)]])

    def sums(self, scatter: Floats, counts: Floats) -> tuple[Floats, Floats]:
        total = sum(float(np.sum(left * place.cut(scatter))) for place, left in zip(self.places, self._left))
        many = sum(float(np.sum(share * place.counts(counts))) for place, share in zip(self.places, self._shares))
        return np.array([[total]]), np.array([many])

    def directions(self, found: Floats, size: int) -> Floats:
        """All of its rows: they vanish together."""
        return np.eye(size)[:, self.rows if found.size else self.rows[:0]]


@dataclass(frozen=True, eq=False)
class FisherScored(NoiseGroup):
    """Names in any other linear family."""

    values: Ints  # positions in the names of the pattern
    places: list[Place]

    @cached_property
    def _families(self) -> list[Family]:
        return [place.family for place in self.places]

    def read(self, state: Floats) -> Floats:
        """Return the values."""
        return np.asarray(state[self.values])

    def write(self, state: Floats, found: Floats) -> None:
        """Put values in place."""
        state[self.values] = found

    def gradient(self, gradient: Floats) -> Floats:
        """Slopes along the values."""
        slopes = (np.einsum("jkab,kab->j", place.family.design, place.cut(gradient)) for place in self.places)
        return np.asarray(sum(slopes))

    def improve(self, state: Floats, scatter: Floats, counts: Floats, prior: InverseWishart) -> None:
        """Fisher scoring; the prior is flat."""
        sums = [Sums(place.cut(scatter), place.counts(counts)) for place in self.places]
        self.write(state, scored([self.read(state)], self._families, sums))

    def units(self, state: Floats) -> Floats:
        """Change of each value that makes about the mean variance."""
        mean = [np.diagonal(each.build(self.read(state)), axis1=1, axis2=2).mean(1) for each in self._families]
        variance, found = np.concatenate(mean), np.zeros(len(self.values))
        for j in range(len(found)):
            factor = np.concatenate([np.abs(family.design[j]).max((1, 2)) for family in self._families])
            found[j] = variance[factor > 0.0].mean() / factor[factor > 0.0].mean()
        return found

    def to_vector(self, state: Floats, origin: Floats) -> Floats:
        """Changes of the values in units."""
        self._check(state)
        return np.asarray((self.read(state) - self.read(origin)) / self.units(origin))

    def from_vector(self, vector: Floats, state: Floats) -> Floats:
        """Values at their coordinates."""
        size = len(self.values)
        self.write(state, self.read(state) + self.units(state) * vector[:size])
        self._check(state)
        return vector[size:]

    def _check(self, state: Floats) -> None:
        for family in self._families:
            np.linalg.cholesky(family.build(self.read(state)))

    def pull_back(self, gradient: Floats, state: Floats, origin: Floats) -> Floats:
        """Slopes along the values in units."""
        return np.asarray(self.units(origin) * self.gradient(gradient))


def _spread(found: Floats, rows: Ints, size: int) -> Floats:
    """Directions (size, k) of all rows from those (r, k) of some."""
    whole = np.zeros((size, found.shape[1]))
    whole[rows] = found
    return whole


def groups(pattern: Pattern | RowPattern, parts: list[Ints]) -> list[NoiseGroup]:
    """Groups of a covariance, ``parts`` being its rows that nothing links to others."""
    if not pattern.names:
        return []
    design = pattern.dense(0, len(pattern.numbers) if isinstance(pattern, RowPattern) else 1)
    present = np.array([(design[:, :, part][:, :, :, part] != 0.0).any((2, 3)) for part in parts])
    together = np.einsum("cik,cjk->ij", present.astype(float), present.astype(float)) > 0.0
    found: list[NoiseGroup] = []
    for values in components(together):
        own = np.asarray(present[:, values].any(1))  # (parts, kinds)
        if isinstance(pattern, Pattern):
            rows = np.concatenate([part for part, there in zip(parts, own[:, 0]) if there])
            square = rows[:, None], rows
            base = Pattern(_named(pattern, values), pattern.constant[square], pattern.design[values][:, *square])
            found.append(_Constant(Block(base), rows))
            continue
        places = []
        for part, there in zip(parts, own):
            kinds = np.flatnonzero(there)
            where = kinds[:, None, None], part[:, None], part
            if len(kinds):
                places.append(Place(part, kinds, Family(pattern.numbers[where], design[values][:, *where])))
        found += _of_rows(_named(pattern, values), values, places)
    return found


def _named(pattern: Pattern | RowPattern, values: Ints) -> tuple[str, ...]:
    return tuple(pattern.names[j] for j in values)


def _of_rows(names: tuple[str, ...], values: Ints, places: list[Place]) -> list[NoiseGroup]:
    """Groups of names that stand together in these places of a covariance of rows."""
    if any(place.family.numbers.any() for place in places):
        return [FisherScored(values, places)]
    factors = _multiples(places[0].family.design) if len(places) == 1 else None
    if factors is not None and (factors > 0.0).all():
        numbers, design = places[0].family
        base = Pattern(names, np.zeros(design.shape[2:]), design[:, 0])
        found: list[NoiseGroup] = []
        for group in groups(base, components(base.linked)):  # other kinds of rows may link what is apart in these
            assert isinstance(group, ClosedForm)
            own = np.array([names.index(name) for name in group.block.pattern.names])
            square = group.rows[:, None], group.rows
            family = Family(numbers[:, *square], design[own][:, :, *square])
            place = Place(places[0].rows[group.rows], places[0].kinds, family)
            found.append(_Multiples(group.block, values[own], place, factors))
        return found
    if len(values) == 1 and all(_is_semidefinite(place.family.design[0]) for place in places):
        return [_Whitened(Block(Pattern(names, np.zeros((1, 1)), np.ones((1, 1, 1)))), values, places)]
    return [FisherScored(values, places)]


def _multiples(design: Floats) -> Floats | None:
    """Factors (k,) of a design (names, k, r, r) in units of its first kind; None where kinds are no multiples."""
    flat = np.moveaxis(design, 1, 0).reshape(design.shape[1], -1)
    largest = int(np.abs(flat[0]).argmax())
    factors = flat[:, largest] / flat[0, largest]
    off = np.abs(flat - factors[:, None] * flat[0])
    return factors if (off <= SAME * np.abs(flat).max(1, keepdims=True)).all() else None


def _is_semidefinite(matrices: Floats) -> bool:
    least = np.linalg.eigvalsh(matrices)[:, 0]
    return bool((least > -1e-10 * np.abs(matrices).max((1, 2))).all())
