"""Which state of one fit is which state of another: EM cannot know, but their emissions tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np
import xarray as xr

from statespace_em._typing import Floats, Ints
from statespace_em.errors import ParameterError
from statespace_em.labels import listed

CHAIN = ("initial", "transition", "weight")  # parameters that are not of the emissions
FURTHEST = 1e6  # stands for distributions without any overlap, whose distance is infinite


@runtime_checkable
class TellsApart(Protocol):
    """The array side of a model whose structure may tell its states apart."""

    def invariant(self, order: Ints) -> bool:
        """Whether the states may be put in this order."""
        ...


def match_states(params: xr.Dataset, reference: xr.Dataset) -> xr.Dataset:
    """Put the states of one fit in the order, and under the names, of another.

    States are paired so that the sum of the distances between their emissions is smallest (the assignment problem
    of Kuhn 1955): the Bhattacharyya distance for Gaussian, Poisson and categorical emissions, for other families the
    squared distance of the parameters, positive ones in logs, each on the scale of its spread over all states.

    Parameters
    ----------
    params, reference
        ``params_`` of two models with the same number of states, the same columns and the same family.

    Returns
    -------
    xarray.Dataset
        ``params`` with the states rearranged and renamed.

    Raises
    ------
    ParameterError
        If the two cannot be compared.

    Examples
    --------
    >>> import statespace_em as sse
    >>> quakes = sse.datasets.earthquakes()
    >>> up = sse.PoissonHMM(["quiet", "active"]).fit(quakes).params_
    >>> down = up.isel(state=[1, 0], next_state=[1, 0])
    >>> sse.compare.match_states(down, up).rate.values.ravel().round(1).tolist()
    [15.4, 26.0]
    """
    return _in_order(params, reference, matching_order(params, reference))


def aligned(core: Any, params: xr.Dataset, reference: xr.Dataset) -> xr.Dataset:
    """Match the states of a refit, unless there are none or the structure of the model keeps them where they are."""
    if not is_regime_model(reference):
        return params
    order = matching_order(params, reference)
    kept = isinstance(core, TellsApart) and not core.invariant(order)
    return params if kept else _in_order(params, reference, order)


def _in_order(params: xr.Dataset, reference: xr.Dataset, order: Ints) -> xr.Dataset:
    dims = [dim for dim in ("state", "next_state", "state_aux") if dim in params.dims]
    arranged = params.isel(dict.fromkeys(dims, order))
    return arranged.assign_coords({dim: reference["state"].values for dim in dims if "state" in reference.coords})


def matching_order(params: xr.Dataset, reference: xr.Dataset) -> Ints:
    """Permutation (K,): entry k is the position in ``params`` of the state most like state k of ``reference``."""
    from scipy.optimize import linear_sum_assignment  # here because it is slow to import and fits do without

    params = _comparable(params, reference)
    distance = state_distances(params, reference)
    rows, columns = linear_sum_assignment(distance)
    order = np.empty(len(rows), dtype=np.int64)
    order[columns] = rows
    return order


def state_distances(params: xr.Dataset, reference: xr.Dataset) -> Floats:
    """Distances (K, K) between the emissions of every state of one fit and every state of another."""
    names = frozenset(_emission(params))
    distance = KNOWN.get(names, _parameter_distance)(params, reference)
    return np.asarray(np.nan_to_num(distance, nan=FURTHEST, posinf=FURTHEST))


def is_regime_model(params: xr.Dataset) -> bool:
    """Whether the states of these parameters are regimes that can be rearranged, not coordinates of a vector."""
    return "process_cov" not in params


def _emission(params: xr.Dataset) -> list[str]:
    return [str(name) for name in params.data_vars if name not in CHAIN]


def _comparable(params: xr.Dataset, reference: xr.Dataset) -> xr.Dataset:
    """``params`` with features and symbols in the order of the reference, or ParameterError."""
    for what in (params, reference):
        if not isinstance(what, xr.Dataset) or "state" not in what.dims:
            raise ParameterError(f"got {type(what).__name__} without a state dim: pass the params_ of fitted models.")
        if not is_regime_model(what):
            raise ParameterError(
                "the states of a linear-Gaussian model are coordinates of a vector, not regimes: nothing to match."
            )
    if sorted(_emission(params)) != sorted(_emission(reference)):
        have, want = listed(sorted(_emission(params))), listed(sorted(_emission(reference)))
        raise ParameterError(f"the emissions differ: one has {have}, the other {want}. Compare fits of one family.")
    if params.sizes["state"] != reference.sizes["state"]:
        raise ParameterError(
            f"one fit has {params.sizes['state']} states, the other {reference.sizes['state']}: states are matched "
            "one to one."
        )
    for dim in ("feature", "symbol"):
        if dim in params.dims and dim in reference.dims:
            have, want = params[dim].values.tolist(), reference[dim].values.tolist()
            if len(have) != len(want) or set(have) != set(want):
                raise ParameterError(f"the {dim}s differ: one fit has {listed(have)}, the other {listed(want)}.")
            second = [d for d in (dim, f"{dim}_aux") if d in params.dims]
            params = params.isel({key: [have.index(name) for name in want] for key in second})
    return params


def _by_state(params: xr.Dataset, name: str, *dims: str) -> Floats:
    """One parameter as (K, ...), what the states share repeated for each."""
    value = params[name]
    for dim in dims:
        if dim not in value.dims:
            value = value.expand_dims({dim: params.sizes.get(dim, 1)})
    return np.asarray(value.transpose(*dims).values, dtype=float)


def _gaussian_distance(params: xr.Dataset, reference: xr.Dataset) -> Floats:
    """Bhattacharyya (1943) distance of normal distributions; Kailath (1967), eq. 61."""
    means, covs = [], []
    for one in (params, reference):
        mean = _by_state(one, "mean", "state", "feature")
        if "cov" in one:
            cov = _by_state(one, "cov", "state", "feature", "feature_aux")
        else:
            cov = _by_state(one, "var", "state", "feature")[:, :, None] * np.eye(mean.shape[1])
        means.append(mean)
        covs.append(cov)
    away = means[0][:, None] - means[1][None]
    middle = (covs[0][:, None] + covs[1][None]) / 2
    square = (away * np.linalg.solve(middle, away[..., None])[..., 0]).sum(-1)
    log_det = [np.linalg.slogdet(cov)[1] for cov in (middle, *covs)]
    return np.asarray(square / 8 + (log_det[0] - (log_det[1][:, None] + log_det[2][None]) / 2) / 2)


def _poisson_distance(params: xr.Dataset, reference: xr.Dataset) -> Floats:
    """Bhattacharyya distance of independent Poisson counts: half the squared distance of the roots of the rates."""
    left, right = (np.sqrt(_by_state(one, "rate", "state", "feature")) for one in (params, reference))
    return np.asarray(((left[:, None] - right[None]) ** 2).sum(-1) / 2)


def _categorical_distance(params: xr.Dataset, reference: xr.Dataset) -> Floats:
    """Bhattacharyya distance of independent channels."""
    left, right = (np.sqrt(_by_state(one, "prob", "state", "feature", "symbol")) for one in (params, reference))
    with np.errstate(divide="ignore"):
        return np.asarray(-np.log((left[:, None] * right[None]).sum(-1)).sum(-1))


def _parameter_distance(params: xr.Dataset, reference: xr.Dataset) -> Floats:
    """Squared distance of all parameters, for families that are not known here."""
    total = np.zeros((params.sizes["state"], reference.sizes["state"]))
    for name in _emission(params):
        dims = ("state", *(str(dim) for dim in reference[name].dims if dim != "state"))
        if "state" not in reference[name].dims:
            continue
        left, right = (one[name].transpose(*dims).values.reshape(len(total), -1) for one in (params, reference))
        if min(left.min(), right.min()) > 0.0:
            left, right = np.log(left), np.log(right)
        spread = np.concatenate([left, right]).std(0)
        away = (left[:, None] - right[None]) / np.where(spread > 0.0, spread, 1.0)
        total += (away**2).mean(-1)
    return total


KNOWN: dict[frozenset[str], Callable[[xr.Dataset, xr.Dataset], Floats]] = {
    frozenset({"mean", "cov"}): _gaussian_distance,
    frozenset({"mean", "var"}): _gaussian_distance,
    frozenset({"rate"}): _poisson_distance,
    frozenset({"prob"}): _categorical_distance,
}
