"""Models as the command line asks for them: built, fitted, loaded, counted."""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

import statespace_em as sse
from statespace_em import emissions, storage
from statespace_em.cli.arguments import ALIASES, UsageError
from statespace_em.data import as_batch
from statespace_em.errors import DataWarning, FileFormatError
from statespace_em.model import LatentModel

CLASSES: dict[str, type[LatentModel]] = {
    kind.__name__: kind
    for kind in (sse.HMM, sse.GaussianHMM, sse.PoissonHMM, sse.CategoricalHMM, sse.LinearGaussianSSM, sse.Mixture)
}
PLANES = ({"east", "north"}, {"x", "y"})
VELOCITY = "velocity of "  # how the names of such states begin
VAGUE = 1e4  # variance of the first state, in units of the variance of the data
QUIET = 0.1  # first guess of the disturbance, in units of the noise


class Plan(NamedTuple):
    """A model to fit, and where its fit starts."""

    model: LatentModel
    start: xr.Dataset | None = None
    freeze: tuple[str, ...] = ()


def kind_of(options: argparse.Namespace) -> str:
    """Word that chooses the default columns: the model, for models of symbols "categorical"."""
    kind = str(ALIASES.get(options.model, options.model))
    return "categorical" if kind == "categorical-hmm" or options.family == "categorical" else kind


def check_options(options: argparse.Namespace) -> None:
    """Refuse options that the model does not have."""
    model = ALIASES.get(options.model, options.model)
    if options.family is not None and model != "mixture":
        raise UsageError("--family is for mixture only: the others have theirs in the name.")
    if model == "mixture" and options.family is None:
        raise UsageError("a mixture needs --family gaussian, poisson or categorical.")
    if options.covariance is not None and model != "gaussian-hmm" and options.family != "gaussian":
        raise UsageError("--covariance is for gaussian-hmm and mixture --family gaussian only.")
    if options.order_by is not None and (model == "lgssm" or kind_of(options) == "categorical"):
        raise UsageError("--order-by is for states with numbers for means only.")
    if getattr(options, "design", None) is not None and model != "lgssm":
        raise UsageError("--design is for lgssm only.")


def plan(options: argparse.Namespace, y: pd.DataFrame) -> Plan:
    """Model that ``fit`` asks for."""
    names = None if options.names is None else [name.strip() for name in options.names.split(",")]
    if names is not None and options.states not in (None, len(names)):
        raise UsageError(f"--states {options.states}, but --names has {len(names)}: {', '.join(names)}.")
    if ALIASES.get(options.model, options.model) == "lgssm":
        design = options.design or _usual_design(options.states, y)
        if design != "free":
            return _designed(design, y, names, options.states)
    states = names or options.states
    if states is None:
        raise UsageError("give --states K, or --names such as calm,stress.")
    return Plan(build(options, states))


def build(options: argparse.Namespace, states: int | list[str]) -> LatentModel:
    """Model of a number of states, or of states with names; lgssm with everything free."""
    covariance: Any = options.covariance or "full"
    order: dict[str, Any] = (
        {} if options.order_by is None else {"order_by": None if options.order_by == "none" else options.order_by}
    )
    model = ALIASES.get(options.model, options.model)
    if model == "gaussian-hmm":
        return sse.GaussianHMM(states, covariance, **order)
    if model == "poisson-hmm":
        return sse.PoissonHMM(states, **order)
    if model == "categorical-hmm":
        return sse.CategoricalHMM(states)
    if model == "lgssm":
        return sse.LinearGaussianSSM(states)
    if options.family == "categorical":
        return sse.Mixture(states, emissions.Categorical())
    family: Any = emissions.Poisson() if options.family == "poisson" else emissions.Gaussian(covariance)
    return sse.Mixture(states, family, **({"order_by": "mean"} | order))


def fit_options(options: argparse.Namespace) -> dict[str, Any]:
    """Options of ``fit`` as the command line has them."""
    linear = ALIASES.get(options.model, options.model) == "lgssm"
    return {
        "n_starts": options.starts,
        "max_iter": options.max_iter,
        "tol": options.tol if options.tol is not None else 1e-5 if linear else 1e-8,
        "seed": options.seed,
        "progress": options.progress,
    }


def load(path: Path) -> LatentModel:
    """Saved model of whichever class; a folder stands for the model.nc in it."""
    path = path / "model.nc" if path.is_dir() else path
    kind = storage.load_model(path)[0]
    if kind not in CLASSES:
        raise FileFormatError(f"{str(path)!r} holds a {kind}, which the command line does not know.")
    return CLASSES[kind].load(path)


def _usual_design(states: int | None, y: pd.DataFrame) -> str:
    if {str(name).lower() for name in y.columns} in PLANES and states in (None, 4):
        return "velocity"
    return "level" if states is None else "free"


def _designed(design: str, y: pd.DataFrame, names: list[str] | None, states: int | None) -> Plan:
    """Random walks, or positions with velocities that are random walks, seen through noise; start vague."""
    columns = [str(name) for name in y.columns]
    derivatives = [f"{VELOCITY}{name}" for name in columns] if design == "velocity" else []
    own = [*columns, *derivatives]
    for given in (None if names is None else len(names), states):
        if given not in (None, len(own)):
            raise UsageError(f"the {design} design of {', '.join(columns)} has {len(own)} states, not {given}.")
    batch = as_batch(y, support="real")[0]
    size, step = len(columns), _time_step(y) if derivatives else 1.0
    noise, spread, moves, first = _scales(batch.y, batch.starts)
    transition, process = np.eye(len(own)), np.diag(np.tile(QUIET * noise, len(own) // size))
    vague = VAGUE * spread
    if derivatives:  # white noise acceleration: Bar-Shalom, Li & Kirubarajan (2001), section 6.2.2
        transition[:size, size:] = step * np.eye(size)
        unit = np.array([[1 / 3, 1 / (2 * step)], [1 / (2 * step), 1 / step**2]])
        process = np.kron(unit, np.diag(QUIET * noise))
        vague = np.concatenate([vague, VAGUE * moves / step**2])
    model = sse.LinearGaussianSSM(names or own, initial="known")
    start = model.parameters(
        transition=transition,
        process_cov=process,
        observation=xr.DataArray(
            np.eye(size, len(own)), {"feature": columns, "state": names or own}, ("feature", "state")
        ),
        measurement_cov=np.diag(noise),
        initial_mean=np.concatenate([first, np.zeros(len(derivatives))]),
        initial_cov=np.diag(vague),
    )
    return Plan(model, start, ("transition", "observation"))


def _scales(y: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, ...]:
    """Guessed variance of the noise (D,), variances of values and of steps, and the mean of the first values seen."""
    noise, spread, moves, first = (np.ones(y.shape[1]) for _ in range(4))
    for d, column in enumerate(y.T):
        parts = [part[~np.isnan(part)] for part in np.split(column, starts[1:-1])]
        seen = [part for part in parts if len(part)]
        bends = np.concatenate([np.zeros(0), *(np.diff(part, n=2) for part in seen)])
        steps = np.concatenate([np.zeros(0), *(np.diff(part) for part in seen)])
        values = np.concatenate([np.zeros(0), *seen])
        spread[d] = (values.var() if len(values) else 0.0) or 1.0
        moves[d] = ((steps**2).mean() if len(steps) else 0.0) or spread[d]
        typical = (np.median(np.abs(bends)) / 0.6745) ** 2 / 6 if len(bends) else 0.0  # robust; bends have 6 noises
        noise[d] = max(typical, 1e-3 * min(moves[d], spread[d]))
        first[d] = np.mean([part[0] for part in seen]) if seen else 0.0
    return noise, spread, moves, first


def _time_step(y: pd.DataFrame) -> float:
    """Time from row to row in units of the time column (dates: seconds); 1 where rows are not evenly spaced."""
    panel = isinstance(y.index, pd.MultiIndex)
    indices = [part.index.get_level_values(1) for _, part in y.groupby(level=0, sort=False)] if panel else [y.index]
    steps = [np.zeros(0)]
    for index in indices:
        if index.dtype.kind in "Mm" or isinstance(index, pd.DatetimeIndex):
            steps.append(np.diff(((index - index[0]) / pd.Timedelta("1s")).to_numpy(float)))
        elif index.dtype.kind in "iuf":
            steps.append(np.diff(index.to_numpy(float)))
        else:
            return 1.0
    every = np.concatenate(steps)
    if len(every) == 0 or not every.min() > 0.0:
        return 1.0  # the model complains about times that do not increase
    if np.ptp(every) > 1e-6 * every.mean():
        warnings.warn(
            f"the time from row to row varies from {every.min():g} to {every.max():g}: velocities are per row. "
            "Fill gaps with blank rows for velocities per unit of time.",
            DataWarning,
            stacklevel=2,
        )
        return 1.0
    return float(every.mean())
