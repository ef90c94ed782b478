"""Information criteria of several fits of the same data."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from statespace_em import _validate
from statespace_em.compare.walking import walk_forward
from statespace_em.data import fingerprint
from statespace_em.errors import DataError, DataWarning, NotFittedError, ParameterError
from statespace_em.labels import listed, show

DISCRETE = ("count", "category")


def table(
    models: Mapping[Any, Any],
    y: Any,
    *,
    states: Any = None,
    weights: Any = None,
    log_score: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Compare fits of the same data, one row a fit; of the criteria lower is better.

    Parameters
    ----------
    models
        Fitted models by name; hidden Markov models, mixtures and linear-Gaussian models may be mixed.
    y
        What all of them were fitted to.
    states, weights
        Known states and weights that all of them were fitted with.
    log_score
        Options of `walk_forward`, such as ``{"refit": "YE", "min_train": 500}``, to add the rolling out-of-sample
        score; each model is refitted as often as they say.

    Returns
    -------
    pandas.DataFrame
        Indexed by name, with columns

        ``log_likelihood``
            nats;
        ``n_parameters``
            what the fit was free to change: frozen, tied and structurally zero entries and, in a linear-Gaussian
            model, the arbitrary basis of its states do not count;
        ``aic``, ``aicc``
            Akaike (1974); Hurvich & Tsai (1989), infinite where rows are too few for it;
        ``bic``, ``hq``
            Schwarz (1978); Hannan & Quinn (1979). The number of rows is that of rows with any entry seen, each
            as often as its weight says;
        ``icl``
            integrated completed likelihood: BIC with the likelihood of y together with its most probable states, the
            Viterbi path (Biernacki, Celeux & Govaert 2000; for hidden Markov models Celeux & Durand 2008). It favours
            states that can be told apart; NaN where states are not discrete;
        ``status``
            how the fit ended;
        ``log_score``
            if asked for: mean of log p(y_t | rows before) in nats a row, over the rows that all models predicted
            out of sample; higher is better.

    Raises
    ------
    DataError
        If a model was fitted to other data, other columns, or with other known states or weights than the rest.
    NotFittedError
        If a model was not fitted.

    Warns
    -----
    DataWarning
        If models of counts or symbols stand beside models of real numbers: a probability is not a density.

    Examples
    --------
    >>> import statespace_em as sse
    >>> quakes = sse.datasets.earthquakes()
    >>> fits = sse.compare.fit_each(sse.PoissonHMM, [1, 2, 3], quakes)
    >>> sse.compare.table(fits, quakes)[["n_parameters", "bic"]].round(2)
       n_parameters     bic
    1             1  788.51
    2             5  707.12
    3            11  708.46
    """
    if not isinstance(models, Mapping) or not models:
        raise ParameterError(f"models is {models!r:.60}, expected a dict of fitted models by name.")
    said = {"states": states, "weights": weights}
    check_same(models, y, states, weights)
    rows = {name: _row(model, y, {k: v for k, v in said.items() if v is not None}) for name, model in models.items()}
    found = pd.DataFrame.from_dict(rows, orient="index", columns=list(next(iter(rows.values()))))
    return found if log_score is None else found.assign(log_score=_log_scores(models, y, {**said, **log_score}))


def fit_each(
    build: Callable[[int], Any] | Mapping[str, Callable[[int], Any]],
    states: Iterable[int],
    y: Any,
    **options: Any,
) -> dict[Hashable, Any]:
    """Fit models with several numbers of states, of one or of several families.

    Parameters
    ----------
    build
        What makes a model of a number of states, such as a class; or several of these by name.
    states
        The numbers of states.
    y
        Observations.
    options
        Of `fit`.

    Returns
    -------
    dict
        Fitted models by number of states; of several families by "name, number".

    Examples
    --------
    >>> import statespace_em as sse
    >>> waiting = sse.datasets.old_faithful(table="haerdle")["waiting"]
    >>> families = {"own": lambda k: sse.GaussianHMM(k, "full"), "shared": lambda k: sse.GaussianHMM(k, "tied")}
    >>> list(sse.compare.fit_each(families, [1, 2], waiting))
    ['own, 1', 'own, 2', 'shared, 1', 'shared, 2']
    """
    if not isinstance(states, Iterable) or isinstance(states, str):
        raise ParameterError(f"states is {show(states)}, expected a list of numbers of states, such as [1, 2, 3].")
    counts = list(states)
    for n_states in counts:
        _validate.at_least("states", n_states, 1, whole=True)
    if not isinstance(build, Mapping):
        return {n_states: build(n_states).fit(y, **options) for n_states in counts}
    return {f"{name}, {k}": make(k).fit(y, **options) for name, make in build.items() for k in counts}


def check_same(
    models: Mapping[Any, Any],
    y: Any,
    states: Any = None,
    weights: Any = None,
    remedy: str = "fit all models to y, with the same states= and weights= if any",
) -> None:
    """Refuse models that are not fitted, or that were fitted to something else than y."""
    columns: dict[Any, list[Any]] = {}
    for name, model in models.items():
        if getattr(model, "n_parameters_", None) is None:
            raise NotFittedError(f"model {show(name)} was not fitted: call fit(y) first.")
        columns[name] = np.atleast_1d(model.params_["feature"].values).tolist()
        first = next(iter(columns))
        if columns[name] != columns[first]:
            raise DataError(
                f"model {show(name)} was fitted to columns {listed(columns[name])}, model {show(first)} to "
                f"{listed(columns[first])}: likelihoods of different columns cannot be compared."
            )
        batch, labels, _ = model._read(y, model.params_)
        batch = model._conditioned(batch, labels, states, weights)
        if model.fitted_to_ != fingerprint(batch, labels):
            raise DataError(
                f"model {show(name)} was fitted to other data ({model.fitted_to_}) than y "
                f"({fingerprint(batch, labels)}): {remedy}."
            )
    kinds = {name: model._support() in DISCRETE for name, model in models.items()}
    if len(set(kinds.values())) > 1:
        discrete = next(name for name, kind in kinds.items() if kind)
        other = next(name for name, kind in kinds.items() if not kind)
        warnings.warn(
            f"model {show(discrete)} gives probabilities of counts or symbols, model {show(other)} densities of real "
            "numbers: their likelihoods have different units and cannot be compared.",
            DataWarning,
            stacklevel=3,
        )


def _log_scores(models: Mapping[Any, Any], y: Any, options: Mapping[str, Any]) -> list[float]:
    walks = [walk_forward(model, y, **options) for model in models.values()]
    n_common = min(len(walk["used_refit"]) for walk in walks)  # they end at the same row, and begin with rows enough
    scores = [walk["log_score"].transpose(*walk["used_refit"].dims, ...).values[-n_common:] for walk in walks]
    return [float(np.nanmean(score)) for score in scores]


def _row(model: Any, y: Any, said: dict[str, Any]) -> dict[str, Any]:
    log_likelihood, count = model.score(y, **said), model.n_parameters_
    decoded = model.decode(y, **said)
    batch, labels, _ = model._read(y, model.params_)
    batch = model._conditioned(batch, labels, said.get("states"), said.get("weights"))
    times = 1.0 if batch.sequence_weight is None else batch.sequence_weight
    joint = float(np.sum(times * decoded["log_prob"].values)) if "log_prob" in decoded.coords else np.nan
    seen = (~np.isnan(batch.y)).any(1)
    n_rows = seen.sum() if batch.weight is None else float(batch.weight[seen].sum())
    spare = n_rows - count - 1
    aic = 2.0 * count - 2.0 * log_likelihood
    return {
        "log_likelihood": log_likelihood,
        "n_parameters": count,
        "aic": aic,
        "aicc": aic + 2.0 * count * (count + 1) / spare if spare > 0 else np.inf,
        "bic": np.log(n_rows) * count - 2.0 * log_likelihood,
        "hq": 2.0 * np.log(np.log(n_rows)) * count - 2.0 * log_likelihood,
        "icl": np.log(n_rows) * count - 2.0 * joint,
        "status": model.status_,
    }
