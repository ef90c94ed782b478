"""Models as the command line asks for them: built, fitted, loaded, counted."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pandas as pd

import statespace_em as sse
from statespace_em import designs, emissions, storage
from statespace_em.cli.arguments import ALIASES, UsageError
from statespace_em.cli.design import designed, usual_design
from statespace_em.errors import FileFormatError
from statespace_em.model import LatentModel

CLASSES: dict[str, type[LatentModel]] = {
    kind.__name__: kind
    for kind in (
        *(sse.HMM, sse.GaussianHMM, sse.PoissonHMM, sse.CategoricalHMM, sse.Mixture),
        *(sse.LinearGaussianSSM, designs.StructuralModel, designs.ContinuousModel, designs.MotionModel),
    )
}


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


def wanted(options: argparse.Namespace, y: pd.DataFrame) -> LatentModel:
    """Model that ``fit`` asks for."""
    names = None if options.names is None else [name.strip() for name in options.names.split(",")]
    if names is not None and options.states not in (None, len(names)):
        raise UsageError(f"--states {options.states}, but --names has {len(names)}: {', '.join(names)}.")
    if ALIASES.get(options.model, options.model) == "lgssm":
        columns = [str(name) for name in y.columns]
        design = usual_design(options.states, columns) if options.design is None else options.design
        if design != "free":
            return designed(design, columns, names, options.states)
    states = names or options.states
    if states is None:
        raise UsageError("give --states K, or --names such as calm,stress.")
    return build(options, states)


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
    return {
        "n_starts": options.starts,
        "max_iter": options.max_iter,
        "tol": options.tol,
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
