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
from statespace_em.sequence.lgssm_specification import DIMS, Specification, parse_loading, parse_matrix
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
        loads = {name: given.pop(word) for name, word in self._loads.items() if word in given}
        lost = [name for name in loads if name not in given]
        if lost:
            raise ParameterError(
                f"matrices= has {self._loads[lost[0]]!r} without {lost[0]!r} of the disturbances: add it."
            )
        for name in given:
            if name not in self.names:
                told = f"those of {listed(self.names)}" if self.names else "none"
                raise ParameterError(f"matrices= has {name!r}, expected {told}: others are the same at every row.")
        if regressors is not None:
            if not self.spec.regressors:
                raise ParameterError("regressors= was given, but the model has no regression.")
            given["observation"] = self._view(regressors, where)
        return {
            name: self._read(name, given[name], loads.get(name)) if name in given else self._own(name, number)
            for name in self.names
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

    @property
    def _loads(self) -> dict[str, str]:
        """What the loading of each covariance is called, where it is another in every row."""
        return {n: n.replace("cov", "loading") for n, own in self.spec.loadings.items() if own.ndim == 3}

    def _read(self, name: str, value: Any, load: Any) -> Floats:
        """Matrix of numbers, and of the names that the model has there; ``load`` is its loading in this row."""
        own = getattr(self.params, name).shape[1:]
        pattern, loading = self.spec.patterns.get(name), self.spec.loadings.get(name)
        plain = load is None and name in self._loads  # comes multiplied out
        if load is not None:
            loading = parse_loading(self._loads[name], load, own[0])
            if loading.ndim != 2:
                raise ParameterError(f"{self._loads[name]} in matrices= has {loading.ndim} axes, expected one row's.")
        named = isinstance(pattern, RowPattern) and not plain
        size = own if plain or loading is None else (loading.shape[-1],) * 2
        found = parse_matrix(name, value, size if named else own)
        if not isinstance(found, Pattern):
            raise ParameterError(f"{name} in matrices= is {value!r}, expected the matrix {DIMS[name]} of one row.")
        values = self.spec.free_values(name, getattr(self.params, name)) if named else {}
        lost = [word for word in found.names if word not in values]
        if lost:
            told = (
                listed(list(values)) if named else "names with the loading of the row beside them" if plain else "none"
            )
            raise ParameterError(f"{name} in matrices= has {lost[0]!r}, expected numbers or {told}.")
        matrix = found.build(np.array([values[word] for word in found.names]))
        if name in COVARIANCES:
            _validate.covariance(name, matrix, (), semi=True)
        return matrix if plain or loading is None else np.asarray(loading @ matrix @ loading.T)

    def over(self, rows: Mapping[str, Floats]) -> LGSSMParams:
        """Parameters with these matrices (rows, ...) in place of their own."""
        return self.params._replace(**rows)
