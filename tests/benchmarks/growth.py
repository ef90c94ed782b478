"""How the cost of ours grows with the size of the work; nobody is beside it."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

import statespace_em as sse
from benchmarks import simulate
from benchmarks.case import Case, Side, Target, Work
from benchmarks.hidden_markov import em_side, gaussian_start
from benchmarks.linear_gaussian import parameters

ROWS = 1_000_000
ITERATIONS = 3


def cases() -> list[Case]:
    """Rows of this area."""
    found = [_grown(f"HMM EM iteration, K=4, D=1, T={n:.0e}", _chain, n) for n in (10**4, 10**5, 10**6, 10**7)]
    found += [_grown(f"HMM EM iteration, T=1e6, D=1, K={k}", _chain, ROWS, n_states=k) for k in (2, 4, 8, 16, 32, 64)]
    found += [_grown(f"HMM EM iteration, T=1e6, K=4, D={d}", _chain, ROWS, n_features=d) for d in (1, 2, 4, 8, 16)]
    found += [_grown(f"HMM EM iteration, T=1e6, K=4, D={d} full", _chain, ROWS, 4, d, "full") for d in (2, 4, 8, 16)]
    found += [
        _grown(f"HMM EM iteration, {s} x {ROWS // s} rows, K=4, D=1", _chain, ROWS, n_sequences=s)
        for s in (1, 10, 100, 1000, 10_000)
    ]
    found += [_grown(f"HMM EM iteration, T=1e6, K=4, D=4, threads={n}", _chain, ROWS, 4, 4, threads=n) for n in (1, 2)]
    found += [
        _grown(f"HMM EM iteration, 100 x 1e4 rows, K=4, D=1, threads={n}", _chain, ROWS, n_sequences=100, threads=n)
        for n in (1, 2)
    ]
    found += [
        _grown(f"linear-Gaussian EM iteration, 4 states, T={n:.0e}", _linear, n, 4) for n in (10**4, 10**5, 10**6)
    ]
    found += [_grown(f"linear-Gaussian EM iteration, T=1e5, {n} states", _linear, 10**5, n) for n in (1, 2, 4, 8, 16)]
    found += [
        _grown(f"linear-Gaussian EM iteration, {s} x {10**5 // s} rows, 4 states", _linear, 10**5, 4, n_series=s)
        for s in (1, 10, 100, 1000, 10_000)
    ]
    found += [
        _grown(f"linear-Gaussian EM iteration, 100 x 1e3 rows, threads={n}", _linear, 10**5, 4, n_series=100, threads=n)
        for n in (1, 2)
    ]
    memory = Target("megabytes", 1500.0)
    return [*found, Case("fit, T=1e7, K=4, D=1: peak memory", None, _largest, memory, "growth")]


def _grown(work: str, prepare: Any, *sizes: Any, **options: Any) -> Case:
    return Case(work, None, partial(prepare, *sizes, **options), section="growth")


def _chain(
    n_rows: int,
    n_states: int = 4,
    n_features: int = 1,
    covariance: str = "diagonal",
    *,
    n_sequences: int = 1,
    threads: int | None = None,
    quick: bool,
) -> Work:
    n_rows = max(600, 20 * n_sequences) if quick else n_rows
    y = simulate.gaussian(n_rows, n_states, n_features)
    model, start = gaussian_start(n_states, n_features, covariance)
    return _fitted(model, _parts(y, n_sequences), start, n_rows, threads)


def _linear(n_rows: int, n_states: int, *, n_series: int = 1, threads: int | None = None, quick: bool) -> Work:
    values = simulate.stable(n_states, max(1, n_states // 2))
    n_rows = max(600, 20 * n_series) if quick else n_rows
    y = simulate.linear(values, n_rows // n_series, n_series)
    model, start = parameters(values)
    return _fitted(model, y[0] if n_series == 1 else list(y), start, n_rows, threads)


def _parts(y: np.ndarray, n_sequences: int) -> Any:
    return y if n_sequences == 1 else np.split(y, n_sequences)


def _fitted(model: Any, y: Any, start: Any, n_rows: int, threads: int | None) -> Work:
    return Work(em_side(model, y, start, ITERATIONS, threads=threads), rows=n_rows * ITERATIONS)


def _largest(*, quick: bool) -> Work:
    """A fit from guesses, so that their memory counts too."""
    y = simulate.gaussian(2_000 if quick else 10_000_000, 4, 1)
    model = sse.GaussianHMM(4, "diagonal")
    run = partial(model.fit, y, n_starts=2, max_iter=2, tol=0.0, accelerate=False)
    return Work(Side(run, lambda fitted: {}), note="2 starts, 2 E-steps each, data included")
