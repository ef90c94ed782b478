"""One state more, or not? The likelihood ratio against its distribution under the smaller model."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from statespace_em import _validate
from statespace_em.compare.criteria import check_same
from statespace_em.compare.rows import table_of
from statespace_em.errors import ConvergenceWarning, ParameterError
from statespace_em.labels import show


def likelihood_ratio_bootstrap(
    smaller: Any, larger: Any, y: Any, *, n_replicates: int = 99, seed: int = 0, fit: Mapping[str, Any] | None = None
) -> xr.Dataset:
    """Test K states against more by the parametric bootstrap (McLachlan 1987).

    Twice the difference of the log-likelihoods has no chi-squared distribution here: under K states the extra one
    is not identified. So its distribution is simulated: draw from the smaller fit, with the lengths and the missing
    entries of y, and fit both models to each draw.

    Parameters
    ----------
    smaller, larger
        Models of the same family fitted to y, the first nested in the second.
    y
        What both were fitted to, without known states or weights.
    n_replicates
        Number of draws; the smallest p-value there can be is 1 / (n_replicates + 1).
    seed
        Of the draws.
    fit
        Options of the fits, such as ``{"n_starts": 3}``.

    Returns
    -------
    xarray.Dataset
        ``statistic``, ``p_value``, and the ``simulated`` statistics (draw), in nats times 2.

    Examples
    --------
    >>> import statespace_em as sse
    >>> quakes = sse.datasets.earthquakes()
    >>> one, two = (sse.PoissonHMM(k).fit(quakes) for k in (1, 2))
    >>> test = sse.compare.likelihood_ratio_bootstrap(one, two, quakes, n_replicates=19, fit={"n_starts": 2})
    >>> test.statistic.round(2).item(), test.p_value.item()
    (100.08, 0.05)
    """
    _validate.at_least("n_replicates", n_replicates, 1, whole=True)
    _validate.at_least("seed", seed, 0, whole=True)
    remedy = "fit both to y alone, for draws are simulated without known states and weights"
    check_same({"smaller": smaller, "larger": larger}, y, remedy=remedy)
    if not smaller.n_parameters_ < larger.n_parameters_:
        raise ParameterError(
            f"the smaller model has {smaller.n_parameters_} free parameters, the larger {larger.n_parameters_}: "
            "give the one with fewer states first."
        )
    if type(smaller) is not type(larger) or smaller._schema().parameters != larger._schema().parameters:
        raise ParameterError(
            f"the models are {show(type(smaller).__name__)} and {show(type(larger).__name__)} of different families: "
            "the smaller must be a special case of the larger."
        )
    batch, labels, symbols = smaller._read(y, smaller.params_)
    rng = np.random.default_rng(seed)
    options = dict(fit or {})

    def ratio(drawn: Any) -> float:
        scores = []
        for model in (smaller, larger):
            fresh = type(model)(**model.get_params()).fit(drawn, **options)
            scores.append(float(fresh.score(drawn)))
        return 2.0 * (scores[1] - scores[0])

    def draw() -> Any:
        parts = {}
        for i, (key, begin, end) in enumerate(zip(labels.keys, batch.starts[:-1], batch.starts[1:])):
            values = smaller._simulate_like(labels, i, smaller.params_, int(rng.integers(2**31)))["y"]
            codes = np.asarray(values.values) if symbols is None else _codes(values.values, symbols)
            codes = np.where(np.isnan(batch.y[begin:end]), np.nan, codes.astype(float))
            parts[key] = table_of(codes, labels.features, labels.times[i], symbols)
        return parts if labels.sequence is not None else next(iter(parts.values()))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of single draws: the tolerance is the caller's choice
        simulated = np.array([ratio(draw()) for _ in range(n_replicates)])
    statistic = 2.0 * (larger.score(y) - smaller.score(y))
    p_value = (1.0 + (simulated >= statistic).sum()) / (n_replicates + 1.0)
    return xr.Dataset({"statistic": statistic, "p_value": p_value, "simulated": ("draw", simulated)})


def _codes(values: Any, symbols: list[Any]) -> Any:
    place = {symbol: i for i, symbol in enumerate(symbols)}
    return np.vectorize(lambda symbol: place[symbol], otypes=[float])(values)
