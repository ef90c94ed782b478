"""Matrices written for every row that contradict themselves, or what else the model says, are refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from statespace_em._typing import Bools, Floats
from statespace_em.errors import ParameterError
from statespace_em.labels import listed, show
from statespace_em.patterns import Pattern
from statespace_em.priors import InverseWishart, MatrixNormal
from statespace_em.row_patterns import RowPattern
from statespace_em.segments import Segments, row_of
from statespace_em.sequence.lgssm_loading import loaded, unloaded
from statespace_em.sequence.lgssm_noise import Noise
from statespace_em.sequence.lgssm_specification import Specification

SIDES = (
    ("process", ("transition", "state_offset", "state_input")),
    ("measurement", ("observation", "observation_offset", "observation_input")),
)


def check_same_rows(spec: Specification) -> None:
    """Refuse matrices that are given for different numbers of rows."""
    lengths = spec.by_row
    if len(set(lengths.values())) > 1:
        (one, few), *_, (other, many) = sorted(lengths.items(), key=lambda item: item[1])
        raise ParameterError(
            f"{one} is given for {few} rows, {other} for {many}: give what varies for the same rows, those of y and of "
            "the future that is asked for."
        )


def check_side_of_rows(spec: Specification, coefficients: Sequence[str], cov: str, kind: str) -> None:
    """Refuse names where there is no noise, and covariances that cannot be."""
    n_rows = max(spec.by_row.values())
    pattern = spec.patterns.get(cov)
    if isinstance(pattern, RowPattern):
        _check_variances(pattern, cov, spec.segments)
    silent = _silent(spec, cov, n_rows)
    if silent is None or not silent.any():
        return
    labels = spec.names if kind == "state" else list(range(silent.shape[1]))
    for name in coefficients:
        free = _free(spec, name, silent) & silent
        if free.any():
            row, entry = (int(i) for i in np.argwhere(free)[0])
            raise ParameterError(
                f"{name} has a free entry for {kind} {show(labels[entry])} in {row_of(row, spec.segments)}, where "
                f"{cov} has no noise: fix the entry there, or give the row a variance."
            )


def _silent(spec: Specification, cov: str, n_rows: int) -> Bools | None:
    """Which states or features (T, p) have no noise in which rows; None where all have, or nobody knows yet."""
    pattern, loading = spec.patterns.get(cov), spec.loadings.get(cov)
    if isinstance(pattern, RowPattern):
        noisy = (pattern.numbers != 0.0).any(2)
        for place, factor in zip(pattern.place, pattern.factors):
            noisy[:, place // pattern.shape[0]] |= factor != 0.0
        if loading is None and noisy.all():
            return None
        noisy = noisy[pattern.kind]
    elif pattern is not None:
        noisy = np.broadcast_to(pattern.linked.any(1), (n_rows, len(pattern.constant)))
    elif cov in spec.varying:
        noisy = (spec.varying[cov] != 0.0).any(2)
    else:
        return None
    if loading is None:
        return np.asarray(~noisy)
    links = np.broadcast_to(loading != 0.0, (n_rows, *loading.shape[-2:]))
    return np.asarray(~(links & noisy[:, None, :]).any(2))


def _free(spec: Specification, name: str, silent: Bools) -> Bools:
    """Which states or features (T, p) have a free coefficient in which rows."""
    pattern = spec.patterns.get(name)
    if name in spec.varying or name in spec.absent:
        return np.zeros(silent.shape, bool)
    if pattern is None:
        return np.ones(silent.shape, bool)
    if isinstance(pattern, Pattern):
        return np.broadcast_to(pattern.touched.reshape(silent.shape[1], -1).any(1), silent.shape)
    width = 1 if len(pattern.shape) == 1 else pattern.shape[1]
    free = np.zeros((len(pattern.numbers), pattern.shape[0]), bool)
    for place, factor in zip(pattern.place, pattern.factors):
        free[:, place // width] |= factor != 0.0
    return np.asarray(free[pattern.kind])


def _check_variances(pattern: RowPattern, name: str, segments: Segments | None) -> None:
    """Refuse variances with negative factors or numbers, and covariances of what has no variance."""
    size = pattern.shape[0]

    def row(kind: int) -> str:
        return row_of(int(pattern.first[kind]), segments)

    if pattern.indefinite is not None:
        raise ParameterError(
            f"the matrix that {pattern.names[0]!r} scales in {name} is not positive semi-definite in "
            f"{row(pattern.indefinite)}: no value of it is a covariance there."
        )
    for i in range(size):
        own = np.flatnonzero(pattern.place == i * size + i)
        factors, numbers = pattern.factors[own], pattern.numbers[:, i, i]
        alone = ((factors != 0.0).sum(0) == 1) & (numbers <= 0.0)
        wrong = alone & (factors.sum(0) < 0.0) if len(own) else np.zeros(len(numbers), bool)
        if wrong.any():
            kind = int(np.argmax(wrong))
            word = pattern.names[pattern.owner[own[int(np.argmax(factors[:, kind] != 0.0))]]]
            raise ParameterError(
                f"{name} has {factors[:, kind].sum():g} times {word!r} as the variance at ({i}, {i}) in "
                f"{row(kind)}: a factor of a variance is at least 0."
            )
        fixed = ~(factors != 0.0).any(0)
        if (fixed & (numbers < 0.0)).any():
            kind = int(np.argmax(fixed & (numbers < 0.0)))
            raise ParameterError(
                f"{name} has the variance {numbers[kind]:g} at ({i}, {i}) in {row(kind)}, expected at least 0."
            )
        linked = (pattern.numbers[:, i] != 0.0).any(1)
        for e in np.flatnonzero(pattern.place // size == i):
            linked |= pattern.factors[e] != 0.0
        empty = fixed & (numbers == 0.0) & linked
        if empty.any():
            raise ParameterError(
                f"{name} has a covariance at ({i}, ...) in {row(int(np.argmax(empty)))}, where the "
                "variance is 0: give it a variance there, or drop the covariance."
            )


def check_with_rows(
    spec: Specification, noises: Sequence[InverseWishart], coefficients: Sequence[MatrixNormal], *, tied: bool
) -> None:
    """Refuse priors on what is another matrix in every row, and starts that follow from dynamics which are.

    Raises
    ------
    ParameterError
        Naming the parameter and the remedy.
    """
    if not spec.by_row:
        return
    for (side, names), noise, prior in zip(SIDES, noises, coefficients):
        cov = f"{side}_cov"
        own = [name for name in (*names, cov) if isinstance(spec.patterns.get(name), RowPattern)]
        pattern = spec.patterns.get(cov)
        if isinstance(pattern, RowPattern) and noise != InverseWishart() and not Noise(pattern).takes_priors:
            raise ParameterError(
                f"{side}_prior is a prior on a {cov} as it stands in rows, but {cov} has names with factors or numbers "
                "beside them: leave the prior out, or the factors, as in breaks, [[np.where(late, 'after', 'before')]]."
            )
        if own and not prior.is_flat:
            matrix = names[0]
            raise ParameterError(
                f"{matrix}_prior is a prior on one {matrix}, but {own[0]} has names for every row "
                f"({listed(spec.patterns[own[0]].names)}): leave the prior out, or write {own[0]} for all rows alike."
            )
    moving = [name for name in ("transition", "state_offset", "process_cov") if name in spec.by_row]
    if spec.starts_as("stationary").any() and spec.segments is not None:
        for name in moving:
            _check_first_rows(spec, name, spec.segments)
    if tied and "process_cov" in moving:
        raise ParameterError(
            "initial_cov is tied to process_cov, which is given for every row: use "
            'initial="diffuse", "fixed" or "known", or give initial_cov in start=.'
        )


def _check_first_rows(spec: Specification, name: str, segments: Segments) -> None:
    """Refuse sequences of one stationary start whose first rows settle to different distributions."""
    pattern = spec.patterns.get(name)
    if isinstance(pattern, RowPattern):
        alike = np.ptp(pattern.kind[segments.begins]) == 0
    else:
        alike = not np.ptp(spec.varying[name][segments.begins], axis=0).any()
    if not alike:
        raise ParameterError(
            f"initial is 'stationary', but {name} is not the same in the first rows of the sequences "
            f"{listed(segments.keys)}, which then settle to different distributions: make it so, or use "
            'initial="diffuse", "fixed" or "known".'
        )


def values_of_rows(pattern: RowPattern, value: Floats, loading: Floats | None) -> Floats:
    """Parameter for all rows of a pattern, from one found on the first of them.

    Raises
    ------
    ParameterError
        If those rows say nothing of a name.
    """
    if len(value) >= pattern.n_rows:
        return value
    lost = pattern.unseen(slice(len(value)))
    if lost:
        raise ParameterError(
            f"the parameters are for {len(value)} rows, in which {lost[0]!r} has no factor: its value is not known."
        )
    return loaded(pattern.build(pattern.read(unloaded(value, loading))), loading)


def going_on(known: Mapping[str, Floats], arrays: Mapping[str, Floats]) -> dict[str, Floats]:
    """What is ``known`` for every row, where parameters found on fewer rows have only the beginning of it."""
    there = {name: own for name, own in known.items() if name in arrays}
    return {
        name: own
        for name, own in there.items()
        if len(arrays[name]) < len(own) and np.array_equal(arrays[name], own[: len(arrays[name])])
    }
