"""statsmodels with whichever of its filters and smoothers is the fastest here."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from benchmarks.case import Side
from benchmarks.simulate import Linear

FILTERS = ("filter_conventional", "filter_univariate")
SMOOTHERS = {
    "filter_conventional": ("smooth_conventional", "smooth_classical", "smooth_alternative"),
    "filter_univariate": ("smooth_univariate",),
}
OUTPUTS = ("smoother_state", "smoother_state_cov", "smoother_state_autocov")  # no disturbances: they are not asked for


def filter_side(y: np.ndarray, values: Linear) -> tuple[Side, str]:
    """Predicted and filtered moments; the name of the method."""
    models = {name: _model(y, values, name) for name in FILTERS}
    name = min(models, key=lambda name: _seconds(models[name].filter))
    return Side(models[name].filter, _filtered), name


def smoother_side(y: np.ndarray, values: Linear) -> tuple[Side, str]:
    """Smoothed moments and lag-one covariances; the name of the method."""
    models = {(f, s): _model(y, values, f, s) for f in FILTERS for s in SMOOTHERS[f]}
    name = min(models, key=lambda name: _seconds(models[name].smooth))
    return Side(models[name].smooth, _smoothed), name[1]


class Vague(NamedTuple):
    """A model with a vague start: its filter, its smoother, and its log-likelihood."""

    filter: Callable[[], Any]
    smooth: Callable[[], Any]
    log_likelihood: Callable[[], float]
    loglike_rows: Callable[[int], float]  # of the first rows


def vague(y: np.ndarray, params: Any, *, smooths: bool) -> tuple[Vague, str]:
    """Return a model with these matrices that begins as `UnobservedComponents` does; the name of the method."""
    names = Linear._fields[:4]
    values = Linear(*(params[name].values for name in names), np.zeros(params.sizes["state"]), np.zeros((0, 0)))
    methods = [(f, s) for f in FILTERS for s in SMOOTHERS[f]] if smooths else [(f, None) for f in FILTERS]
    models = {method: _model(y[:, None], values, *method) for method in methods}
    work = {method: model.smooth if smooths else model.filter for method, model in models.items()}
    best = min(work, key=lambda method: _seconds(work[method]))
    model = models[best]

    def loglike_rows(n_rows: int) -> float:
        return float(model.loglikeobs()[:n_rows].sum())

    return Vague(model.filter, model.smooth, model.loglike, loglike_rows), best[1] or best[0]


def _filtered(found: Any) -> dict[str, np.ndarray]:
    return {
        "log_likelihood": found.llf,
        "filtered": found.filtered_state.T,
        "filtered_cov": found.filtered_state_cov.transpose(2, 0, 1),
        "predicted": found.predicted_state.T[:-1],
    }


def _smoothed(found: Any) -> dict[str, np.ndarray]:
    return {
        "log_likelihood": found.llf,
        "mean": found.smoothed_state.T,
        "cov": found.smoothed_state_cov.transpose(2, 0, 1),
        "cross_cov": found.smoothed_state_autocov.transpose(2, 1, 0)[:-1],
    }


def _model(y: np.ndarray, values: Linear, filtering: str, smoothing: str | None = None) -> Any:
    from statsmodels.tsa.statespace.kalman_smoother import KalmanSmoother

    n_features, n_states = values.observation.shape
    model = KalmanSmoother(k_endog=n_features, k_states=n_states)
    model.bind(np.array(y))
    model["transition"], model["state_cov"] = values.transition, values.process_cov
    model["selection"] = np.eye(n_states)
    model["design"], model["obs_cov"] = values.observation, values.measurement_cov
    if len(values.initial_cov):
        model.initialize_known(values.initial_mean, values.initial_cov)
    else:
        model.initialize_approximate_diffuse()
    model.set_filter_method(0, **{filtering: True})
    if smoothing is not None:
        model.set_smooth_method(0, **{smoothing: True})
        model.set_smoother_output(0, **dict.fromkeys(OUTPUTS, True))
    return model


def _seconds(run: Any) -> float:
    """Shortest processor time of a few runs, so that what else runs on the machine does not choose the method."""
    seconds = []
    for _ in range(4):
        begin = time.process_time()
        run()
        seconds.append(time.process_time() - begin)
    return min(seconds)
