"""Matrices of the rows that a stream takes, where they are not the same at every row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from statespace_em import _validate
from statespace_em._typing import Floats
from statespace_em.errors import DataError, ParameterError
from statespace_em.inputs import one_row
from statespace_em.labels import listed
from statespace_em.patterns import Pattern
from statespace_em.row_patterns import RowPattern
from statespace_em.sequence.lgssm_params import ROWWISE, LGSSMParams, varies
from statespace_em.sequence.lgssm_specification import DIMS, Specification, written
from statespace_em.sequence.lgssm_structure import COVARIANCES


class RowMatrices:
    """What varies in the parameters of a model: as they have it row by row, or as it comes with a row."""

    def __init__(self, spec: Specification, params: LGSSMParams) -> None:
        self.spec, self.params = spec, params
        self.names = [name for name in ROWWISE if varies(params, name)]

    def at(self, number: int, where: str, matrices: Mapping[str, Any] | None, regressors: Any) -> dict[str, Floats]:
        """Matrices of one row by name; those that are not given are the parameters' own of this number.

        Raises
        ------
        ParameterError
            If what is given is not what varies in this model.
        DataError
            If the parameters have no row of this number, or a row does not fit.
        """
        given = {} if matrices is None else dict(matrices)
        for name in given:
            if name not in self.names:
                told = f"those of {listed(self.names)}" if self.names else "none"
                raise ParameterError(f"matrices= has {name!r}, expected {told}: others are the same at every row.")
        if regressors is not None:
            if not self.spec.regressors:
                raise ParameterError("regressors= was given, but the model has no regression.")
            given["observation"] = self._view(regressors, where)
        return {
            name: self._read(name, given[name]) if name in given else self._own(name, number) for name in self.names
        }

    def _view(self, regressors: Any, where: str) -> Floats:
        values = one_row(regressors, list(self.spec.regressors), where, "regressors")
        view = np.array(self.params.observation[0])
        view[0, list(self.spec.regressors.values())] = values
        return view

    def _own(self, name: str, number: int) -> Floats:
        value = getattr(self.params, name)
        how = "regressors=..." if name == "observation" and self.spec.regressors else f"matrices={{{name!r}: ...}}"
        if self.spec.segments is not None:
            raise DataError(
                f"{name} is given for each of the sequences {listed(self.spec.segments.keys)}, a stream is none of "
                f"them: give it with the row, update(row, {how})."
            )
        if number >= len(value):
            raise DataError(
                f"{name} is given for {len(value)} rows, but row {number + 1} comes: give it with the row, "
                f"update(row, {how})."
            )
        return np.asarray(value[number])

    def _read(self, name: str, value: Any) -> Floats:
        """Matrix of numbers, and of the names that the model has there."""
        own = getattr(self.params, name).shape[1:]
        pattern, loading = self.spec.patterns.get(name), self.spec.loadings.get(name)
        rows = loading is not None and loading.ndim == 3  # comes multiplied out
        inner = isinstance(pattern, RowPattern) and loading is not None and not rows
        found = written(name, value, pattern.shape if isinstance(pattern, RowPattern) and not rows else own)
        if not isinstance(found, Pattern):
            raise ParameterError(f"{name} in matrices= is {value!r}, expected the matrix {DIMS[name]} of one row.")
        values = (
            self.spec.free_values(name, getattr(self.params, name))
            if isinstance(pattern, RowPattern) and not rows
            else {}
        )
        lost = [word for word in found.names if word not in values]
        if lost:
            raise ParameterError(f"{name} in matrices= has {lost[0]!r}, expected numbers or {listed(list(values))}.")
        matrix = found.build(np.array([values[word] for word in found.names]))
        if name in COVARIANCES:
            _validate.covariance(name, matrix, (), semi=True)
        return np.asarray(loading @ matrix @ loading.T) if inner and loading is not None else matrix

    def over(self, rows: Mapping[str, Floats]) -> LGSSMParams:
        """Parameters with these matrices (rows, ...) in place of their own."""
        return self.params._replace(**rows)
