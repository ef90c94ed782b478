"""Hidden Markov models beside hmmlearn and dynamax."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import statespace_em as sse
from benchmarks import hmmlearn_models, simulate
from benchmarks.case import Case, Shorter, Side, Work, at_least
from statespace_em import _threads, em

HMMLEARN = "hmmlearn"


def cases() -> list[Case]:
    """Rows of this area."""
    found = [
        _case("HMM EM iteration, T=1e6, K=3, D=1", 5, _gaussian, 1_000_000, 3, 1, "diagonal", 5),
        _case("HMM EM iteration, T=1e6, K=10, D=4", 10, _gaussian, 1_000_000, 10, 4, "diagonal", 3),
        _case("HMM EM iteration, T=1e5, K=50, D=4 full", 15, _gaussian, 100_000, 50, 4, "full", 3),
    ]
    found += [
        _case(f"HMM EM iteration, 50 x 100 rows, K={k}, D=1", 5, _gaussian, 5_000, k, 1, "diagonal", 50, length=100)
        for k in (2, 4, 6, 8, 10)
    ]
    best, each = partial(_restarts, _fit), partial(_restarts, _climb_each)
    found += [
        _case("HMM EM iteration, T=1000, K=2, D=1", 3, _gaussian, 1_000, 2, 1, "diagonal", 50),
        _case("Poisson HMM EM iteration, T=1e6, K=4", 5, _poisson, 1_000_000, 4, 5),
        _case("categorical HMM EM iteration, T=1e6, K=5, M=20", 5, _categorical, 1_000_000, 5, 20, 5),
        _case("Viterbi, T=1e6, K=3", 4, _viterbi, 1_000_000, 3),
        _case("Viterbi, T=1e6, K=10", 4, _viterbi, 1_000_000, 10),
        _case("simulate 1e5 rows, K=3", 50, _simulation, 100_000, 3),
        Case("IBM daily returns, 3 states, 20 restarts", HMMLEARN, best, at_least(10)),
        Case("IBM daily returns, 20 restarts, each to its own maximum", HMMLEARN, each, section="more"),
        Case("HMM posteriors, T=1e6, K=3, D=1", HMMLEARN, partial(_posteriors, 1_000_000, 3), section="more"),
        Case("HMM E-step, T=1e5, K=3, D=1", "dynamax", partial(_dynamax, 100_000, 3, 1), section="more"),
        Case("HMM E-step, T=1e5, K=10, D=4", "dynamax", partial(_dynamax, 100_000, 10, 4), section="more"),
    ]
    return found


def _case(work: str, ratio: float, prepare: Any, n_rows: int, *sizes: Any, **options: Any) -> Case:
    return Case(work, HMMLEARN, partial(prepare, n_rows, *sizes, **options), at_least(ratio))


def sized(n_rows: int, quick: bool) -> int:
    """Rows to take."""
    return min(n_rows, 600) if quick else n_rows


def gaussian_start(n_states: int, n_features: int, covariance: str) -> tuple[Any, Any]:
    """A model of ours and parameters beside those of the data, from where each iteration has work to do."""
    model = sse.GaussianHMM(n_states, covariance)  # type: ignore[arg-type]
    mean = simulate.means(n_states, n_features) + 0.3
    own = {"var": np.full((n_states, n_features), 1.5)}
    if covariance == "full":
        own = {"cov": np.broadcast_to(1.5 * np.eye(n_features), (n_states, n_features, n_features))}
    return model, model.parameters(**simulate.chain(n_states)._asdict(), mean=mean, **own)


def em_side(model: Any, y: Any, start: Any, n_iter: int, *, threads: int | None = None) -> Side:
    """Plain EM of ours: as many E-steps as asked for, and nothing that would end it earlier."""
    return Side(
        lambda: model.fit(y, start=start, max_iter=n_iter, tol=0.0, accelerate=False, threads=threads),
        lambda fitted: {"log-likelihoods": fitted.trace_["log_likelihood"].to_numpy()},
    )


def _em(model: Any, ours: Any, start: Any, peer: Any, theirs: np.ndarray, lengths: Any, n_iter: int) -> Work:
    """Both sides make ``n_iter`` iterations from the same parameters."""
    iterated = hmmlearn_models.em_side(peer, theirs, lengths, start)
    few = max(n_iter // 5, 1)
    again = type(model)(**model.get_params())  # for a fit changes the model, whose trace is still to be compared
    shorter = Shorter(
        em_side(again, ours, start, few), hmmlearn_models.em_side(peer, theirs, lengths, start, n_iter=few),
        n_iter - few,
    )  # fmt: skip
    note = f"{n_iter} iterations, log-likelihoods of each"
    return Work(em_side(model, ours, start, n_iter), iterated, len(theirs) * n_iter, note=note, shorter=shorter)


def _gaussian(
    n_rows: int, n_states: int, n_features: int, covariance: str, n_iter: int, *, length: int | None = None, quick: bool
) -> Work:
    y = simulate.gaussian(sized(n_rows, quick), n_states, n_features)
    model, start = gaussian_start(n_states, n_features, covariance)
    parts: Any = y if length is None else list(y.reshape(-1, length, n_features))
    lengths = None if length is None else [length] * len(parts)
    peer = hmmlearn_models.gaussian(n_states, covariance, n_iter=n_iter, tol=-np.inf)
    return _em(model, parts, start, peer, y, lengths, n_iter)


def _poisson(n_rows: int, n_states: int, n_iter: int, *, quick: bool) -> Work:
    y = simulate.counts(sized(n_rows, quick), n_states)
    model = sse.PoissonHMM(n_states)
    rate = 3.0 + 4.0 * np.arange(n_states)[:, None]
    start = model.parameters(**simulate.chain(n_states)._asdict(), rate=rate)
    return _em(model, y, start, hmmlearn_models.poisson(n_states, n_iter), y[:, None], None, n_iter)


def _categorical(n_rows: int, n_states: int, n_symbols: int, n_iter: int, *, quick: bool) -> Work:
    y = simulate.symbols(sized(n_rows, quick), n_states, n_symbols)
    model = sse.CategoricalHMM(n_states, symbols=range(n_symbols))
    prob = 0.8 * simulate.symbol_probabilities(n_states, n_symbols) + 0.2 / n_symbols
    start = model.parameters(**simulate.chain(n_states)._asdict(), prob=prob)
    return _em(model, y, start, hmmlearn_models.categorical(n_states, n_iter), y[:, None], None, n_iter)


def _viterbi(n_rows: int, n_states: int, *, quick: bool) -> Work:
    y = simulate.gaussian(sized(n_rows, quick), n_states, 1)
    model, params = gaussian_start(n_states, 1, "diagonal")
    peer = hmmlearn_models.at(hmmlearn_models.gaussian(n_states, "diagonal"), params)
    return Work(
        Side(lambda: model.decode(y, params), lambda path: {"path": path.values, "log_prob": path.log_prob.values}),
        Side(lambda: peer.decode(y), lambda found: {"path": found[1], "log_prob": found[0]}),
        len(y),
    )


def _posteriors(n_rows: int, n_states: int, *, quick: bool) -> Work:
    y = simulate.gaussian(sized(n_rows, quick), n_states, 1)
    model, params = gaussian_start(n_states, 1, "diagonal")
    peer = hmmlearn_models.at(hmmlearn_models.gaussian(n_states, "diagonal"), params)
    return Work(
        Side(lambda: model.e_step(y, params, xi="sum"), _gamma),
        Side(lambda: peer.score_samples(y), lambda found: {"log_likelihood": found[0], "gamma": found[1]}),
        len(y),
    )


def _gamma(posterior: Any) -> dict[str, np.ndarray]:
    return {"log_likelihood": posterior.log_likelihood.values, "gamma": posterior.gamma.values}


def _simulation(n_rows: int, n_states: int, *, quick: bool) -> Work:
    """Random numbers differ; shares of the states and moments of y agree within what chance allows."""
    n_rows = sized(n_rows, quick)
    model, params = gaussian_start(n_states, 1, "diagonal")
    peer = hmmlearn_models.at(hmmlearn_models.gaussian(n_states, "diagonal"), params)

    def moments(states: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
        shares = np.bincount(states, minlength=n_states) / len(states)
        residual = y[:, 0] - params["mean"].values[states, 0]
        stays = (states[1:] == states[:-1]).mean()
        return {"shares": shares, "stays": stays, "mean": residual.mean(), "variance": residual.var()}

    return Work(
        Side(
            lambda: model.sample(n_rows, params, seed=1), lambda drawn: moments(drawn.state.values, drawn["y"].values)
        ),
        Side(lambda: peer.sample(n_rows, random_state=1), lambda drawn: moments(drawn[1], drawn[0])),
        n_rows,
        tolerance=0.3 if quick else 0.05,
        note="moments of the draws",
    )


def _restarts(ours: Callable[[Any, int], Side], *, quick: bool) -> Work:
    """Both sides climb from 20 random starts to the same maximum, within 1e-6 nats."""
    n_starts, nats = (4, 1e-3) if quick else (20, 1e-6)
    returns = 100 * sse.datasets.stocks()["log_return"]["IBM"]
    y = returns.to_numpy()[:, None]
    best = sse.GaussianHMM(3, "diagonal").fit(returns, n_starts=n_starts).score(returns)
    tol = hmmlearn_models.tolerance_to_reach(y, 3, n_starts, best - nats)
    return Work(
        ours(returns, n_starts),
        Side(
            lambda: hmmlearn_models.best_of_restarts(y, 3, n_starts, tol),
            lambda log_likelihood: {"log-likelihood": log_likelihood},
        ),
        tolerance=nats / (1.0 + abs(best)),
        note=f"{n_starts} starts each, theirs with tol={tol:g}",
    )


def _fit(returns: Any, n_starts: int) -> Side:
    """Fit as users do: each start gets a short run, and only the best are led to the end."""
    model = sse.GaussianHMM(3, "diagonal")
    return Side(
        lambda: model.fit(returns, n_starts=n_starts),
        lambda fitted: {"log-likelihood": fitted.trace_["log_likelihood"].iloc[-1]},
    )


def _climb_each(returns: Any, n_starts: int) -> Side:
    """Leave no start before its own maximum."""
    model = sse.GaussianHMM(3, "diagonal").fit(returns, n_starts=1)
    core, _, batch, *_ = model._prepare(returns, None)

    def climb() -> list[Any]:
        starts = core.starts(batch, n_starts, np.random.default_rng(0), {})
        return _threads.run([partial(em.run_em, core, batch, start) for start in starts])

    def numbers(ends: list[Any]) -> dict[str, np.ndarray]:
        assert {end.status for end in ends} == {"converged"}  # the gain still to come is below 1e-8 nats
        return {"log-likelihood": np.array(max(end.objective for end in ends))}

    return Side(climb, numbers)


def _dynamax(n_rows: int, n_states: int, n_features: int, *, quick: bool) -> Work:
    from benchmarks import dynamax_models

    y = simulate.gaussian(sized(n_rows, quick), n_states, n_features)
    model, params = gaussian_start(n_states, n_features, "diagonal")
    return Work(
        Side(lambda: model.e_step(y, params, xi="sum"), _posterior_and_pairs),
        dynamax_models.chain_side(y, params),
        len(y),
        note="compiled before",
    )


def _posterior_and_pairs(posterior: Any) -> dict[str, np.ndarray]:
    return {**_gamma(posterior), "xi": posterior.xi.values}
