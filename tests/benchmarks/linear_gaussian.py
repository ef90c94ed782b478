"""Linear-Gaussian state-space models beside statsmodels, dynamax, pykalman and simdkalman."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

import statespace_em as sse
from benchmarks import simulate
from benchmarks.case import Case, Side, Work, at_least
from benchmarks.hidden_markov import em_side, sized
from benchmarks.simulate import Linear


def cases() -> list[Case]:
    """Rows of this area."""
    sizes, missing, read = "n=4, D=2, T=1e5", "20 % missing", "covariances read"
    peer = "statsmodels"
    return [
        Case(f"Kalman filter, {sizes}", peer, partial(_filter, 0.0), at_least(20)),
        Case(f"RTS smoother and lag-one, {sizes}", peer, partial(_smoother, 0.0), at_least(30)),
        Case("Kalman filter, n=4, D=2, T=1e6", peer, partial(_filter, 0.0, n_rows=1_000_000), section="more"),
        Case(f"Kalman filter, {sizes}, {read}", peer, partial(_filter, 0.0, read=True), section="more"),
        Case(f"RTS smoother and lag-one, {sizes}, {read}", peer, partial(_smoother, 0.0, read=True), section="more"),
        Case(f"Kalman filter, {sizes}, {missing}", peer, partial(_filter, 0.2), at_least(4)),
        Case(f"RTS smoother and lag-one, {sizes}, {missing}", peer, partial(_smoother, 0.2), at_least(6)),
        Case("linear-Gaussian EM iteration, n=4, D=2, T=1e4", "dynamax", _dynamax_em, at_least(50)),
        Case("linear-Gaussian EM iteration, n=4, D=2, T=1e4", "pykalman", _pykalman_em, at_least(1000)),
        Case("RTS smoother, 1000 x 500 rows, n=2", "simdkalman", _many, at_least(10)),
        Case(f"RTS smoother and lag-one, {sizes}", "dynamax", _dynamax_smoother, section="more"),
        Case("RTS smoother, n=4, D=2, T=1e4", "pykalman", _pykalman_smoother, section="more"),
    ]


def parameters(values: Linear) -> tuple[Any, Any]:
    """A model of ours and its parameters."""
    model = sse.LinearGaussianSSM(len(values.transition))
    return model, model.parameters(**values._asdict())


def em_start(n_rows: int, quick: bool) -> tuple[np.ndarray, Linear]:
    """Rows of the tracker, and parameters beside its own."""
    values = simulate.tracker()
    y = simulate.linear(values, sized(n_rows, quick))[0]
    return y, values._replace(process_cov=2.0 * values.process_cov, measurement_cov=0.5 * values.measurement_cov)


def _read(answer: Callable[[], xr.Dataset], missing: float, *, read: bool) -> tuple[Callable[[], xr.Dataset], str]:
    """Answer as it comes, or with every covariance written out; and what to say about it.

    Ours keeps equal covariances once and writes them out when they are read, unless nearly all of them differ.
    """
    if read:
        return lambda: answer().load(), "; with every covariance written out"
    return answer, "" if missing else "; equal covariances are kept once"


def _filter(missing: float, n_rows: int = 100_000, *, quick: bool, read: bool = False) -> Work:
    from benchmarks import statsmodels_models

    values = simulate.tracker()
    y = simulate.linear(values, sized(n_rows, quick), missing=missing)[0]
    model, params = parameters(values)
    theirs, method = statsmodels_models.filter_side(y, values)

    def numbers(known: xr.Dataset) -> dict[str, np.ndarray]:
        moments = {name: known[name].values for name in ("filtered", "filtered_cov", "predicted")}
        return {"log_likelihood": known["log_likelihood"].values.sum(), **moments}

    run, note = _read(lambda: model.filter(y, params), missing, read=read)
    return Work(Side(run, numbers), theirs, len(y), note=method + note)


def _our_smoother(y: Any, values: Linear) -> Side:
    model, params = parameters(values)

    def numbers(found: xr.Dataset) -> dict[str, np.ndarray]:
        cross_cov = found["cross_cov"].values[..., :-1, :, :]
        moments = {"mean": found["gamma"].values, "cov": found["cov"].values, "cross_cov": cross_cov}
        return {"log_likelihood": found["log_likelihood"].values, **moments}

    return Side(lambda: model.e_step(y, params, xi="sum"), numbers)


def _smoother(missing: float, *, quick: bool, read: bool = False) -> Work:
    from benchmarks import statsmodels_models

    values = simulate.tracker()
    y = simulate.linear(values, sized(100_000, quick), missing=missing)[0]
    theirs, method = statsmodels_models.smoother_side(y, values)
    ours = _our_smoother(y, values)
    run, note = _read(ours.run, missing, read=read)
    return Work(Side(run, ours.numbers), theirs, len(y), note=method + note)


def _dynamax_smoother(*, quick: bool) -> Work:
    from benchmarks import dynamax_models

    values = simulate.tracker()
    y = simulate.linear(values, sized(100_000, quick))[0]
    theirs = dynamax_models.smoother_side(y, values)
    return Work(_our_smoother(y, values), theirs, len(y), tolerance=1e-6, note="compiled before")


def _pykalman_smoother(*, quick: bool) -> Work:
    values = simulate.tracker()
    y = simulate.linear(values, sized(10_000, quick))[0]
    peer = _pykalman(values)
    ours = _our_smoother(y, values)
    return Work(
        Side(ours.run, lambda found: {name: ours.numbers(found)[name] for name in ("mean", "cov")}),
        Side(lambda: peer.smooth(y), lambda found: {"mean": found[0], "cov": found[1]}),
        len(y),
        note="theirs without lag-one",
    )


def _dynamax_em(*, quick: bool) -> Work:
    """Ten iterations of ours beside ten E-steps of theirs."""
    from benchmarks import dynamax_models

    n_iter = 10
    y, values = em_start(10_000, quick)
    model, start = parameters(values)
    ours, theirs = em_side(model, y, start, n_iter), dynamax_models.e_step_side(y, values)

    def sums(fitted: Any) -> dict[str, np.ndarray]:
        smoothed = fitted.e_step(y, start, xi="sum")
        mean, cov = smoothed["gamma"].values, smoothed["cov"].values
        square = mean.T @ mean + cov.sum(0)
        return {"log-likelihood": ours.numbers(fitted)["log-likelihoods"][0], "sum of s s'": square}

    return Work(
        Side(ours.run, sums),
        Side(lambda: [theirs.run() for _ in range(n_iter)], lambda found: theirs.numbers(found[0])),
        len(y) * n_iter,
        tolerance=1e-6,
        note="their E-step alone, compiled before",
    )


def _pykalman_em(*, quick: bool) -> Work:
    """Parameters after the same number of iterations; the last M-step of ours is not in its time, and is small."""
    n_iter = 5
    y, values = em_start(10_000, quick)
    model, start = parameters(values)
    names = {
        "transition": "transition_matrices", "observation": "observation_matrices",
        "process_cov": "transition_covariance", "measurement_cov": "observation_covariance",
        "initial_mean": "initial_state_mean",
    }  # fmt: skip

    def after(fitted: Any) -> dict[str, np.ndarray]:
        last = fitted.m_step(y, fitted.e_step(y))
        return {name: last[name].values for name in names}

    return Work(
        Side(em_side(model, y, start, n_iter).run, after),
        Side(
            lambda: _pykalman(values).em(y, n_iter=n_iter, em_vars=list(names.values())),
            lambda fitted: {name: getattr(fitted, theirs) for name, theirs in names.items()},
        ),
        len(y) * n_iter,
        note=f"{n_iter} iterations",
    )


def _pykalman(values: Linear) -> Any:
    from pykalman import KalmanFilter

    return KalmanFilter(
        values.transition, values.observation, values.process_cov, values.measurement_cov,
        initial_state_mean=values.initial_mean, initial_state_covariance=values.initial_cov,
    )  # fmt: skip


def _many(*, quick: bool) -> Work:
    from simdkalman import KalmanFilter

    values = simulate.trend()
    y = simulate.linear(values, 100 if quick else 500, 20 if quick else 1000)
    peer = KalmanFilter(values.transition, values.process_cov, values.observation, values.measurement_cov)
    series = xr.DataArray(y, dims=("sequence", "time", "feature"))
    ours = _our_smoother(series, values)

    def run() -> Any:
        start = {"initial_value": values.initial_mean, "initial_covariance": values.initial_cov}
        return peer.compute(y[:, :, 0], 0, smoothed=True, observations=False, **start).smoothed.states

    return Work(
        Side(ours.run, lambda found: {name: ours.numbers(found)[name] for name in ("mean", "cov")}),
        Side(run, lambda found: {"mean": found.mean, "cov": found.cov}),
        y.shape[0] * y.shape[1],
        note="theirs without lag-one",
    )
