"""Refits on a calendar: what a model would have said on every day, from what was there on that day."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from statespace_em import _validate
from statespace_em._typing import Ints
from statespace_em.compare.rows import Observations, declared, observations
from statespace_em.errors import ConvergenceWarning, DataError, LookAheadError, ParameterError
from statespace_em.labels import Labels, listed, show
from statespace_em.matching import aligned

ROWS_A_REFIT = 250  # unless told, where rows have no dates
ROWS_A_STATE = 50  # rows before the first fit unless told, for each state
CUTS = 2  # of an audit unless told


class Block(NamedTuple):
    """Rows that one fit is used for."""

    train: int  # first row of the fit
    begin: int  # first row after the fit
    end: int


def walk_forward(
    model: Any,
    y: Any,
    *,
    refit: str | int | None = None,
    window: str | int = "expanding",
    min_train: int | None = None,
    fit: Mapping[str, Any] | None = None,
    states: Any = None,
    weights: Any = None,
    quantiles: Any = None,
    audit: bool | int = False,
) -> xr.Dataset:
    """Refit a model on a calendar and keep what it said of every row at the time.

    What is known when: a refit that is due at row t is fitted to rows before t and used from row t to the row
    before the next refit. So ``predicted``, ``log_score``, ``mean``, ``variance`` and ``quantile`` of row t rest on
    rows before t alone, parameters included; ``filtered`` of row t on row t as well, with parameters of rows before
    it. States are aligned with those of the fit before, see `compare.match_states`.

    Parameters
    ----------
    model
        A sequence model; only its settings are used, it may be unfitted and stays as it is.
    y
        One sequence, or several on one calendar: a refit is to the rows of all of them before its time.
    refit
        Calendar of the refits: a pandas frequency ("YE", "QE", "ME", "W": refit before the first row of each new
        year, quarter, ...), which needs dates, or a number of rows (of several sequences: of times). By default "YE"
        where the rows have dates, else 250.
    window
        "expanding": fit to all rows so far; a number: to that many of the last rows (times).
    min_train
        Rows (times) before the first fit; by default those of the window, or 50 a state.
    fit
        Options of `fit`, such as ``{"n_starts": 3}`` or ``{"start": ..., "freeze": [...]}``.
    states, weights
        As in `fit`; what is said of a row counts from that row on.
    quantiles
        Levels of predictive quantiles to keep, if any.
    audit
        Prove that nothing looks ahead: cut the rows at this number of places (True: 2), run again with the future
        removed and with the future changed, and compare every value before the cut bit by bit.

    Returns
    -------
    xarray.Dataset
        For the rows after the first fit ``filtered``, ``predicted`` ([sequence,] time, state), ``log_score`` (time)
        log p(y_t | rows before) in nats, ``mean``, ``variance`` (time, feature), for symbols ``prob``, and
        ``used_refit`` (time). For every refit ``trained_from``, ``trained_until`` (the labels of its first and last
        row), ``n_train``, ``status`` (refit) and its parameters as ``fitted_<name>`` (refit, ...), with a dim ``row``
        where they are given for every row.
        ``attrs["audit"]`` says what was proved. Of several sequences time runs over the times of all, NaN where one
        has no row.

    Raises
    ------
    ParameterError, DataError
        If an option cannot be used, y has too few rows for the window asked for, or symbols that only later rows tell.
    LookAheadError
        If the audit finds a value that a later row has touched.

    Warns
    -----
    ConvergenceWarning
        Once, if some of the refits did not converge.

    Examples
    --------
    >>> import statespace_em as sse
    >>> returns = 100 * sse.datasets.stocks()["log_return"]["IBM"]["2001":"2005"]
    >>> walk = sse.walk_forward(sse.GaussianHMM(["calm", "stress"]), returns, refit="YE", min_train=400, audit=1)
    >>> walk.trained_until.dt.date.astype(str).values.tolist()
    ['2002-12-31', '2003-12-31', '2004-12-31']
    >>> walk.filtered.dims, walk.sizes["date"]
    (('date', 'state'), 756)
    >>> walk.attrs["audit"]
    'no value before the cut moved by one bit when the rows after it were removed or changed; cuts: 1'
    """
    data = observations(model, y, states, weights)
    if data.symbols is not None and not declared(model, y):
        raise ParameterError(
            f"{type(model).__name__} names no symbols, and those of later rows must not be known before: build it with "
            "symbols=[...], all that may occur, or give y a categorical type."
        )
    n_states = len(model._names())
    if window != "expanding":
        _window(window)
    if window != "expanding" and "time" in model._schema().coords:
        raise ParameterError(
            f"window is {window}, but matrices of the model are given for every row from the first of y: "
            "walk with window='expanding'."
        )
    if min_train is None:
        min_train = window if isinstance(window, int | np.integer) else ROWS_A_STATE * n_states
    _validate.at_least("min_train", min_train, 1, whole=True)
    _validate.at_least("audit", int(audit), 0, whole=True)
    if refit is None:
        refit = "YE" if isinstance(data.calendar, pd.DatetimeIndex | pd.PeriodIndex) else ROWS_A_REFIT
    blocks = list(_blocks(data, refit, window, int(min_train)))
    options = dict(fit or {})
    result = _walk(model, data, blocks, options, quantiles)
    stopped = result["trained_until"].values[result["status"].values != "converged"]
    if len(stopped):
        warnings.warn(
            f"{len(stopped)} of {len(blocks)} refits did not converge, see status: those with rows up to "
            f"{listed(stopped, most=3)}. Raise max_iter, or loosen tol, in fit=.",
            ConvergenceWarning,
            stacklevel=2,
        )
    if audit:
        cuts = _cuts(blocks, CUTS if audit is True else int(audit))
        for cut in cuts:
            own = [block for block in blocks if block.begin <= cut]
            for other in (data.until(cut + 1), data.changed_after(cut)):
                shorter = [block._replace(end=min(block.end, len(other.calendar))) for block in own]
                again = _walk(model, other, shorter, options, quantiles)
                where = f"{data.labels.time} {show(data.calendar[cut])}"
                _check_nothing_moved(result, again, data.labels, cut + 1 - blocks[0].begin, where)
        result.attrs["audit"] = (
            "no value before the cut moved by one bit when the rows after it were removed or changed; "
            f"cuts: {len(cuts)}"
        )
    return result


def _window(window: Any) -> None:
    if not isinstance(window, int | np.integer) or isinstance(window, bool) or window < 2:
        raise ParameterError(f"window is {show(window)}, expected 'expanding' or a whole number of at least 2 rows.")


def _blocks(data: Observations, refit: str | int, window: str | int, min_train: int) -> Iterator[Block]:
    n_rows = len(data.calendar)
    what = "rows" if data.labels.sequence is None else "different times"
    if n_rows <= min_train:
        raise DataError(
            f"y has {n_rows} {what}, but the first fit needs {min_train} and a row to predict after them: "
            "pass more rows, or a smaller window or min_train."
        )
    begins = _refits(data.calendar, refit, n_rows)
    begins = begins[begins >= min_train] if isinstance(refit, str) else np.arange(min_train, n_rows, int(refit))
    if not len(begins):
        raise DataError(
            f"no refit is due: y has {n_rows} {what}, and none of the {refit!r} periods ends after row {min_train} "
            "(min_train). Refit more often, or start with fewer rows."
        )
    for begin, end in zip(begins, [*begins[1:], n_rows]):
        train = 0 if window == "expanding" else max(0, int(begin) - int(window))
        yield Block(train, int(begin), int(end))


def _refits(times: pd.Index, refit: str | int, n_rows: int) -> Ints:
    """Rows before which a refit is due: the first of each period, which a calendar knows in advance."""
    if not isinstance(refit, str):
        _validate.at_least("refit", refit, 1, whole=True)
        return np.arange(0, n_rows, int(refit))
    dates = times.to_timestamp() if isinstance(times, pd.PeriodIndex) else times
    if not isinstance(dates, pd.DatetimeIndex):
        raise ParameterError(f"refit is {refit!r}, but the rows of y have no dates: pass a number of rows.")
    try:
        period = pd.Series(0, index=dates).groupby(pd.Grouper(freq=refit)).ngroup().to_numpy()
    except ValueError:
        raise ParameterError(f"refit is {refit!r}, expected a frequency such as 'YE', 'QE', 'ME', or rows.") from None
    return np.flatnonzero(np.diff(period, prepend=period[:1]) != 0)


def _walk(model: Any, data: Observations, blocks: list[Block], options: dict[str, Any], quantiles: Any) -> xr.Dataset:
    time, sequence = data.labels.time, data.labels.sequence
    said: dict[Any, list[xr.Dataset]] = {}
    fits: list[xr.Dataset] = []
    previous = None
    for block in blocks:
        fresh, train = type(model)(**model.get_params()), data.between(block.train, block.begin)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # told once, at the end
                fresh.fit(train.y, **train.said, **options)
        except DataError as error:
            raise DataError(
                f"the refit to rows up to {show(data.calendar[block.begin - 1])} failed: {error}"
            ) from error
        params = fresh.params_
        if previous is not None and not data.knows_states(block.train, block.begin):
            params = aligned(fresh._core(), params, previous)
        previous = params
        for key, rows in data.each(block.train, block.end):
            own = {key: rows.y} if "sequence" in params.coords else rows.y  # these say whose rows they are
            known = fresh.filter(own, params, **rows.said)[["filtered", "predicted", "log_likelihood"]]
            known = known.rename(log_likelihood="log_score")
            ahead = fresh.one_step(own, params, quantiles=quantiles, **rows.said)
            if "sequence" in params.coords:
                known, ahead = (found.isel(sequence=0, drop=True) for found in (known, ahead))
            known = known.merge(ahead)
            said.setdefault(key, []).append(known.isel({time: rows.places >= block.begin}))
        fitted = params.rename({name: f"fitted_{name}" for name in params.data_vars})
        if "time" in fitted.dims:  # of matrices given for every row, from the first on
            fitted = fitted.drop_vars(("time", "sequence", "row"), errors="ignore").rename_dims(time="row")
        fits.append(fitted.assign(n_train=data.n_between(block.train, block.begin), status=fresh.status_))
    result = _joined(said, time, sequence)
    every: xr.Dataset = xr.concat(fits, "refit", coords="minimal", compat="override")
    result = result.merge(every)
    ends = {"trained_from": [b.train for b in blocks], "trained_until": [b.begin - 1 for b in blocks]}
    stamps = {name: ("refit", data.calendar[rows].to_numpy()) for name, rows in ends.items()}
    used = np.searchsorted([b.begin for b in blocks], np.arange(blocks[0].begin, blocks[-1].end), side="right") - 1
    result = result.assign({**stamps, "used_refit": (time, used)})
    return result.assign_coords(refit=np.arange(len(blocks)))


def _joined(said: dict[Any, list[xr.Dataset]], time: str, sequence: str | None) -> xr.Dataset:
    """What was said of every row in the order of time; of several sequences side by side on one calendar."""
    parts = {key: xr.concat(found, time, coords="minimal", compat="override") for key, found in said.items()}
    first = next(iter(parts.values()))
    result: xr.Dataset = first
    if sequence is not None:
        calendar = sorted(set().union(*(part.indexes[time] for part in parts.values())))
        index = pd.Index(calendar, name=time)
        whole = [part.reindex({time: index}) for part in parts.values()]
        names: Any = pd.Index(list(parts), name=sequence, tupleize_cols=False)
        result = xr.concat(whole, names, coords="minimal", compat="override")
    for name in first.data_vars:
        result[name].attrs = first[name].attrs
    return result


def _cuts(blocks: list[Block], n_cuts: int) -> Ints:
    """Last rows before the cuts, spread over what was predicted; never the very last row, which has no future."""
    first, last = blocks[0].begin, blocks[-1].end - 2
    if last < first:
        raise DataError("the audit needs at least two rows after the first fit: refit earlier, or leave audit out.")
    return np.unique(np.linspace(first, last, n_cuts + 2)[1:-1].astype(np.int64))


def _check_nothing_moved(before: xr.Dataset, again: xr.Dataset, labels: Labels, n_rows: int, where: str) -> None:
    """Compare the first rows (of several sequences: times), and the refits that they used, bit by bit.

    Raises
    ------
    LookAheadError
        Naming the variable and the first row that differs.
    """
    n_refits, time = again.sizes["refit"], labels.time
    if labels.sequence is not None:  # one that begins later is not there without the future
        again = again.reindex({labels.sequence: before[labels.sequence]})
    for name in before.data_vars:
        lead = time if time in before[name].dims else "refit"
        size = n_rows if lead == time else n_refits
        left, right = (one[name].transpose(lead, ...).isel({lead: slice(size)}) for one in (before, again))
        moved = [i for i in range(size) if _bits(left.values[i]) != _bits(right.values[i])]
        if moved:
            raise LookAheadError(
                f"{name} of {lead} {show(left[lead].values[moved[0]])} changed when the rows after {where} did: the "
                "model uses rows that were not there at the time."
            )


def _bits(value: Any) -> Any:
    """Bytes of numbers, so that 0.0 is not -0.0; text and dates as they are."""
    kind = getattr(value, "dtype", None)
    if kind is None:  # a period, a text
        return value
    return value.tobytes() if kind.kind in "fiu" else value.tolist()
