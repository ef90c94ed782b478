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


def table(models: Mapping[Any, Any], y: Any, *, log_score: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """Compare fits of the same data, one row a fit; of the criteria lower is better.

    Parameters
    ----------
    models
        Fitted models by name; hidden Markov models, mixtures and linear-Gaussian models may be mixed.
    y
        What all of them were fitted to.
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
            Schwarz (1978); Hannan & Quinn (1979). The number of rows is that of rows with any entry seen;
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
        If a model was fitted to other data or other columns than the rest.
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
    check_same(models, y)
    rows = {name: _row(model, y) for name, model in models.items()}
    found = pd.DataFrame.from_dict(rows, orient="index", columns=list(next(iter(rows.values()))))
    return found if log_score is None else found.assign(log_score=_log_scores(models, y, log_score))


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


def check_same(models: Mapping[Any, Any], y: Any) -> None:
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
        if model.fitted_to_ != fingerprint(batch, labels):
            raise DataError(
                f"model {show(name)} was fitted to other data ({model.fitted_to_}) than y "
                f"({fingerprint(batch, labels)}): fit all models to y."
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
    scores = [walk_forward(model, y, **options)["log_score"].values for model in models.values()]
    n_common = min(map(len, scores))  # walks end at the same row, and begin when each model had rows enough
    return [float(score[-n_common:].mean()) for score in scores]


def _row(model: Any, y: Any) -> dict[str, Any]:
    log_likelihood, count = model.score(y), model.n_parameters_
    decoded = model.decode(y)
    joint = float(decoded["log_prob"].sum()) if "log_prob" in decoded.coords else np.nan
    batch = model._read(y, model.params_)[0]
    n_rows = int((~np.isnan(batch.y)).any(1).sum())
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
