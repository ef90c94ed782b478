"""One model for each of many independent series."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence, Sized
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from statespace_em import _threads, _validate
from statespace_em._typing import Floats
from statespace_em.containers import series_dim, slices, split_series, stacked
from statespace_em.errors import ConvergenceWarning, DataError, ParameterError, StateSpaceError
from statespace_em.fitting import FitOptions, side_by_side
from statespace_em.labels import show
from statespace_em.model import LatentModel
from statespace_em.reports import counter
from statespace_em.scale.chunks import cut, import_dask, is_chunked
from statespace_em.scale.workers import check_workers, current_client
from statespace_em.schema import Schema

REPORTED = ("log_likelihood", "n_iterations", "status", "message")
GROUP = 64  # most series that travel to another process at a time


class Outcome(NamedTuple):
    """How the fit of one series ended, small enough to travel."""

    arrays: dict[str, Floats] | None  # parameters by name; None if it failed
    features: pd.Index
    symbols: list[Any] | None
    log_likelihood: float
    n_iterations: int
    status: str
    message: str


def fit_many(
    model: LatentModel,
    series: Any,
    *,
    by: Literal["sequence", "column"] = "sequence",
    threads: int | None = None,
    processes: int | None = None,
    client: Any = None,
    progress: bool = False,
    **options: Any,
) -> xr.Dataset:
    """Fit the model to each series on its own: thousands of independent fits, one labelled result.

    Each fit is what ``model.fit(one, **options)`` finds; a series that cannot be fitted is reported and does not stop
    the others. Fits of short series hold Python's lock for most of their time, so that two threads may take longer
    than one; ``processes`` do help, once they have started, and so does a Dask cluster.

    Parameters
    ----------
    model
        Any model; it is left as it is.
    series
        A dict or list of whatever `LatentModel.fit` takes for one sequence, a frame with two index levels (series,
        time), or a DataArray with a dimension for the series; in Dask chunks along that, it is read where Dask works.
    by
        "column" takes every column of a frame for a series of its own, NaN included; "sequence" everything else.
    threads
        Threads of this process. None takes all cores where half of the series have 2 048 entries or more, and else
        fits one after the other. Not together with ``processes`` or ``client``.
    processes
        Number of new processes to share the work. A script needs the usual ``if __name__ == "__main__":``.
    client
        A `distributed.Client`: the workers of its cluster share the work.
    progress
        Whether to show a progress bar.
    options
        Keywords of `LatentModel.fit`.

    Returns
    -------
    xarray.Dataset
        The parameters, with a first dimension ``series`` (or what your dimension, index level or columns are called)
        labelled by the keys; ``.sel(series=key)`` is accepted wherever ``params`` are. For each series also
        ``log_likelihood`` (nats), ``n_iterations`` (E-steps), ``status`` ("converged", "max_iter", "decreased",
        "degenerate", or "failed" with parameters NaN) and ``message`` (the error, or the warnings of `fit`). Symbols
        that a series lacks have probability 0 there.

    Raises
    ------
    DataError
        If there is no series, a key occurs twice, or not one series can be fitted.
    ParameterError
        If an option cannot be used.

    Warns
    -----
    ConvergenceWarning
        Once, if any fit failed or ended otherwise than converged.

    Examples
    --------
    >>> import statespace_em as sse
    >>> returns = 100 * sse.datasets.stocks()["log_return"][["IBM", "MSFT"]]
    >>> model = sse.GaussianHMM(["calm", "stress"])
    >>> fits = sse.fit_many(model, returns, by="column", n_starts=2)
    >>> fits["status"].to_series().to_dict()
    {'IBM': 'converged', 'MSFT': 'converged'}
    >>> round(model.score(returns["IBM"], fits.sel(symbol="IBM")), 3)
    -5843.034
    """
    if not isinstance(model, LatentModel):
        raise ParameterError(f"model is {model!r}, expected a model such as GaussianHMM(2).")
    _validate.one_of("by", by, ("sequence", "column"))
    chosen = _options(model, options)
    ways = {"threads": threads, "processes": processes, "client": client}
    given = [name for name, value in ways.items() if value is not None]
    if len(given) > 1:
        raise ParameterError(f"both {given[0]} and {given[1]} are given: choose one.")
    for name in ("threads", "processes"):
        if ways[name] is not None:
            _validate.at_least(name, ways[name], 1, whole=True)
    series = stacked(series) if isinstance(series, xr.Dataset) else series
    chunks = cut(series, series_dim(series)) if is_chunked(series) and by == "sequence" else None
    dim, keys, parts = split_series(series, by) if chunks is None else (str(chunks.sequence), chunks.keys, chunks.parts)
    parts = [model._as_one_series(key, part) for key, part in zip(keys, parts)] if chunks is None else parts
    schema = model._schema()
    if dim in {name for dims in schema.dims(2).values() for name in dims} | {*schema.parameters, *REPORTED}:
        raise DataError(f"the series have a dimension {dim!r}, which means something else in the results: rename it.")
    light = type(model)(**model.get_params())  # without what a fit left: it may travel
    with counter(progress, len(keys), "series") as count:
        if chunks is not None:
            fit = partial(_fit_chunk, light, chosen, dim)
            outcomes = _collected(_on_dask(fit, parts, threads, processes, client), count)
        elif client is not None:
            check_workers(client)
            groups = _groups(parts, sum(client.nthreads().values()))
            futures = [client.submit(_fit_group, light, chosen, group, pure=False) for group in groups]
            outcomes = _collected((future.result() for future in futures), count)
        elif processes is not None:
            import multiprocessing  # these are slow to import
            from concurrent.futures import ProcessPoolExecutor

            with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
                groups = _groups(parts, processes)
                outcomes = _collected(pool.map(partial(_fit_group, light, chosen), groups), count)
        else:
            outcomes = _here(partial(_fit_one, light, chosen), parts, threads, count)
    return _gathered(schema, dim, keys, outcomes)


def _options(model: LatentModel, options: dict[str, Any]) -> FitOptions:
    """Options of every fit, checked before any begins."""
    own = [name for name in FitOptions._fields if name not in ("threads", "progress")]
    for name in options:
        _validate.one_of("option", name, own)
    chosen = FitOptions(**options)
    chosen.given(model._schema())
    return chosen


# the fits


def _fit_one(model: LatentModel, options: FitOptions, part: Any) -> Outcome:
    try:
        found = model._estimate(part, options)
    except Exception as error:  # whatever it is, it must not stop the others
        kind = "" if isinstance(error, StateSpaceError) else f"{type(error).__name__}: "
        return Outcome(None, pd.Index([]), None, np.nan, 0, "failed", f"{kind}{error}")
    step, message = found.chosen.trace[-1], " ".join(text for _, text in found.complaints)
    return Outcome(
        found.arrays, found.labels.features, found.symbols, step.log_likelihood, found.chosen.n_steps,
        found.chosen.status, message,
    )  # fmt: skip


def _fit_group(model: LatentModel, options: FitOptions, parts: Sequence[Any]) -> list[Outcome]:
    with _threads.limited(1):
        return [_fit_one(model, options, part) for part in parts]


def _here(
    fit: Callable[[Any], Outcome], parts: Sequence[Any], threads: int | None, count: Callable[[int], object]
) -> list[Outcome]:
    def task(part: Any) -> Outcome:
        outcome = fit(part)
        count(1)
        return outcome

    usual = int(np.median([_n_entries(part) for part in parts]))
    with _threads.limited(threads):
        return side_by_side(usual, threads)([partial(task, part) for part in parts])


def _n_entries(part: Any) -> int:
    if isinstance(part, np.ndarray | pd.Series | pd.DataFrame | xr.DataArray):
        return int(part.size)
    return len(part) if isinstance(part, Sized) else 1


def _groups(parts: Sequence[Any], workers: int) -> list[Sequence[Any]]:
    """Series that travel together: enough groups that nobody waits long for the last one."""
    size = max(1, min(GROUP, len(parts) // (4 * max(workers, 1))))
    return [parts[begin : begin + size] for begin in range(0, len(parts), size)]


def _collected(groups: Iterable[list[Outcome]], count: Callable[[int], object]) -> list[Outcome]:
    outcomes: list[Outcome] = []
    for found in groups:
        outcomes += found
        count(len(found))
    return outcomes


def _fit_chunk(model: LatentModel, options: FitOptions, dim: str, part: xr.DataArray) -> list[Outcome]:
    return _fit_group(model, options, [one for _, one in slices(part, dim)])


def _on_dask(
    fit: Callable[[Any], list[Outcome]], parts: Sequence[Any], threads: int | None, processes: int | None, client: Any
) -> Iterable[list[Outcome]]:
    """Fit the series of each chunk where the chunk is."""
    dask = import_dask()
    tasks = [dask.delayed(fit, pure=False)(part) for part in parts]
    client = current_client() if client is None else client
    if processes is not None:
        return list(dask.compute(*tasks, scheduler="processes", num_workers=processes))
    if threads is not None or client is None:
        return list(dask.compute(*tasks, scheduler="threads", num_workers=threads))
    return (future.result() for future in client.compute(tasks))


# their results in one Dataset


def _gathered(schema: Schema, dim: str, keys: pd.Index, outcomes: list[Outcome]) -> xr.Dataset:
    """Stack parameters by name of feature and symbol; a failed series is NaN."""
    features = _features(outcomes)
    book = _book(outcomes)
    outcomes = [_arranged(schema, outcome, features, book) for outcome in outcomes]
    found = [outcome.arrays for outcome in outcomes if outcome.arrays is not None]
    if not found:
        raise DataError(f"not one series could be fitted. The first, {show(keys[0])}: {outcomes[0].message}")
    one = schema.label(found[0], features, book)
    fitted = np.array([outcome.arrays is not None for outcome in outcomes])
    variables: dict[str, Any] = {}
    for name, variable in one.data_vars.items():
        values = np.full((len(outcomes), *variable.shape), np.nan)
        values[fitted] = np.reshape([arrays[str(name)] for arrays in found], (-1, *variable.shape))
        variables[str(name)] = ((dim, *variable.dims), values)
    variables["log_likelihood"] = (dim, [outcome.log_likelihood for outcome in outcomes], {"units": "nats"})
    variables["n_iterations"] = (dim, [outcome.n_iterations for outcome in outcomes])
    for name in ("status", "message"):
        variables[name] = (dim, [getattr(outcome, name) for outcome in outcomes])
    _warn(keys, outcomes)
    return xr.Dataset(variables, {**one.coords, dim: keys})


def _features(outcomes: list[Outcome]) -> pd.Index:
    """Names of the features of all series, in the order of the first; positions where the names differ."""
    widths = Counter(len(outcome.features) for outcome in outcomes if outcome.arrays is not None)
    if not widths:
        return pd.RangeIndex(0)
    usual = widths.most_common(1)[0][0]
    names = [outcome.features for outcome in outcomes if len(outcome.features) == usual]
    alike = all(index.equals(names[0]) or len(index.symmetric_difference(names[0])) == 0 for index in names)
    return names[0] if alike else pd.RangeIndex(usual)


def _book(outcomes: list[Outcome]) -> list[Any] | None:
    """All symbols of all series, sorted unless every series has the same."""
    books = [outcome.symbols for outcome in outcomes if outcome.symbols is not None]
    if not books:
        return None
    if all(book == books[0] for book in books):
        return books[0]
    every = list(dict.fromkeys(symbol for book in books for symbol in book))
    try:
        return sorted(every)
    except TypeError:
        return every  # of types without an order


def _arranged(schema: Schema, outcome: Outcome, features: pd.Index, book: list[Any] | None) -> Outcome:
    """Parameters with features and symbols in the common order."""
    if outcome.arrays is None:
        return outcome
    own = outcome.features
    if len(own) != len(features):
        message = f"this series has {len(own)} columns, but most have {len(features)}: fit it apart."
        return outcome._replace(arrays=None, status="failed", message=message, log_likelihood=np.nan)
    named = not own.equals(features) and len(own.symmetric_difference(features)) == 0
    dims, arrays = schema.dims(2), dict(outcome.arrays)
    for name, value in arrays.items():
        for axis, which in enumerate(dims[name]):
            if which in ("feature", "feature_aux") and named:
                value = np.take(value, own.get_indexer(features), axis)
            if which == "symbol" and outcome.symbols != book:
                value = _spread(value, axis, outcome.symbols or [], book or [])
        arrays[name] = value
    return outcome._replace(arrays=arrays)


def _spread(value: Floats, axis: int, own: list[Any], book: list[Any]) -> Floats:
    """Probabilities of all symbols; 0 for those that the series lacks."""
    whole = np.zeros((*value.shape[:axis], len(book), *value.shape[axis + 1 :]))
    np.moveaxis(whole, axis, 0)[[book.index(symbol) for symbol in own]] = np.moveaxis(value, axis, 0)
    return whole


def _warn(keys: pd.Index, outcomes: list[Outcome]) -> None:
    """Say once which fits need a look."""
    bad = [i for i, outcome in enumerate(outcomes) if outcome.message]
    if bad:
        counts = Counter(outcomes[i].status for i in bad)
        words = ", ".join(f"{count} {status}" for status, count in counts.items())
        warnings.warn(
            f"of {len(keys)} series {len(bad)} need a look ({words}): see the variables status and message. The first, "
            f"{show(keys[bad[0]])}: {outcomes[bad[0]].message}",
            ConvergenceWarning,
            stacklevel=4,
        )
