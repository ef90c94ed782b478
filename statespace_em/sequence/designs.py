"""Ready state-space models: of one series, which add up, ``local_trend() + seasonal(12)``, and of motion.

Each has parameters with a meaning: variances of disturbances in squared units of y per row, coefficients of an
autoregression, damping and period of a cycle. Their first states are diffuse, those of stationary parts (cycle, ar,
arma) stationary. Trends, seasons and cycles come with a measurement noise ("noise_var"). Models of motion take the
times of the rows from y, even or not, and are in units of these.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from statespace_em import _validate
from statespace_em.errors import ParameterError
from statespace_em.sequence.motion_model import MotionModel
from statespace_em.sequence.structural import StructuralModel

__all__ = [
    "MotionModel", "StructuralModel", "ar", "arima", "arma", "constant", "constant_acceleration", "constant_velocity",
    "coordinated_turn", "cycle", "local_level", "local_trend", "regression", "seasonal", "smooth_trend",
]  # fmt: skip


def local_level() -> StructuralModel:
    """Random walk plus noise: "level_var", "noise_var" (Durbin & Koopman 2012, ch. 2).

    Examples
    --------
    >>> import statespace_em as sse
    >>> model = sse.designs.local_level().fit(sse.datasets.nile())
    >>> round(model.score(sse.datasets.nile()), 4)
    -632.5456
    >>> model.summary().loc[["level_var", "noise_var"], "value"].round(-1).tolist()
    [1470.0, 15100.0]
    """
    return StructuralModel([("local_level", {})])


def local_trend() -> StructuralModel:
    """Level whose slope is a random walk, plus noise: "level_var", "slope_var", "noise_var"."""
    return StructuralModel([("local_trend", {})])


def smooth_trend() -> StructuralModel:
    """Integrated random walk plus noise: "slope_var", "noise_var"."""
    return StructuralModel([("smooth_trend", {})])


def seasonal(period: int, kind: Literal["trigonometric", "dummy"] = "trigonometric") -> StructuralModel:
    """Pattern that repeats after ``period`` rows and changes slowly, plus noise: "seasonal_var", "noise_var".

    "trigonometric": all harmonics move with the same variance. "dummy": the seasons add up to a disturbance.
    """
    _validate.at_least("period", period, 2, whole=True)
    _validate.one_of("kind", kind, ("trigonometric", "dummy"))
    return StructuralModel([("seasonal", {"period": int(period), "kind": kind})])


def cycle(period: float | None = None) -> StructuralModel:
    """Damped stochastic cycle plus noise: "cycle_damping", "cycle_period" (rows), "cycle_var", "noise_var".

    ``period`` is where the search begins; None begins at several.
    """
    if period is not None:
        _validate.at_least("period", period, 2.0)
    return StructuralModel([("cycle", {"period": None if period is None else float(period)})])


def ar(p: int) -> StructuralModel:
    """Stationary autoregression without measurement noise: "ar1", ..., "arma_var"; exact likelihood."""
    return arma(p, 0)


def arma(p: int, q: int) -> StructuralModel:
    """Stationary autoregressive moving average: "ar1", ..., "ma1", ..., "arma_var"; exact likelihood.

    Examples
    --------
    An autoregression around an unknown mean:

    >>> import statespace_em as sse
    >>> model = sse.designs.ar(1) + sse.designs.constant()
    >>> model = model.fit(sse.datasets.nile())
    >>> round(model.summary().loc["ar1", "value"].item(), 2)
    0.51
    """
    return arima(p, 0, q)


def arima(p: int, d: int, q: int, seasonal: Sequence[int] | None = None) -> StructuralModel:
    """ARMA of the d-th difference; the first d values are diffuse, so missing rows cost nothing else.

    Parameters
    ----------
    p, d, q
        Orders of the autoregression, the differences and the moving average.
    seasonal
        (P, D, Q, s): the same at multiples of the period s, multiplied with the former: "seasonal_ar1", ...,
        "seasonal_ma1", ...

    Examples
    --------
    The airline model of a monthly series:

    >>> import statespace_em as sse
    >>> model = sse.designs.arima(0, 1, 1, seasonal=(0, 1, 1, 12))
    >>> model._specification(1).own_names["transition"]
    ('ma1', 'seasonal_ma1')
    """
    for name, value in (("p", p), ("d", d), ("q", q)):
        _validate.at_least(name, value, 0, whole=True)
    options: dict[str, Any] = {"p": int(p), "q": int(q), "d": int(d)}
    if seasonal is not None:
        if len(seasonal) != 4:
            raise ParameterError(f"seasonal is {seasonal!r}, expected (P, D, Q, period).")
        for name, value, least in zip(("P", "D", "Q", "period"), seasonal, (0, 0, 0, 2)):
            _validate.at_least(f"{name} of seasonal", value, least, whole=True)
        options["seasonal"] = [int(value) for value in seasonal]
    return StructuralModel([("arma", options)])


def regression(X: Any, *, drifting: bool = False, start: Literal["diffuse", "fixed"] = "diffuse") -> StructuralModel:
    """Regression on known columns, with coefficients that are fixed or drift as random walks ("<column>_var").

    Parameters
    ----------
    X
        Array (T, k), Series or DataFrame with the rows of y, and of its future where forecasts are wanted.
    drifting
        Whether coefficients are random walks.
    start
        "diffuse": nothing is known of the coefficients (as in KFAS); "fixed": they are maximum likelihood estimates.

    Examples
    --------
    Forecasts need the regressors of the future. Those that become known after the fit come in a model with more rows
    of X, which takes the parameters found:

    >>> import numpy as np
    >>> import statespace_em as sse
    >>> flow, dam = sse.datasets.nile(), (np.arange(105) >= 28).astype(float)
    >>> model = (sse.designs.local_level() + sse.designs.regression(dam[:100])).fit(flow)
    >>> longer = sse.designs.local_level() + sse.designs.regression(dam)
    >>> longer.forecast(flow, 5, params=model.params_)["mean"].values.round().ravel().tolist()
    [850.0, 850.0, 850.0, 850.0, 850.0]
    """
    _validate.one_of("drifting", drifting, (True, False))
    _validate.one_of("start", start, ("diffuse", "fixed"))
    frame = X.to_frame() if isinstance(X, pd.Series) else X
    rows = np.asarray(frame, dtype=float)
    rows = rows[:, None] if rows.ndim == 1 else rows
    if rows.ndim != 2 or not rows.size:
        raise ParameterError(f"X has shape {np.shape(X)}, expected (rows, columns).")
    if not np.isfinite(rows).all():
        row, column = np.argwhere(~np.isfinite(rows))[0]
        raise ParameterError(f"X has {rows[row, column]} in row {row}, column {column}: regressors must be known.")
    named = isinstance(frame, pd.DataFrame)
    names = [str(name) for name in frame.columns] if named else [f"x{j}" for j in range(rows.shape[1])]
    plain = named and not frame.index.equals(pd.RangeIndex(len(frame)))
    options = {
        "X": rows.tolist(), "names": names, "drifting": drifting, "start": start,
        "times": [str(time) for time in frame.index] if plain else None,
    }  # fmt: skip
    return StructuralModel([("regression", options)])


def constant(*, start: Literal["fixed", "diffuse"] = "fixed") -> StructuralModel:
    """A level that never moves, plus noise where nothing else has any; ``start`` as in `regression`."""
    _validate.one_of("start", start, ("fixed", "diffuse"))
    return StructuralModel([("constant", {"start": start})])


def constant_velocity(dims: int | Sequence[str] = 2, **settings: Any) -> MotionModel:
    """Target whose velocity is a random walk: "acceleration_density" (y^2 / time^3), "noise_var" (y^2).

    Parameters
    ----------
    dims
        Number of axes (1, 2 or 3), or their names.
    settings
        Of `MotionModel`: ``density``, ``noise``, ``sensors``, ``step``, ``unit``, ``initial`` and others.

    Notes
    -----
    A motion along one axis adds up with the other designs, on even rows ``step`` apart:
    ``constant_velocity(["height"], step=0.5) + seasonal(24)``. What is added is per row, its period in rows.

    Examples
    --------
    A radar that misses scans: rows without a measurement may be there with NaN, or not at all:

    >>> import statespace_em as sse
    >>> radar = sse.datasets.radar()
    >>> scans = radar["measured"].where(~radar["outlier"]).dropna("time")
    >>> model = sse.designs.constant_velocity(["east", "north"]).fit(scans)
    >>> model.summary().loc[["acceleration_density", "noise_var"], "value"].round(2).tolist()   # simulated: 0.3, 625
    [0.28, 637.96]
    """
    return MotionModel("constant_velocity", dims, **settings)


def constant_acceleration(dims: int | Sequence[str] = 2, **settings: Any) -> MotionModel:
    """Target whose acceleration is a random walk: "jerk_density" (y^2 / time^5), "noise_var".

    Arguments as of `constant_velocity`.
    """
    return MotionModel("constant_acceleration", dims, **settings)


def coordinated_turn(rate: float, dims: int | Sequence[str] = 2, **settings: Any) -> MotionModel:
    """Target that turns at a known rate (radians per unit of time) in the plane of its first two axes.

    White acceleration disturbs it: "acceleration_density", "noise_var". A third axis has constant velocity. A positive
    rate turns from the first axis to the second. Settings as in `constant_velocity`.
    """
    return MotionModel("coordinated_turn", dims, rate=rate, **settings)
