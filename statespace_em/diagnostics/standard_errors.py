"""Standard errors and confidence intervals from the observed information."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from statespace_em._typing import Bools, Floats
from statespace_em.boundary import HasBoundary
from statespace_em.core import Core, HasDerived
from statespace_em.diagnostics.information import NOT_AT_TOP, Information, domain_of, flattened
from statespace_em.domains import Domain

DERIVED: Mapping[str, Domain] = {"persistence": "simplex", "stationary": "simplex", "duration": "positive"}


def parameter_errors(information: Information) -> tuple[dict[str, Floats], dict[str, Bools]]:
    """Standard errors of all parameters by name, and which are missing because the data say nothing of them."""
    core = information.core
    errors, unknown = information.error_parts(lambda tree: flattened(core, tree))
    shapes = {name: value.shape for name, value in core.flatten(information.reference).items()}
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes.values()])[:-1]
    named = {n: part.reshape(shape) for (n, shape), part in zip(shapes.items(), np.split(errors, ends))}
    dark = {n: part.reshape(shape) for (n, shape), part in zip(shapes.items(), np.split(unknown, ends))}
    shrinking = {} if information.limit is None else information.limit.shrinking
    for name, at in (*information.boundary.items(), *shrinking.items()):
        if name in named:
            named[name] = np.where(at, np.nan, named[name])
    return named, dark


def derived_values(core: Core, tree: Any) -> dict[str, Floats]:
    """Other quantities of interest by name; none where the model has none."""
    return core.derived(tree) if isinstance(core, HasDerived) else {}


def derived_errors(information: Information) -> dict[str, Floats]:
    """Standard errors of what the parameters determine, by the delta method."""
    core = information.core
    names = list(derived_values(core, information.reference))
    if not names:
        return {}
    with np.errstate(invalid="ignore"):
        errors = information.errors(lambda tree: np.concatenate([*derived_values(core, tree).values()]))
    return dict(zip(names, np.split(errors, len(names))))


def named_errors(information: Information, named: Callable[[Any], Mapping[str, Floats]]) -> dict[str, Floats]:
    """Standard errors of numbers that have a name of their own."""
    names = list(named(information.reference))
    errors = dict(zip(names, information.errors(lambda tree: np.array([*named(tree).values()], float))))
    limits = {} if information.limit is None else information.limit.values
    held = [name for name, (moves, _) in limits.items() if name in errors and not moves]
    return errors | dict.fromkeys(held, np.array(np.nan))


def notes(information: Information, tree: Any, known: xr.Dataset) -> dict[str, str]:
    """What is said of parameters, and of named values, that are at a boundary or a limit."""
    found = {str(name): own.attrs["boundary"] for name, own in known.data_vars.items() if "boundary" in own.attrs}
    core = information.core
    if isinstance(core, HasBoundary):
        found |= dict.fromkeys(core.at_zero(tree), "at 0: the likelihood is highest without it")
    limits = {} if information.limit is None else information.limit.values
    return found | {name: words for name, (_, words) in limits.items()}


def interval(value: Floats, error: Floats, level: float, domain: Domain) -> tuple[Floats, Floats]:
    """Ends of the confidence intervals, normal on the natural scale: logits of probabilities, logs of variances."""
    from scipy.special import expit, ndtri  # here because it is slow to import, and fits do without

    reach = float(ndtri(0.5 + level / 2.0)) * error
    with np.errstate(divide="ignore", invalid="ignore"):
        if domain == "simplex":
            logit, spread = np.log(value) - np.log1p(-value), reach / (value * (1.0 - value))
            return expit(logit - spread), expit(logit + spread)
        if domain in ("positive", "nonnegative"):
            return value * np.exp(-reach / value), value * np.exp(reach / value)
        if domain == "covariance":
            diagonal = np.broadcast_to(np.eye(value.shape[-1], dtype=bool), value.shape)
            low, high = value * np.exp(-reach / value), value * np.exp(reach / value)
            return np.where(diagonal, low, value - reach), np.where(diagonal, high, value + reach)
    return value - reach, value + reach


def intervals(
    core: Core,
    values: Mapping[str, Floats],
    errors: Mapping[str, Floats],
    level: float,
    domains: Mapping[str, Domain],
) -> dict[str, Floats]:
    """Lower and upper end by name, along a new last axis; ``domains`` of those that the core does not know."""
    found = {}
    for name, value in values.items():
        domain = domains.get(name) or DERIVED.get(name) or domain_of(core, name)
        if name == "duration":  # 1 / (1 - stay) is above 1
            low, high = interval(value - 1.0, errors[name], level, domain)
            found[name] = np.stack([1.0 + low, 1.0 + high], axis=-1)
        else:
            found[name] = np.stack(interval(value, errors[name], level, domain), axis=-1)
    return found


def complaints(information: Information, unknown: Mapping[str, Bools]) -> list[str]:
    """What is wrong with this information, in words."""
    found = []
    dark = [name for name, entries in unknown.items() if entries.any()]
    if dark:
        n_flat = int((~information.usable).sum())
        found.append(
            f"the information is singular in {n_flat} direction{'s' if n_flat > 1 else ''}: the data do not tell "
            f"all of {', '.join(dark)} apart, and these standard errors are not available (NaN). Freeze or fix some "
            "of them, use fewer states, or a prior."
        )
    if information.decrement > NOT_AT_TOP:
        found.append(
            f"the parameters are not at a maximum: a Newton step would gain {information.decrement:.2g} nats. Fit "
            "until status_ is converged; these standard errors are of a slope, not of a top."
        )
    return found
