"""The commands, and what becomes of their errors and warnings."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from statespace_em import compare, storage
from statespace_em.cli import models, output, tables
from statespace_em.cli.arguments import UsageError, parse
from statespace_em.cli.picture import draw, picture_name
from statespace_em.cli.reading import read
from statespace_em.errors import StateSpaceError, StateSpaceWarning
from statespace_em.model import LatentModel

REMEDIES = {  # as the messages of the library put it, and as a user of the command line would
    "build the model with unsorted='sort'": "pass --sort",
    "raise max_iter, or loosen tol=": "raise --max-iter, or loosen --tol ",
    "use a model for symbols (CategoricalHMM)": "use categorical-hmm",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the result is the exit code."""
    try:
        with _warnings_as_lines(), _terminated_like_interrupted():
            options = parse(argv)
            return int({"fit": _fit, "decode": _decode, "compare": _compare}[options.command](options))
    except KeyboardInterrupt:
        _say("interrupted")
        return 130
    except BrokenPipeError:  # the reader of our output has seen enough, as in "| head"
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (StateSpaceError, OSError, ImportError) as error:
        _say(f"error: {error}")
        return 2


def _fit(options: argparse.Namespace) -> int:
    """Fit a model, print its summary and write everything there is to know about it."""
    target = Path(options.out)
    models.check_options(options)
    output.check_folder(target, force=options.force)
    y = read(options, models.kind_of(options))
    model = models.wanted(options, y).fit(y, **models.fit_options(options))
    posterior = model.e_step(y)
    found = compare.table({"model": model}, y).to_dict("index")["model"]
    print(tables.headline(model, y))
    print(tables.ending(model, found["log_likelihood"]))
    print(f"{found['n_parameters']} free parameters, AIC {found['aic']:.4f}, BIC {found['bic']:.4f}")
    print(f"\n{tables.summary(model)}\n")
    with output.new_folder(target, force=options.force) as folder:
        model.save(folder / "model.nc")
        storage.write_dataset(posterior, folder / "posterior.nc")
        tables.decoded_table(model, y, posterior).to_csv(folder / "decoded.csv", index=False)
        drawn = _draw(folder / picture_name(model, y), model, y, posterior)
        written = [name for name in output.OUTPUTS if (folder / name).exists()]
    print("wrote " + ", ".join(str(target / name) for name in written))
    return 0 if drawn else 1


def _draw(path: Path, model: LatentModel, y: pd.DataFrame, posterior: xr.Dataset) -> bool:
    """Draw, or say why not: a fit is too dear to lose it for a picture."""
    try:
        draw(path, model, y, posterior)
    except Exception as error:
        path.unlink(missing_ok=True)
        _say(f"warning: {path.name} could not be drawn, the data files are complete: {error}")
        return False
    return True


def _decode(options: argparse.Namespace) -> int:
    """Apply a saved model to data."""
    if options.out is not None:
        output.check_file(Path(options.out), force=options.force)
    model = models.load(Path(options.model))
    y = read(options)
    features = [str(name) for name in model.params_["feature"].values.ravel()]
    if options.columns is None and set(features) <= set(y.columns):
        y = y[features]
    table = tables.decoded_table(model, y, model.e_step(y, xi="sum"))
    if options.out is None:
        table.to_csv(sys.stdout, index=False)
        sys.stdout.flush()
        return 0
    with output.new_file(Path(options.out), force=options.force) as path:
        table.to_csv(path, index=False)
    print(f"wrote {options.out}")
    return 0


def _compare(options: argparse.Namespace) -> int:
    """Fit several numbers of states."""
    if options.out is not None:
        output.check_file(Path(options.out), force=options.force)
    models.check_options(options)
    counts = _counts(options.states)
    y = read(options, models.kind_of(options))
    fits = compare.fit_each(lambda n_states: models.build(options, n_states), counts, y, **models.fit_options(options))
    table = compare.table(fits, y)[["log_likelihood", "n_parameters", "aic", "bic", "status"]]
    table = table.rename_axis("states").reset_index()
    print(table.to_string(index=False, float_format=lambda value: f"{value:.4f}"))
    best = {name: counts[int(table[name].to_numpy().argmin())] for name in ("aic", "bic")}
    print(f"\nlowest AIC: states = {best['aic']}; lowest BIC: states = {best['bic']}")
    if options.out is not None:
        with output.new_file(Path(options.out), force=options.force) as path:
            table.to_csv(path, index=False)
        print(f"wrote {options.out}")
    return 0


def _counts(text: str) -> list[int]:
    """Numbers of states: "1-4", "1,2,3", "2,4-6"."""
    counts: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        try:
            counts |= set(range(int(first), int(last or first) + 1))
        except ValueError:
            raise UsageError(f"--states {text!r} is not a list of numbers such as 1-4 or 1,2,3.") from None
    if not counts or min(counts) < 1:
        raise UsageError(f"--states {text!r} holds no number of states, expected one such as 1-4 or 1,2,3.")
    return sorted(counts)


def _say(message: str) -> None:
    """One line on stderr."""
    for ours, theirs in REMEDIES.items():
        message = message.replace(ours, theirs)
    print(f"statespace-em: {' '.join(message.split())}", file=sys.stderr)


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Print our warnings as one line each; leave those of others alone."""
    with warnings.catch_warnings():
        others = warnings.showwarning
        warnings.simplefilter("always", StateSpaceWarning)

        def show(message: Any, category: type[Warning], *rest: Any, **more: Any) -> None:
            if issubclass(category, StateSpaceWarning):
                _say(f"warning: {message}")
            else:
                others(message, category, *rest, **more)

        warnings.showwarning = show
        yield


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Clean up after SIGTERM, too: it would end the process without a word to anyone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
