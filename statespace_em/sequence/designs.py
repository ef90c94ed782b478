"""Ready state-space models: of one series, which add up, ``local_trend() + seasonal(12)``, and of motion.

The parameters have a meaning: variances of disturbances in squared units of y per row (with ``unit=`` per unit of
time: then rows may be at any times), coefficients of an autoregression, damping and period of a cycle. First states are
diffuse, those of stationary components (cycle, ar, arma) stationary. Trends, seasonals and cycles come with a
measurement noise e[t] ~ N(0, noise_var). Models of motion take the times of the rows from y, even or not, and are in
units of these. Notation and forms are those of Harvey (1989, ch. 2) and Durbin & Koopman (2012, ch. 3); in the formulas
below, disturbances are normal, independent, and called by their variances: w(level_var) ~ N(0, level_var).

Every design raises `ParameterError` where an argument is not what it says.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from statespace_em import _validate
from statespace_em.errors import ParameterError
from statespace_em.sequence.continuous_model import ContinuousModel
from statespace_em.sequence.motion_model import MotionModel
from statespace_em.sequence.regressors import columns_of
from statespace_em.sequence.structural import StructuralModel

__all__ = [
    "ContinuousModel", "MotionModel", "StructuralModel",
    "ar", "arima", "arma", "constant", "constant_acceleration", "constant_velocity",
    "coordinated_turn", "cycle", "local_level", "local_trend", "regression", "seasonal", "smooth_trend",
]  # fmt: skip


Structural: TypeAlias = StructuralModel | ContinuousModel


def _design(kind: str, options: dict[str, Any], unit: str | None = None) -> Structural:
    """Model of one component: per row, or in continuous time where a unit is given."""
    components = [(kind, options)]
    return StructuralModel(components) if unit is None else ContinuousModel(components, unit=unit)._checked()


def _check_period(period: float, unit: str | None) -> None:
    """Refuse periods that rows cannot tell."""
    _validate.at_least("period", period, 2.0 if unit is None else 0.0)
    if period == 0.0 or np.isinf(period):
        raise ParameterError(f"period is {period}, expected a finite number above 0.")


def _motion(kind: Any, dims: Any, settings: dict[str, Any], rate: float = 0.0) -> MotionModel:
    """Model of motion; all that it has beside these may be set."""
    own = [name for name in inspect.signature(MotionModel).parameters if name not in ("kind", "dims", "rate")]
    for name in settings:
        _validate.one_of(f"a setting of {kind}", name, own)
    return MotionModel(kind, dims, rate=rate, **settings)._checked()


@_validate.called
def local_level(*, unit: str | None = None) -> Structural:
    """Random walk plus noise: "level_var", "noise_var" (Durbin & Koopman 2012, ch. 2).

    ``y[t] = level[t] + e[t]``, ``level[t+1] = level[t] + w(level_var)``.

    Parameters
    ----------
    unit
        None: a row is a step. A unit of time ("s", "h", "D", ...): steps are as long as the times of the rows say,
        and "level_var" is per unit; see `ContinuousModel`.

    Examples
    --------
    >>> import statespace_em as sse
    >>> model = sse.designs.local_level().fit(sse.datasets.nile())
    >>> round(model.score(sse.datasets.nile()), 4)
    -632.5456
    >>> model.summary().loc[["level_var", "noise_var"], "value"].round(-1).tolist()
    [1470.0, 15100.0]

    A sensor that reports when it likes:

    >>> rows = sse.datasets.nile().iloc[[0, 1, 2, 5, 6, 11, *range(12, 100)]].rename_axis("year")
    >>> flow = sse.designs.local_level(unit="s").fit(rows)                 # numbers are taken as they are
    >>> flow.summary().loc["level_var", "value"].round(0).item()           # per year
    1777.0
    """
    return _design("local_level", {}, unit)


@_validate.called
def local_trend(*, unit: str | None = None) -> Structural:
    """Local linear trend plus noise: "level_var", "slope_var", "noise_var" (Harvey 1989, sec. 2.3).

    ``y[t] = level[t] + e[t]``, ``level[t+1] = level[t] + slope[t] + w(level_var)``, ``slope[t+1] = slope[t] +
    w(slope_var)``. With a ``unit`` of time, see `local_level`, the slope moves between the rows too: over a step h its
    noise enters the level with the variance ``slope_var h^3 / 3``.
    """
    return _design("local_trend", {}, unit)


@_validate.called
def smooth_trend(*, unit: str | None = None) -> Structural:
    """Integrated random walk plus noise: "slope_var", "noise_var"; with ``unit=`` an integrated Wiener process.

    `local_trend` without a disturbance of the level; its smoothed level is a cubic spline (Durbin & Koopman 2012, sec.
    3.9).
    """
    return _design("smooth_trend", {}, unit)


@_validate.called
def seasonal(
    period: float,
    kind: Literal["trigonometric", "dummy"] = "trigonometric",
    *,
    harmonics: int | None = None,
    unit: str | None = None,
) -> Structural:
    """Seasonal pattern that changes slowly, plus noise: "seasonal_var", "noise_var" (Harvey 1989, sec. 2.3).

    "trigonometric": harmonics j = 1, 2, ... turn by 2 pi j / period a row, each with disturbances of the one variance.
    "dummy": the sum of the seasonal effects over a period is w(seasonal_var).

    Parameters
    ----------
    period
        Whole rows; in continuous time, and beside a motion, units of time that need not be whole: the pattern turns
        with the time coordinate.
    kind
        "trigonometric" or "dummy"; the latter lives on rows only.
    harmonics
        How many; None takes all that rows one step apart can tell (in continuous time those slower than 2 units).
    unit
        As of `local_level`.
    """
    _check_period(period, unit)
    _validate.one_of("kind", kind, ("trigonometric", "dummy"))
    options: dict[str, Any] = {"period": int(period) if float(period).is_integer() else float(period), "kind": kind}
    if harmonics is not None:
        _validate.at_least("harmonics", harmonics, 1, whole=True)
        if kind == "dummy":
            raise ParameterError('harmonics is given, but kind="dummy" has none: take kind="trigonometric".')
        options["harmonics"] = int(harmonics)
    return _design("seasonal", options, unit)


@_validate.called
def cycle(period: float | None = None, *, unit: str | None = None) -> Structural:
    """Damped stochastic cycle plus noise: "cycle_damping", "cycle_period" (rows), "cycle_var", "noise_var".

    With frequency f = 2 pi / cycle_period, the pair (cycle, cycle*) is turned by f and multiplied by cycle_damping in
    every row, both with disturbances w(cycle_var) (Harvey 1989, sec. 2.3). ``period`` is where the search begins;
    None begins at several. With a ``unit`` of time it is a damped rotation in continuous time: damping and variance
    are per unit, and "cycle_time" is how long a swing takes to fade to 1 / e.
    """
    if period is not None:
        _check_period(period, unit)
    return _design("cycle", {"period": None if period is None else float(period)}, unit)


@_validate.called
def ar(p: int, *, unit: str | None = None) -> Structural:
    """Stationary autoregression without measurement noise: "ar1", ..., "arma_var"; exact likelihood.

    ``y[t] = ar1 y[t-1] + ... + arp y[t-p] + w(arma_var)``, with mean 0: add `constant` for another.

    With a ``unit`` of time, and in sums in continuous time, p is 1: the Ornstein-Uhlenbeck process, with "ar1" and
    "arma_var" per unit of time and "ar_time", after which its correlation is 1 / e. Beside a motion it is coloured
    measurement noise.
    """
    _validate.at_least("p", p, 0, whole=True)
    return _design("arma", {"p": int(p), "q": 0, "d": 0}, unit)


@_validate.called
def arma(p: int, q: int) -> StructuralModel:
    """Stationary autoregressive moving average: "ar1", ..., "ma1", ..., "arma_var"; exact likelihood.

    ``y[t] = ar1 y[t-1] + ... + w[t] + ma1 w[t-1] + ...`` with w ~ N(0, arma_var); the moving average is reported in its
    invertible form.

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


@_validate.called
def arima(p: int, d: int, q: int, seasonal: Sequence[int] | None = None) -> StructuralModel:
    """ARMA of the d-th difference (Durbin & Koopman 2012, sec. 3.4); the first d values are diffuse.

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
        if not isinstance(seasonal, Sequence) or len(seasonal) != 4:
            raise ParameterError(f"seasonal is {seasonal!r}, expected (P, D, Q, period).")
        for name, value, least in zip(("P", "D", "Q", "period"), seasonal, (0, 0, 0, 2)):
            _validate.at_least(f"{name} of seasonal", value, least, whole=True)
        options["seasonal"] = [int(value) for value in seasonal]
    return StructuralModel([("arma", options)])


@_validate.called
def regression(X: Any, *, drifting: bool = False, start: Literal["diffuse", "fixed"] = "diffuse") -> StructuralModel:
    """Regression on known columns, with coefficients that are fixed or drift as random walks ("<column>_var").

    Parameters
    ----------
    X
        Array (T, k), Series or DataFrame with the rows of y, and of its future where forecasts are wanted. One table
        serves several sequences; a dict or list of tables, a frame with two index levels or a DataArray with a dim
        of sequences has one for each, in which a coefficient has one variance and each sequence a value of its own.
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
    options = columns_of(X) | {"drifting": drifting, "start": start}
    return StructuralModel([("regression", options)])


@_validate.called
def constant(*, start: Literal["fixed", "diffuse"] = "fixed") -> StructuralModel:
    """A level that never moves, plus noise where nothing else has any; ``start`` as in `regression`."""
    _validate.one_of("start", start, ("fixed", "diffuse"))
    return StructuralModel([("constant", {"start": start})])


@_validate.called
def constant_velocity(dims: int | Sequence[str] = 2, **settings: Any) -> MotionModel:
    """Target whose velocity is a Wiener process: "acceleration_density" (y^2 / time^3), "noise_var" (y^2).

    The acceleration is white noise (Bar-Shalom, Li & Kirubarajan 2001, sec. 6.2); every step is discretised exactly.

    Parameters
    ----------
    dims
        Number of axes (1, 2 or 3), or their names.
    settings
        Of `MotionModel`: ``density``, ``noise``, ``sensors``, ``step``, ``unit``, ``initial`` and others.

    Notes
    -----
    A motion adds up with the other designs, in continuous time: every axis has states and values of its own, on rows
    at any times. ``constant_velocity(["east", "north"]) + ar(1)`` has measurement noise that is coloured ("ar1_east",
    "arma_var_east", ...), and with several sensors ``... + constant().on("gps")`` gives one of them a bias. Periods and
    variances are in units of time, not of rows.

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
    return _motion("constant_velocity", dims, settings)


@_validate.called
def constant_acceleration(dims: int | Sequence[str] = 2, **settings: Any) -> MotionModel:
    """Target whose acceleration is a Wiener process: "jerk_density" (y^2 / time^5), "noise_var" (y^2).

    Arguments as of `constant_velocity`.
    """
    return _motion("constant_acceleration", dims, settings)


@_validate.called
def coordinated_turn(rate: float, dims: int | Sequence[str] = 2, **settings: Any) -> MotionModel:
    """Target that turns at a known rate (radians per unit of time) in the plane of its first two axes.

    White acceleration disturbs it: "acceleration_density", "noise_var". A third axis has constant velocity. A positive
    rate turns from the first axis to the second. Settings as in `constant_velocity`.
    """
    return _motion("coordinated_turn", dims, settings, rate=rate)
