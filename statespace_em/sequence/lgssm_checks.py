"""Structures of linear-Gaussian models that contradict themselves are refused."""

from __future__ import annotations

import numpy as np

from statespace_em._typing import Bools
from statespace_em.errors import ParameterError
from statespace_em.labels import listed, show
from statespace_em.patterns import Pattern, components
from statespace_em.row_patterns import RowPattern, is_indefinite
from statespace_em.sequence.lgssm_row_checks import check_same_rows, check_side_of_rows
from statespace_em.sequence.lgssm_specification import DIMS, Specification

SIDES = (
    (("transition", "state_offset", "state_input"), "process_cov", "state"),
    (("observation", "observation_offset", "observation_input"), "measurement_cov", "feature"),
)
ALIKE = 1e-14  # least eigenvalue of the overlaps of names, in units of their sizes: round-off


def check(spec: Specification) -> None:
    """Refuse structures that contradict themselves.

    Raises
    ------
    ParameterError
        Naming the parameter and the remedy.
    """
    owner: dict[str, str] = {}
    for name, words in spec.own_names.items():
        for word in words:
            if word in owner:
                raise ParameterError(
                    f"the name {word!r} stands in {owner[word]} and in {name}: values are tied within one matrix only, "
                    "use two names."
                )
            owner[word] = name
    check_same_rows(spec)
    for name, own in spec.patterns.items():
        _check_told_apart(own, name)
    for coefficients, cov, kind in SIDES:
        pattern = spec.patterns.get(cov)
        if isinstance(pattern, RowPattern) or any(isinstance(spec.patterns.get(n), RowPattern) for n in coefficients):
            check_side_of_rows(spec, coefficients, cov, kind)
        if pattern is None:
            continue
        loading = spec.loadings.get(cov)
        if loading is not None and loading.ndim == 3:  # checked by row
            continue
        silent = np.asarray(~pattern.linked.any(1))
        if loading is not None:
            silent = ~(loading[:, ~silent] != 0.0).any(1)
        labels = spec.names if kind == "state" else list(range(len(silent)))
        for name in coefficients:
            free = _free_rows(spec, name, silent)
            if free.any():
                row = int(np.argmax(free))
                raise ParameterError(
                    f"{name} has a free entry in the row of {kind} {show(labels[row])}, which has no noise in {cov}: "
                    "fix the entry, or give the row a variance."
                )
        if isinstance(pattern, Pattern):
            _check_possible(pattern, cov)


def _check_told_apart(pattern: Pattern | RowPattern, name: str) -> None:
    """Refuse names of which only a sum matters, and those that no entry depends on."""
    if pattern.is_plain or pattern.products or not pattern.names:
        return
    overlaps = pattern.overlaps if isinstance(pattern, RowPattern) else pattern.flat @ pattern.flat.T
    size = np.sqrt(np.diag(overlaps))
    if not size.all():
        word = pattern.names[int(np.argmin(size))]
        raise ParameterError(f"{name} has the name {word!r} with factors of 0 only, which tells nothing: leave it out.")
    values, vectors = np.linalg.eigh(overlaps / np.outer(size, size))
    if values[0] <= ALIKE:
        words = [word for word, share in zip(pattern.names, vectors[:, 0]) if abs(share) > 1e-6]
        panel = ", or, if they are sequences, put them under one name, {'r': {'a': ..., 'b': ...}}, numbers under 1"
        raise ParameterError(
            f"{name} has the names {listed(words)}, of which only a sum matters: their values cannot be told apart. "
            f"Use a name less, or fix one by a number{panel}."
        )


def _free_rows(spec: Specification, name: str, silent: Bools) -> Bools:
    if name in spec.varying or name in spec.absent or name not in DIMS:
        return np.zeros(len(silent), bool)
    pattern = spec.patterns.get(name)
    if pattern is None:
        return silent
    return np.asarray(silent & pattern.touched.reshape(len(silent), -1).any(1))


def _check_possible(pattern: Pattern, name: str) -> None:
    """Refuse covariances whose fixed diagonal is negative, or that link an entry without variance."""
    diagonal = np.diag(pattern.constant)
    weights = np.diagonal(pattern.design, axis1=1, axis2=2)
    for number, word in enumerate(pattern.names):
        signs = weights[number][(diagonal <= 0.0) & ((weights != 0.0).sum(0) == 1)]  # of variances that it alone makes
        if (signs > 0.0).any() and (signs < 0.0).any():
            raise ParameterError(
                f"{name} has {word!r} and its negative as variances: one of them cannot be positive, use two names."
            )
    alone = ~np.diag(pattern.touched)
    if (alone & (diagonal < 0.0)).any():
        row = int(np.argmax(alone & (diagonal < 0.0)))
        raise ParameterError(f"{name} has the variance {diagonal[row]:g} at ({row}, {row}), expected at least 0.")
    scales = (weights != 0.0).any(1) & ((pattern.design != 0.0).sum((1, 2)) > (weights != 0.0).sum(1))
    for block in components(pattern.linked) if scales.any() else ():
        own = pattern.design[:, block][:, :, block]
        names = np.flatnonzero(own.any((1, 2)))
        if len(names) == 1 and not pattern.constant[np.ix_(block, block)].any() and is_indefinite(own[names[0]]):
            raise ParameterError(
                f"{name} is a multiple of {pattern.names[names[0]]!r} in the rows {listed(block.tolist())}, of a "
                "matrix that is not positive semi-definite: no value of it is a covariance."
            )
    empty = alone & (diagonal == 0.0)
    linked = pattern.linked.any(1)
    if (empty & linked).any():
        row = int(np.argmax(empty & linked))
        raise ParameterError(
            f"{name} has a covariance in row {row}, whose variance is fixed at 0: free the variance, or drop it."
        )
