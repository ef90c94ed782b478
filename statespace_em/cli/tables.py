"""What is printed, and the tables that are written."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

import statespace_em as sse
from statespace_em.labels import show
from statespace_em.model import LatentModel
from statespace_em.sequence.hidden_markov import HiddenMarkovModel
from statespace_em.sequence.state_space import StateSpaceModel


def decoded_table(model: LatentModel, y: pd.DataFrame, posterior: xr.Dataset) -> pd.DataFrame:
    """One row a row of y: states, and what is known of them with hindsight and at the time."""
    rows = _Rows(posterior)
    names = posterior["state"].values
    columns: dict[str, Any] = {}
    if isinstance(model, HiddenMarkovModel):
        columns["state"] = rows.flat(model.decode(y))
        known = model.filter(y)
        for words, variable in (("all data", posterior["gamma"]), ("data so far", known["filtered"])):
            columns |= {f"p({name} | {words})": rows.flat(variable.sel(state=name)) for name in names}
    elif isinstance(model, StateSpaceModel):
        known = model.filter(y)
        for words, mean, cov in (
            ("all data", posterior["gamma"], posterior["cov"]),
            ("data so far", known["filtered"], known["filtered_cov"]),
        ):
            for name in names:
                columns[f"mean({name} | {words})"] = rows.flat(mean.sel(state=name))
                variance = rows.flat(cov.sel(state=name, state_aux=name))
                columns[f"sd({name} | {words})"] = np.sqrt(np.maximum(variance, 0.0))
    else:
        gamma = posterior["gamma"]
        columns["state"] = names[np.argmax([rows.flat(gamma.sel(state=name)) for name in names], axis=0)]
        columns |= {f"p({name} | row)": rows.flat(gamma.sel(state=name)) for name in names}
    return pd.DataFrame({**rows.labels(y), **columns})


class _Rows:
    """Rows of all sequences end to end, without padding."""

    def __init__(self, posterior: xr.Dataset) -> None:
        gamma = posterior["gamma"]
        self.dims = [dim for dim in gamma.dims if dim != "state"]
        if "length" in posterior.coords:
            self.inside: Any = np.arange(gamma.sizes[self.dims[1]]) < posterior["length"].values[:, None]
        else:
            self.inside = np.ones([gamma.sizes[dim] for dim in self.dims], bool)

    def flat(self, variable: xr.DataArray) -> Any:
        """Values of all rows (N,)."""
        return variable.transpose(*self.dims).values[self.inside]

    def labels(self, y: pd.DataFrame) -> dict[str, Any]:
        """Columns that say which row is meant; the rows of a panel stand sequence by sequence."""
        index = y.index
        levels = [index.get_level_values(i) for i in range(index.nlevels)]
        return {str(dim): level for dim, level in zip(self.dims, levels)}


def headline(model: LatentModel, y: pd.DataFrame) -> str:
    """Say which model was fitted to what."""
    n_states = model.params_.sizes["state"]
    what = ", ".join(str(name) for name in y.columns)
    text = f"{type(model).__name__}, {n_states} state{'s' * (n_states != 1)}; {what}: {len(y)} rows"
    index = y.index
    if isinstance(index, pd.MultiIndex):
        return f"{text} in {len(index.unique(0))} sequences ({index.names[0]})"
    return text if index.name is None else f"{text}, {index.name} {show(index[0])} to {show(index[-1])}"


def ending(model: LatentModel, log_likelihood: float) -> str:
    """Say how the fit ended."""
    starts = model.starts_
    best = int(starts["objective"].to_numpy().argmax())
    text = f"log-likelihood {log_likelihood:.4f} nats; {model.status_} after {starts['iterations'].iloc[best]} E-steps"
    found = int(starts["found_by"].iloc[best])
    if len(starts) > 1 and found > 0:
        text += f"; found from {found} of {len(starts)} starts"
    return text


def summary(model: LatentModel) -> str:
    """Write the parameters for people: a row a state, or a name; matrices for a linear-Gaussian model of matrices."""
    if not isinstance(model, sse.LinearGaussianSSM):
        return _as_text(_without_blank_levels(model.summary()))
    parts = []
    for name, values in model.params_.data_vars.items():
        table = pd.DataFrame(np.atleast_2d(values.values), columns=values[values.dims[-1]].values)
        table.index = values[values.dims[0]].values if values.ndim == 2 else [""]
        what = " (row: the next state, column: the state now)" if name == "transition" else ""
        parts.append(f"{name}{what}\n{_as_text(table)}")
    return "\n\n".join(parts)


def _without_blank_levels(table: pd.DataFrame) -> pd.DataFrame:
    """Leave out the levels of rows and columns of matrices where every value has a name of its own."""
    index = table.index
    blank: Any = [i for i in range(1, index.nlevels) if not any(index.get_level_values(i).astype(str))]
    return table.droplevel(blank).rename_axis(None) if blank else table


def _as_text(table: pd.DataFrame) -> str:
    return table.to_string(float_format=lambda value: f"{value:.5g}")
