"""A trend with a year's seasonal pattern that hardly changes and an unknown beginning, beside statsmodels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

import statespace_em as sse
from benchmarks.case import Case, Side, Work
from benchmarks.hidden_markov import sized

PERIOD, ROWS = 12, 10_000
LEVEL, SEASONAL, NOISE = 0.01, 1e-6, 1.0  # variances; the slope does not change, as many fits find
SERIES = 400  # rows of one that is fitted
BEGUN = 100  # rows after which their vague start, of a variance of 1e6, does as well as our diffuse one


def cases() -> list[Case]:
    """Rows of this area."""
    sizes = f"trend and seasonal({PERIOD}), diffuse, T=1e4"
    work = {"Kalman filter": _filter, "RTS smoother and lag-one": _smoother, "log-likelihood": _log_likelihood}
    return [
        Case(f"{name}, {sizes}", "statsmodels", partial(_beside, prepare), section="more")
        for name, prepare in work.items()
    ] + [Case(f"default fit, level and seasonal({PERIOD}), T={SERIES}", "statsmodels", _fits, section="more")]


def _fits(*, quick: bool) -> Work:
    """Each by its own defaults: ours from several starts and to the last digit, theirs from one."""
    from statsmodels.tsa.statespace.structural import UnobservedComponents

    rng, n_rows = np.random.default_rng(0), sized(SERIES, quick)
    y = 0.3 * rng.normal(size=n_rows).cumsum() + rng.normal(size=n_rows)
    y += 2.0 * np.sin(2.0 * np.pi * np.arange(n_rows) / PERIOD)
    model = sse.designs.local_level() + sse.designs.seasonal(PERIOD)
    peer = UnobservedComponents(y, "llevel", freq_seasonal=[{"period": PERIOD}], use_exact_diffuse=True)
    return Work(
        Side(lambda: model.fit(y), lambda found: {
            "variances": np.array([found.params_["measurement_cov"][0, 0], found.params_["process_cov"][0, 0]]),
        }),
        Side(lambda: peer.fit(disp=0), lambda found: {"variances": found.params[:2]}),
        n_rows, tolerance=1e-3, note="noise and level agree; theirs ends where its likelihood is flat",
    )  # fmt: skip


def _beside(prepare: Callable[[Any, xr.Dataset, np.ndarray], tuple[Side, Side, str]], *, quick: bool) -> Work:
    rng, n_rows = np.random.default_rng(0), sized(ROWS, quick)
    y = rng.normal(size=n_rows).cumsum() * np.sqrt(LEVEL) + rng.normal(size=n_rows) * np.sqrt(NOISE)
    y += np.sin(2.0 * np.pi * np.arange(n_rows) / PERIOD)
    model = sse.designs.local_trend() + sse.designs.seasonal(PERIOD)
    first = model.fit(y[:BEGUN], max_iter=2, n_starts=1, tol=0.0).params_
    variances = np.r_[LEVEL, 0.0, np.full(PERIOD - 1, SEASONAL)]
    cov, noise = (first["process_cov"].copy(data=np.diag(variances)), first["measurement_cov"].copy(data=[[NOISE]]))
    ours, theirs, note = prepare(model, first.assign(process_cov=cov, measurement_cov=noise), y)
    return Work(ours, theirs, n_rows, tolerance=1e-5, note=f"their start is vague; {note}")


def _filter(model: Any, params: xr.Dataset, y: np.ndarray) -> tuple[Side, Side, str]:
    from benchmarks import statsmodels_models

    peer, method = statsmodels_models.vague(y, params, smooths=False)
    return (
        Side(lambda: model.filter(y, params), lambda found: _later(
            filtered=found["filtered"], filtered_cov=found["filtered_cov"], log_likelihood=found["log_likelihood"],
        )),
        Side(peer.filter, lambda found: _later(
            filtered=found.filtered_state.T, filtered_cov=found.filtered_state_cov.transpose(2, 0, 1),
            log_likelihood=found.llf_obs,
        )),
        method,
    )  # fmt: skip


def _smoother(model: Any, params: xr.Dataset, y: np.ndarray) -> tuple[Side, Side, str]:
    from benchmarks import statsmodels_models

    peer, method = statsmodels_models.vague(y, params, smooths=True)
    return (
        Side(lambda: model.e_step(y, params, xi="sum"), lambda found: _later(
            mean=found["gamma"], cov=found["cov"], cross_cov=found["cross_cov"][:-1],
        )),
        Side(peer.smooth, lambda found: _later(
            mean=found.smoothed_state.T, cov=found.smoothed_state_cov.transpose(2, 0, 1),
            cross_cov=found.smoothed_state_autocov.transpose(2, 1, 0)[:-1],
        )),
        method,
    )  # fmt: skip


def _log_likelihood(model: Any, params: xr.Dataset, y: np.ndarray) -> tuple[Side, Side, str]:
    """Starts differ by a constant, which the first rows tell."""
    from benchmarks import statsmodels_models

    peer, method = statsmodels_models.vague(y, params, smooths=False)
    constant = peer.loglike_rows(BEGUN) - model.filter(y, params)["log_likelihood"].values[:BEGUN].sum()
    return (
        Side(lambda: model.score(y, params), lambda found: {"log_likelihood": found + constant}),
        Side(peer.log_likelihood, lambda found: {"log_likelihood": found}),
        method,
    )


def _later(**values: Any) -> dict[str, np.ndarray]:
    return {name: np.asarray(value)[BEGUN:] for name, value in values.items()}
