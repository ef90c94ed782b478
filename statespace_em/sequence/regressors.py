"""Known columns of a regression beside the rows of y: whether they are of the same times, and reach far enough."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from statespace_em.errors import DataError
from statespace_em.labels import Labels
from statespace_em.scale.chunks import is_chunked

Components = Sequence[tuple[str, Mapping[str, Any]]]


def check_times(components: Components, labels: Labels) -> None:
    """Refuse rows of y and of the regressors that are of different times."""
    for kind, options in components:
        times = options.get("times")
        if kind == "regression" and times is not None:
            own = [str(time) for time in labels.times[0]]
            off = [i for i, (mine, theirs) in enumerate(zip(own, times)) if mine != theirs]
            if off:
                raise DataError(
                    f"row {off[0]} of y is at {own[off[0]]}, but that of X at {times[off[0]]}: give X the rows of y."
                )


def check_ahead(components: Components, read: Callable[[], Labels], y: Any, horizon: int) -> None:
    """Refuse a future whose regressors are not known; ``read()`` are the labels of y."""
    given = [len(options["X"]) for kind, options in components if kind == "regression"]
    if not given or is_chunked(y):
        return
    labels = read()
    check_times(components, labels)
    needed = max(labels.lengths) + horizon
    if min(given) < needed:
        raise DataError(
            f"X of the regression has {min(given)} rows, but a forecast {horizon} rows beyond the "
            f"{needed - horizon} rows of y needs {needed}. Write the model again with designs.regression(X), X "
            "having the rows of y and of the future, and ask it with the parameters found: "
            f"forecast(y, {horizon}, params=model.params_)."
        )
