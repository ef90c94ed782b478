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

ROWS = 100_000  # where the number of rows is not what grows
MANY = 1_000_000  # for several sequences and threads, and they share the work
SIMULATED = 100_000  # rows of a linear-Gaussian series that are drawn; longer ones repeat them
PASSED = 1_000_000  # rows that the iterations of a fit pass over at least, so that they are what it costs
SEQUENCES = (1, 10, 100, 1000, 10_000)
HMM, LINEAR = "HMM EM iteration", "linear-Gaussian EM iteration"


def cases() -> list[Case]:
    """Rows of this area."""
    memory = Target("megabytes", 1500.0)
    return [
        *(_grown(f"{HMM}, K=4, D=1, T=1e{n}", _chain, 10**n) for n in (4, 5, 6, 7)),
        *(_grown(f"{HMM}, T=1e5, D=1, K={k}", _chain, ROWS, n_states=k) for k in (2, 4, 8, 16, 32, 64)),
        *(_grown(f"{HMM}, T=1e5, K=4, D={d}", _chain, ROWS, n_features=d) for d in (2, 4, 8, 16)),
        *(_grown(f"{HMM}, T=1e5, K=4, D={d} full", _chain, ROWS, 4, d, "full") for d in (2, 4, 8, 16)),
        *(_grown(f"{HMM}, K=4, D=1, {s} x {MANY // s} rows", _chain, MANY, n_sequences=s) for s in SEQUENCES),
        *(_grown(f"{HMM}, T=1e6, K=4, D=1, threads={n}", _chain, MANY, threads=n) for n in (1, 2)),
        *(_grown(f"{HMM}, T=1e6, K=4, D=4, threads={n}", _chain, MANY, 4, 4, threads=n) for n in (1, 2)),
        *(_grown(f"{HMM}, K=4, D=1, 1000 x 1000 rows, threads={n}", _chain, MANY, n_sequences=1000, threads=n)
          for n in (1, 2)),
        *(_grown(f"{LINEAR}, n=4, D=2, T=1e{n}", _linear, 10**n) for n in (4, 5, 6, 7)),
        *(_grown(f"{LINEAR}, T=1e5, D=2, n={n}", _linear, ROWS, n) for n in (1, 2, 8, 16)),
        *(_grown(f"{LINEAR}, T=1e5, n=4, D={d}", _linear, ROWS, 4, d) for d in (1, 4, 8, 16)),
        *(_grown(f"{LINEAR}, n=4, D=2, {s} x {ROWS // s} rows", _linear, ROWS, n_series=s) for s in SEQUENCES),
        *(_grown(f"{LINEAR}, n=4, D=2, T=1e6, threads={n}", _linear, MANY, threads=n) for n in (1, 2)),
        *(_grown(f"{LINEAR}, n=4, D=2, 1000 x 1000 rows, threads={n}", _linear, MANY, n_series=1000, threads=n)
          for n in (1, 2)),
        *(_grown(f"fit_many, 200 x 500 rows, GaussianHMM(2), threads={n}", _many, 200, threads=n) for n in (1, 2)),
        Case("fit, T=1e7, K=4, D=1: peak memory", None, _largest, memory, "growth"),
    ]  # fmt: skip


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


def _linear(
    n_rows: int,
    n_states: int = 4,
    n_features: int = 2,
    *,
    n_series: int = 1,
    threads: int | None = None,
    quick: bool,
) -> Work:
    values = simulate.stable(n_states, n_features)
    n_rows = max(600, 20 * n_series) if quick else n_rows
    length = n_rows // n_series
    drawn = simulate.linear(values, min(length, SIMULATED), n_series)
    y = np.tile(drawn, (1, length // drawn.shape[1], 1))
    model, start = parameters(values)
    return _fitted(model, y[0] if n_series == 1 else list(y), start, n_rows, threads)


def _many(n_series: int, *, threads: int, quick: bool) -> Work:
    """Whole fits of short series, from one start each."""
    y = simulate.gaussian(500 * n_series, 2, 1).reshape(n_series, 500)[: 4 if quick else None]
    model = sse.GaussianHMM(2, "diagonal")
    run = partial(sse.fit_many, model, dict(enumerate(y)), threads=threads, n_starts=1)
    return Work(Side(run, lambda fits: {}), note="1 start each")


def _parts(y: np.ndarray, n_sequences: int) -> Any:
    return y if n_sequences == 1 else np.split(y, n_sequences)


def _fitted(model: Any, y: Any, start: Any, n_rows: int, threads: int | None) -> Work:
    n_iter = max(3, PASSED // n_rows)
    return Work(em_side(model, y, start, n_iter, threads=threads), rows=n_rows * n_iter)


def _largest(*, quick: bool) -> Work:
    """A fit from guesses, so that their memory counts too."""
    y = simulate.gaussian(2_000 if quick else 10_000_000, 4, 1)
    model = sse.GaussianHMM(4, "diagonal")
    run = partial(model.fit, y, n_starts=2, max_iter=2, tol=0.0, accelerate=False)
    return Work(Side(run, lambda fitted: {}), note="2 starts, 2 E-steps each, data included")
