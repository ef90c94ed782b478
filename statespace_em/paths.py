"""What the posterior says of whole paths: samples, segments, changes, counts; from Datasets, never from models.

Given all rows, the states are a Markov chain again: it starts with ``gamma`` of the first row and goes from i to j
with probability ``xi[t, i, j] / gamma[t, i]``. Everything here is exact for that chain. Each function takes what
``e_step(y)`` of a hidden Markov model returns, of one sequence.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from statespace_em import _validate
from statespace_em._typing import Floats, Ints
from statespace_em.errors import DataError, ParameterError
from statespace_em.kernels import chain, paths
from statespace_em.labels import name_array, show


class PosteriorChain(NamedTuple):
    """The states given all rows, as an inhomogeneous Markov chain."""

    initial: Floats  # (K,)
    transition: Floats  # (N - 1, K, K), rows sum to 1
    gamma: Floats  # (N, K)
    names: list[Any]  # of the states
    time: str
    times: pd.Index  # (N,)


def posterior_chain(posterior: xr.Dataset) -> PosteriorChain:
    """Return the chain of the states given all rows.

    Raises
    ------
    DataError
        If this is not the posterior of a hidden Markov model, of several sequences, or has no pairs.
    """
    if not isinstance(posterior, xr.Dataset) or not {"gamma", "xi"} <= set(posterior.data_vars):
        raise DataError("expected gamma and xi: pass what e_step(y) of a hidden Markov model returned.")
    if "cov" in posterior:
        raise DataError("this is the posterior of a linear-Gaussian model: it has no paths of discrete states.")
    gamma = posterior["gamma"]
    if gamma.ndim != 2:
        lead = next(str(dim) for dim in gamma.dims if dim != "state")
        raise DataError(f"the posterior has a dim {lead!r}: select one, as in posterior.sel({lead}=...).")
    time = next(str(dim) for dim in gamma.dims if dim != "state")
    if time not in posterior["xi"].dims:
        raise DataError("xi is summed over time: call e_step(y) without xi='sum'.")
    gamma = gamma.dropna(time)
    probability = np.asarray(gamma.transpose(time, "state").values, dtype=float)
    pairs = posterior["xi"].transpose(time, "state", "next_state").values[: len(probability) - 1]
    total = pairs.sum(2, keepdims=True)
    with np.errstate(invalid="ignore"):
        step = np.where(total > 0.0, pairs / total, np.eye(probability.shape[1]))
    index = gamma.indexes.get(time, pd.RangeIndex(len(probability)))
    names = gamma["state"].values.tolist()
    return PosteriorChain(probability[0], np.ascontiguousarray(step), probability, names, time, index)


def sample(posterior: xr.Dataset, n_paths: int, *, seed: int | None = None) -> xr.DataArray:
    """Draw whole paths from p(s_1..T | y_1..T): exact and independent (Chib 1996); the same seed gives the same.

    Returns
    -------
    xarray.DataArray
        Names of the states (path, time).

    Examples
    --------
    >>> import statespace_em as sse
    >>> quakes = sse.datasets.earthquakes()
    >>> model = sse.PoissonHMM(["quiet", "active"]).fit(quakes)
    >>> drawn = sse.paths.sample(model.e_step(quakes), 200, seed=1)
    >>> drawn.dims, (drawn == "active").mean("path").sel(year=1943).item() > 0.9
    (('path', 'year'), True)
    """
    _validate.at_least("n_paths", n_paths, 1, whole=True)
    own = posterior_chain(posterior)
    rng = _validate.generator(seed)
    found = np.empty((n_paths, len(own.gamma)), dtype=np.int64)
    steps = own.transition if len(own.transition) else np.eye(len(own.initial))[None]
    steps = np.concatenate([steps, steps[-1:]])  # as many as rows, so that the kernel takes them as varying
    for path in found:
        chain.draw(own.initial, steps, rng.random(len(path)), path)
    return _labelled(name_array(own.names)[found], ("path", own.time), own, "state")


def change_probability(posterior: xr.Dataset) -> xr.DataArray:
    """Probability of a change of state between the row before and this row, NaN at the first."""
    own = posterior_chain(posterior)
    stay = np.einsum("ti,tii->t", own.gamma[:-1], own.transition)
    change = np.concatenate([[np.nan], np.clip(1.0 - stay, 0.0, 1.0)])
    return _labelled(change, (own.time,), own, "change_probability")


def segment_probability(posterior: xr.Dataset, state: Any, start: Any, stop: Any) -> float:
    """Probability of being in one state at every row from ``start`` to ``stop``, both by label and included.

    It is gamma of the first row times the probabilities to stay: far less than the product of the gammas allows to
    guess, and the right measure of trust in a decoded segment.

    Examples
    --------
    >>> import statespace_em as sse
    >>> quakes = sse.datasets.earthquakes()
    >>> posterior = sse.PoissonHMM(["quiet", "active"]).fit(quakes).e_step(quakes)
    >>> round(sse.paths.segment_probability(posterior, "active", 1940, 1946), 2)
    0.99
    """
    own = posterior_chain(posterior)
    _validate.one_of("state", state, own.names)
    first, last = (_row(own, name, label) for name, label in (("start", start), ("stop", stop)))
    if last < first:
        raise ParameterError(f"stop {show(stop)} is before start {show(start)}: give them in order of time.")
    k = own.names.index(state)
    return float(own.gamma[first, k] * own.transition[first:last, k, k].prod())


def episodes(decoded: xr.DataArray, posterior: xr.Dataset | None = None) -> pd.DataFrame:
    """Table of the episodes of a decoded path: state, first and last row, rows, and how probable each is.

    Parameters
    ----------
    decoded
        What ``decode(y)`` returned, of one sequence.
    posterior
        What ``e_step(y)`` returned; without it there is no column ``probability``, the chance that the state was
        this one throughout.
    """
    if not isinstance(decoded, xr.DataArray) or decoded.ndim != 1:
        raise DataError("decoded is not one path: pass what decode(y) returned, of one sequence.")
    path = decoded.dropna(decoded.dims[0])
    values = path.values
    begins = np.flatnonzero(np.append(True, values[1:] != values[:-1]))
    ends = np.append(begins[1:], len(values)) - 1
    times = path.indexes.get(path.dims[0], pd.RangeIndex(len(values)))
    columns = {"state": values[begins], "start": times[begins], "stop": times[ends], "rows": ends - begins + 1}
    table = pd.DataFrame(columns, index=pd.RangeIndex(len(begins), name="episode"))
    if posterior is not None:
        own = posterior_chain(posterior)
        if len(own.gamma) != len(values):
            raise DataError(f"decoded has {len(values)} rows, the posterior {len(own.gamma)}: pass both of the same y.")
        which = [own.names.index(state) for state in table["state"].tolist()]
        table["probability"] = [
            own.gamma[begin, k] * own.transition[begin:end, k, k].prod() for begin, end, k in zip(begins, ends, which)
        ]
    return table


def n_switches(posterior: xr.Dataset, *, most: int | None = None) -> xr.DataArray:
    """Distribution of the number of changes of state, by dynamic programming (count,).

    The last entry collects ``most`` changes and more; by default that is every row. Time and memory grow with
    rows times ``most``.
    """
    own = posterior_chain(posterior)
    size = len(own.initial)
    return _counts(own, np.zeros(size, dtype=np.int64), 1 - np.eye(size, dtype=np.int64), most)


def time_in_state(posterior: xr.Dataset, state: Any, *, most: int | None = None) -> xr.DataArray:
    """Distribution of the number of rows spent in a state, by dynamic programming (count,); see `n_switches`."""
    own = posterior_chain(posterior)
    _validate.one_of("state", state, own.names)
    first = np.zeros(len(own.initial), dtype=np.int64)
    first[own.names.index(state)] = 1
    return _counts(own, first, np.ascontiguousarray(np.tile(first, (len(first), 1))), most)


def _counts(own: PosteriorChain, at_first: Ints, at_step: Ints, most: int | None) -> xr.DataArray:
    most = len(own.gamma) if most is None else most
    _validate.at_least("most", most, 1, whole=True)
    probability = np.empty(most + 1)
    paths.count_events(own.initial, own.transition, at_first, at_step, probability)
    return xr.DataArray(probability, {"count": np.arange(most + 1)}, ("count",), "probability", {"conditioning": "1:T"})


def _row(own: PosteriorChain, name: str, label: Any) -> int:
    try:
        place = own.times.get_loc(label)
    except (KeyError, TypeError):
        raise ParameterError(f"{name} is {show(label)}, which is not among the labels of {own.time}.") from None
    if isinstance(place, slice):  # a month stands for all its days
        return int(place.start if name == "start" else place.stop - 1)
    return int(place)


def _labelled(values: Any, dims: tuple[str, ...], own: PosteriorChain, name: str) -> xr.DataArray:
    return xr.DataArray(values, {own.time: own.times}, dims, name, {"conditioning": "1:T"})
