"""The settings of a model: read, changed, written as code, saved with the fit."""

from __future__ import annotations

import inspect
import os
from abc import ABC
from typing import Any, Self

import numpy as np
import pandas as pd
import xarray as xr

from statespace_em import _validate, storage
from statespace_em.errors import FileFormatError, NotFittedError
from statespace_em.lazy import LazyAttribute, settled


class Settings(ABC):
    """Constructor arguments, stored as they are: what scikit-learn's tools expect of an estimator."""

    params_ = LazyAttribute[xr.Dataset]()
    trace_ = LazyAttribute[pd.DataFrame]()
    starts_ = LazyAttribute[pd.DataFrame]()
    status_: str
    converged_: bool
    n_parameters_ = LazyAttribute[int]()
    fitted_to_: str

    def __getstate__(self) -> dict[str, Any]:
        """Everything, for copies on disk and elsewhere."""
        return settled(self)

    def _known(self, params: xr.Dataset | None, *, needed: bool = True) -> Any:
        """Parameters given, or those of the fit, or those that the settings tell."""
        if params is None:
            params = getattr(self, "params_", None)
        if params is None:
            params = self._fixed_parameters()
        if params is None and needed:
            raise NotFittedError(
                f"this {type(self).__name__} has no parameters yet: call fit(y) first, or pass "
                "params=model.parameters(...)."
            )
        return params

    def _fixed_parameters(self) -> xr.Dataset | None:
        """Parameters of a model whose settings leave nothing free; None of others."""
        return None

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Constructor arguments by name."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self, **settings: Any) -> Self:
        """Change constructor arguments by name."""
        for name, value in settings.items():
            _validate.one_of("setting", name, self.get_params())
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        """Return the call that makes this model."""
        defaults = {n: p.default for n, p in inspect.signature(type(self)).parameters.items()}
        settings = self.get_params().items()
        words = [f"{name}={value!r}" for name, value in settings if not _same(value, defaults[name])]
        return f"{type(self).__name__}({', '.join(words)})"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write settings and fitted parameters to NetCDF."""
        fit = {name: getattr(self, f"{name}_", None) for name in ("status", "n_parameters", "fitted_to")}
        fit["trace"] = None
        if hasattr(self, "trace_"):
            fit["trace"] = {"iteration": self.trace_.index.tolist(), **self.trace_.to_dict("list")}
        storage.save_model(path, type(self).__name__, self.get_params(), self._known(None), fit)

    @classmethod
    def load(cls, path: str | os.PathLike[str], **settings: Any) -> Self:
        """Read a model written by `save`; no code in the file is run.

        Parameters
        ----------
        path
            The file.
        settings
            Constructor arguments to use in place of the saved ones, such as a family of your own.

        Raises
        ------
        FileFormatError
            If the file is not a saved model, of another model, or of a newer version.
        """
        kind, saved, params, fit = storage.load_model(path)
        if kind != cls.__name__:
            raise FileFormatError(f"{str(path)!r} holds a {kind}: read it with {storage.reader(kind)}.")
        model = cls(
            **{name: storage.from_json(value) for name, value in saved.items() if name not in settings},
            **settings,
        )
        model.params_ = params
        if fit["trace"] is not None:
            model.trace_ = pd.DataFrame(fit["trace"]).set_index("iteration")
        if fit["status"] is not None:
            model.status_, model.converged_ = fit["status"], fit["status"] == "converged"
        if fit.get("n_parameters") is not None:  # files of the first version do not have it
            model.n_parameters_, model.fitted_to_ = fit["n_parameters"], fit["fitted_to"]
        return model


def _same(value: Any, default: Any) -> bool:
    return value is default or (type(value) is type(default) and bool(np.all(value == default)))
