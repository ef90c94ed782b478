"""How a fit went, for people: tables of the trace and the starts, a progress bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from statespace_em import em
from statespace_em._typing import Floats

TRACE_COLUMNS = pd.Index(["log_likelihood", "log_prior", "objective"])


def trace_table(trace: Sequence[em.Step]) -> pd.DataFrame:
    """Trace of a run as a table indexed by iteration (the number of E-steps made)."""
    values = np.array([(step.log_likelihood, step.log_prior, step.objective) for step in trace])
    iterations = pd.Index(np.array([step.iteration for step in trace]), name="iteration")
    return pd.DataFrame(values, iterations, TRACE_COLUMNS)


def starts_table(runs: Sequence[tuple[float, int, str]]) -> pd.DataFrame:
    """One row a start: where it ended, after how many E-steps, and how many starts ended at the same optimum.

    Given the objective, the number of E-steps and the status of each run.
    A start whose status is "max_iter" was given a short run only, or ran out of E-steps.
    """
    objective = np.array([objective for objective, _, _ in runs])
    done = np.array([status == "converged" for _, _, status in runs])
    same = [
        int((done & (np.abs(objective - value) < em.SAME_OPTIMUM)).sum()) if ok else 0
        for value, ok in zip(objective, done)
    ]
    columns = {
        "objective": objective,
        "iterations": np.array([n_steps for _, n_steps, _ in runs]),
        "status": [status for _, _, status in runs],
        "found_by": np.array(same),
    }
    return pd.DataFrame(columns, index=pd.RangeIndex(len(runs), name="start"), copy=False)


@contextmanager
def progress_bar(wanted: bool) -> Iterator[em.OnStep | None]:
    """Count E-steps and show the objective."""
    if not wanted:
        yield None
        return
    from tqdm.auto import tqdm  # here because it is slow to import and rarely wanted

    with tqdm(desc="EM", unit=" E-steps") as bar:

        def on_step(step: em.Step) -> None:
            bar.update(1)
            bar.set_postfix_str(f"objective {step.objective:.6f}")

        yield on_step


@contextmanager
def counter(wanted: bool, total: int, unit: str) -> Iterator[Callable[[int], object]]:
    """Count what is done of a known number of things."""
    if not wanted:
        yield lambda n: None
        return
    from tqdm.auto import tqdm  # here because it is slow to import and rarely wanted

    with tqdm(total=total, desc="EM", unit=f" {unit}") as bar:
        yield bar.update


def note_boundary(params: xr.Dataset, vanished: Mapping[str, Floats]) -> None:
    """Write into ``attrs["boundary"]`` that the maximum is where a covariance is singular, or states do not decay."""
    for name, away in vanished.items():
        if name in params:
            labels = params[name][params[name].dims[-2]].values.tolist()
            if name == "transition":
                own = ", ".join(_direction(column, labels) for column in away.T)
                params[name].attrs["boundary"] = f"unit root: the likelihood is highest without decay of {own}"
                continue
            along = " and ".join(_direction(column, labels) for column in away.T)
            params[name].attrs["boundary"] = f"singular: the likelihood is highest without variance of {along}"


def _direction(column: Floats, labels: Sequence[Any]) -> str:
    """A direction in words: the label where it is one, a sum with weights where not."""
    top = int(np.argmax(np.abs(column)))
    column = column * np.sign(column[top])
    if abs(column[top]) > 1.0 - 1e-12:
        return str(labels[top])
    return " ".join(f"{weight:+.3g} {label}" for weight, label in zip(column, labels))
