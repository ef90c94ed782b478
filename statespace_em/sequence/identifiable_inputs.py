"""Are the effects of inputs identified? Not those of columns collinear with others, an offset or a first state."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np

from statespace_em._typing import Bools, Floats
from statespace_em.data import Batch
from statespace_em.errors import DataWarning
from statespace_em.labels import listed
from statespace_em.patterns import Pattern, from_word
from statespace_em.sequence.even_rows import outside
from statespace_em.sequence.lgssm_params import INPUTS
from statespace_em.sequence.lgssm_specification import DIMS, Specification

RANK = 1e-9  # least singular value of the effects of unknowns on y, scaled to size 1 each
BLOCK = 128  # rows that are looked at together; most models need one block
MOST = 200_000  # rows that are looked at; of more there is no warning
DECAY = 0.9  # of dynamics that are free


class _Effects(NamedTuple):
    """Linear effects of p unknowns on states and measurements, given the dynamics: derivatives by each."""

    state_offset: Floats  # (n, p)
    state_input: Floats  # (n, k, p)
    observation_offset: Floats  # (D, p)
    observation_input: Floats  # (D, k, p)
    first_state: Floats  # (n, p)
    names: list[tuple[int, ...]]  # inputs that each is an effect of


def check_inputs_identified(spec: Specification, batch: Batch, names: list[str], held: Collection[str]) -> None:
    """Warn of inputs whose effects the others, offsets or first states make up for in the rows of y at hand."""
    A, C = (_arbitrary_value(spec, name) for name in ("transition", "observation"))
    effects = _effects(spec, len(names), held)
    if A is None or C is None or effects is None or not any(effects.names):
        return
    shares = _undetermined(A, C, effects, spec.starts_as("diffuse"), batch)
    inputs = sorted({j for own, share in zip(effects.names, shares) if share > RANK for j in own})
    if inputs:
        plural = "s" if len(inputs) > 1 else ""
        warnings.warn(
            f"the rows of y do not tell the effect{plural} of the input{plural} {listed([names[j] for j in inputs])}: "
            "columns of inputs= that are 0 or sums of others, or constant beside an offset or a level, make up for "
            "each other. The fit goes on, and likelihood and forecasts are right, but these effects are one choice of "
            "many: leave a column out.",
            DataWarning,
            stacklevel=outside(),
        )


def _arbitrary_value(spec: Specification, name: str) -> Floats | None:
    """Some value of a matrix that is as good as any other; None where rows have their own."""
    if name in spec.by_row:
        return None
    found, rng = spec.value(name), np.random.default_rng(0)
    if found is not None:
        return found
    own = spec.patterns.get(name)
    if own is None:
        shape = {"state": len(spec.names), "next_state": len(spec.names), "feature": spec.n_features or 1}
        value = rng.normal(size=[shape[dim] for dim in DIMS[name]])
    else:
        assert isinstance(own, Pattern)
        value = own.build(rng.uniform(0.1, 0.5, len(own.names)))
    radius = float(np.abs(np.linalg.eigvals(value)).max()) if name == "transition" else 0.0
    return np.asarray(value * (DECAY / radius if radius > 1.0 else 1.0))


def _effects(spec: Specification, k: int, held: Collection[str]) -> _Effects | None:
    """What is free of offsets, effects and first states; None where rows have their own."""
    n, D = len(spec.names), spec.n_features or 1
    sizes: Mapping[str, tuple[int, ...]] = {
        "state_offset": (n,), "state_input": (n, k), "observation_offset": (D,), "observation_input": (D, k),
    }  # fmt: skip
    parts: dict[str, Floats] = {}
    for name, shape in sizes.items():
        own = spec.patterns.get(name)
        if name in spec.by_row or (isinstance(own, Pattern) and own.products):
            return None
        if name in (*spec.absent, *held):
            parts[name] = np.zeros((0, *shape))
        else:
            parts[name] = from_word("free", shape, name, symmetric=False).design if own is None else own.design  # type: ignore[union-attr]
    free_start = ~spec.starts_as("known") & ~spec.starts_as("stationary")
    first = np.eye(n)[free_start] if "initial_mean" not in held else np.zeros((0, n))
    order = [*parts, "first"]
    counts = [len(parts[name]) for name in parts] + [len(first)]
    ends = np.cumsum(counts)

    def placed(name: str, value: Floats) -> Floats:
        found = np.zeros((*value.shape[1:], int(ends[-1])))
        i = order.index(name)
        found[..., ends[i] - counts[i] : ends[i]] = np.moveaxis(value, 0, -1)
        return found

    names: list[tuple[int, ...]] = []
    for name, design in parts.items():
        effect = name in INPUTS
        names += [tuple(np.flatnonzero(own.any(0)).tolist()) if effect else () for own in design]
    names += [()] * len(first)
    b, B, d, E = (placed(name, parts[name]) for name in sizes)
    return _Effects(b, B, d, E, placed("first", first), names)


def _undetermined(A: Floats, C: Floats, effects: _Effects, diffuse: Bools, batch: Batch) -> Floats:
    """Share (p,) of each unknown in changes without effect on y; 0 where all are determined, or rows too many."""
    p = len(effects.names)
    own = effects.first_state[diffuse].any(0)  # each sequence has its own
    order = np.argsort(~own, kind="stable")
    n_own, n_seen = int(own.sum()), 0
    common, squares = np.zeros((0, p - n_own)), np.zeros(p)
    for begin, end in zip(batch.starts[:-1], batch.starts[1:]):
        triangle, state = np.zeros((0, p)), effects.first_state
        for row in range(begin, end, BLOCK):
            if n_seen > MOST:
                return np.zeros(p)
            last = min(row + BLOCK, end)
            rows = np.empty((last - row, *effects.observation_offset.shape))
            for t in range(row, last):
                u = batch.inputs[t]  # type: ignore[index]
                direct = effects.observation_offset + np.einsum("dkp,k->dp", effects.observation_input, u)
                rows[t - row] = C @ state + direct
                state = A @ state + effects.state_offset + np.einsum("nkp,k->np", effects.state_input, u)
            n_seen += last - row
            design = rows[~np.isnan(batch.y[row:last])][:, order]
            squares += np.square(design).sum(0)
            if not np.isfinite(squares).all():
                return np.zeros(p)
            triangle = _triangle(triangle, design)
            if not len(_null_space(np.vstack([common, triangle[n_own:, n_own:]]), squares[n_own:])):
                return np.zeros(p)
        common = _triangle(common, triangle[n_own:, n_own:])
    shares = np.zeros(p)
    shares[order[n_own:]] = np.abs(_null_space(common, squares[n_own:])).max(0, initial=0.0)
    return shares


def _triangle(known: Floats, more: Floats) -> Floats:
    """R of the QR decomposition of all rows, given that of those before."""
    return np.asarray(np.linalg.qr(np.vstack([known, more]), mode="r"))


def _null_space(matrix: Floats, squares: Floats) -> Floats:
    """Directions (rows) that a matrix takes to 0, its columns in units of the effects of unknowns on y."""
    _, values, axes = np.linalg.svd(matrix / np.sqrt(np.where(squares > 0.0, squares, 1.0)))
    values = np.pad(values, (0, len(axes) - len(values)))
    return np.asarray(axes[values <= RANK])
