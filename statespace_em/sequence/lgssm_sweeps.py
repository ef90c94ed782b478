"""Passes of the E-step of a linear-Gaussian model over some sequences: covariances, means forward, means back."""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np

from statespace_em._typing import Bools, Floats, Ints
from statespace_em.data import Batch
from statespace_em.errors import SingularInnovationError
from statespace_em.kernels import adjoint, adjoint_constants, adjoint_lanes, adjoint_rows, kalman
from statespace_em.kernels.steady import ROWS
from statespace_em.sequence.lgssm_diffuse import Start
from statespace_em.sequence.lgssm_params import RowParams, by_row
from statespace_em.sequence.lgssm_plan import Piece, Section
from statespace_em.sequence.row_kinds import ALIKE

HEAD = 512  # rows in which covariances mostly settle
FEW = 64  # kinds of rows that may as well have sums that stay 0


class Kinds(NamedTuple):
    """Kinds of the rows of a batch: sums over rows are kept by kind."""

    numbers: tuple[int, int]  # of kinds of steps from a row to the next, and of kinds of measurements
    of_step: Ints  # (N,), or (1,) where all are alike
    of_row: Ints  # (N,), or (1,)
    process_cov: Floats  # (kinds of steps, n, n), or (1, n, n) where it is the same at every row
    measurement_cov: Floats  # (kinds of rows, D, D), or (1, D, D)


class Pass(NamedTuple):
    """One E-step: the data, and the parameters as the kernels take them."""

    start: Start
    y: Floats
    p: RowParams
    mean: Floats  # (n,), of the first state, with stand-ins
    cov: Floats
    blocks: Ints  # (D,)
    n_blocks: int
    n_sequences: int
    likelihood: str
    directions: Floats  # (n, q), what the unknown constants move
    step: Ints  # (N,), kind of the step to the row after, where gradients by A and Q are wanted by kind
    n_steps: int  # kinds; 0: not wanted
    kind: Ints  # (N,), or one entry: rows are alike
    kinds: Ints  # (kinds, 2), of the step and of the measurement
    numbers: tuple[int, int]  # of these
    moments: bool  # whether gradients by A and C, and moments of states, are wanted

    @property
    def n_kinds(self) -> int:
        """Kinds of rows."""
        return len(self.kinds)

    @classmethod
    def of(
        cls, start: Start, batch: Batch, blocks: Ints, likelihood: str, kinds: Kinds | None, step: Ints | None,
        *, moments: bool = True,
    ) -> Self:  # fmt: skip
        """Prepare an E-step."""
        params = start.params
        n = len(params.initial_mean)
        directions = np.zeros((n, len(start.states)))
        directions[start.states, np.arange(len(start.states))] = np.sqrt(start.stand_in)
        return cls(
            start, batch.y, by_row(params, batch), np.ascontiguousarray(params.initial_mean),
            np.ascontiguousarray(params.initial_cov), blocks, int(blocks.max()) + 1, len(batch.starts) - 1,
            likelihood, directions, np.zeros(0, np.int64) if step is None else step,
            0 if step is None else int(step.max()) + 1, *_rows_alike(kinds), moments,
        )  # fmt: skip


def _rows_alike(kinds: Kinds | None) -> tuple[Ints, Ints, tuple[int, int]]:
    """Kind (N | 1,) of each row in both respects, what the kinds are (kinds, 2), and how many in either respect."""
    if kinds is None or kinds.numbers == (1, 1):
        return ALIKE, np.zeros((1, 2), np.int64), (1, 1)
    code = kinds.of_step * kinds.numbers[1] + kinds.of_row
    if np.prod(kinds.numbers) <= FEW:  # whether they are there or not
        there, kind = np.arange(np.prod(kinds.numbers)), code
    else:
        there, kind = np.unique(code, return_inverse=True)
    return kind, np.column_stack(np.divmod(there, kinds.numbers[1])), kinds.numbers


class Entry(NamedTuple):
    """What comes into a block of rows from those before it."""

    mean: Floats  # (n,), predicted
    cov: Floats  # (n, n)
    response: Floats  # (n, q), to the unknown constants
    known: Floats  # (q, q), information on them
    largest: Floats  # (n,), largest response of every state so far
    settled: bool = False  # the covariance stays as it is


class Covs(NamedTuple):
    """What sequences with equal entries missing share; by slot, see `kernels.kalman_covariances`."""

    y: Floats  # (rows, D), of representatives
    begins: Bools
    A: Floats  # of these rows, or constant
    C: Floats
    slot: Ints
    predicted: Floats
    filtered: Floats
    gain: Floats
    whiten: Floats
    log_norm: Floats
    W: Floats  # (rows, n, q), by row, of those of ``reach``
    gram: Floats  # (rows, q, q), up to and with every row, likewise
    reach: Ints  # (rows,), of the first row of each: the number of rows that respond to how they began
    end: Floats  # (n, q), response after the last row
    largest: Floats  # (n,), see `Entry`
    loops: tuple[Floats, ...]  # of `adjoint_lanes.closed_loops`, where sequences go side by side


class Raw(NamedTuple):
    """Sums of passes back, in the order of the kernels."""

    total: Floats  # (kinds, p, p), of (r, u, z) (r, u, z)', below the diagonal
    ends: Floats  # (kinds, m, m), of z z' in the last rows of sequences
    unseen: Floats  # (kinds, blocks, m, m), of z z' in rows without an entry of a block
    g_m0: Floats
    g_P0: Floats
    by_A: Floats  # (steps, n, n), gradients by kind of step
    by_Q: Floats


def filter_covariances(
    work: Pass, section: Section, rows: slice | Ints, begins: Bools, entry: Entry, room: Covs | None = None
) -> Covs:
    """Filter the covariances of representatives, in the arrays of others that are done with if they have ``room``.

    Raises
    ------
    SingularInnovationError
        With the number of the first row whose innovation covariance is not positive definite.
    """
    y, p = np.ascontiguousarray(work.y[rows]), work.p
    A, Q, C, R = (value if len(value) == 1 else value[rows] for value in (p.A, p.Q, p.C, p.R))
    alike = p.alike if len(p.alike) <= 1 else p.alike[rows]
    (n_rows, size), n, q = y.shape, len(entry.mean), entry.response.shape[1]
    settles = section.complete and len(alike) == 1 and not begins[HEAD:].any()  # one history, which settles
    slot, W, gram = np.empty(n_rows, np.int64), np.empty((n_rows, n, q)), np.empty((n_rows, q, q))
    for end in (1,) if entry.settled else (HEAD, n_rows) if settles and n_rows > HEAD else (n_rows,):
        stacks = _stacks(end, n, size, room)
        status = kalman.filter_covariances(
            y[:end], begins[:end], alike, A, Q, C, R, entry.cov, slot[:end], *stacks, np.empty((0, size, size))
        )
        if entry.settled or (settles and end > 1 and not status and slot[end - 1] == slot[end - 2]):
            slot[end:] = slot[end - 1]
            break
    reach = np.empty(n_rows if q else 0, np.int64)
    covs = Covs(y, begins, A, C, slot, *stacks, W, gram, reach, np.empty((n, q)), np.empty(n), ())
    if status:
        raise SingularInnovationError(_first_singular(work, section, rows, status - 1))
    if q:
        adjoint_constants.columns(
            y, begins, covs.slot, A, C, covs.gain, covs.whiten, np.ascontiguousarray(entry.response), entry.known,
            entry.largest, covs.W, covs.gram, covs.reach, covs.end, covs.largest,
        )  # fmt: skip
    if all(len(piece.group) == 1 for piece in section.pieces):
        return covs
    many = int(covs.slot.max()) + 1
    shapes = (n, n), (n, size), (size, size), (n, size), (n, n), (size, n)
    loops = tuple(np.empty((many, *shape)) for shape in shapes)
    adjoint_lanes.closed_loops(covs.slot, A, C, covs.filtered, covs.gain, covs.whiten, *loops)
    return covs._replace(loops=loops)


def _stacks(n_rows: int, n: int, size: int, room: Covs | None) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Arrays of covariances and gains, those of ``room`` if they do: memory that is new costs more than the work."""
    if room is not None and len(room.log_norm) >= n_rows:
        return room.predicted, room.filtered, room.gain, room.whiten, room.log_norm
    square = n_rows, n, n
    return (
        np.empty(square), np.empty(square), np.empty((n_rows, size, n)), np.empty((n_rows, size, size)),
        np.empty(n_rows),
    )  # fmt: skip


def bytes_of_row(n: int, size: int) -> int:
    """Memory that the filter of a row takes: covariances, gains, what whitens, and the means in the store."""
    return 8 * (2 * n * n + size * n + size * size + 1 + n + size + 1)


def _first_singular(work: Pass, section: Section, rows: slice | Ints, at: int) -> int:
    """Of all rows with the history that leads to a singular one, the first."""
    row = int(np.arange(len(work.y))[rows][at])
    if section.long:
        return row
    found = row
    begins = np.flatnonzero(section.begins[: at + 1])[-1]
    for piece in section.pieces:
        same = (piece.offset == begins) & (piece.length > at - begins)
        found = min([found, *(piece.begin[same] + at - begins)])
    return int(found)


def forward_means(work: Pass, covs: Covs, piece: Piece, mean: Floats) -> tuple[Floats, Floats, Floats]:
    """Store of the means, log-likelihoods, and the mean predicted after the last row."""
    p, n = work.p, len(mean)
    store, end = np.empty((piece.n_tiles, n + work.y.shape[1], ROWS)), np.empty(n)
    at = piece.begin, piece.length, piece.offset, piece.tile
    if len(piece.group) > 1:
        found = np.empty(len(piece.group) - 1)
        adjoint_lanes.forward_lanes(
            work.y, *at, piece.group, covs.slot, p.A, p.b, p.C, p.d, mean, covs.gain, covs.whiten, covs.log_norm,
            covs.loops[1], store, found,
        )  # fmt: skip
    else:
        found = np.empty(len(piece.begin))
        adjoint_rows.forward_rows(
            work.y, *at, covs.slot, p.A, p.b, p.C, p.d, mean, covs.filtered, covs.gain, covs.whiten, covs.log_norm,
            store, found, end,
        )  # fmt: skip
    return store, found, end


def responding(covs: Covs, piece: Piece) -> Ints:
    """Rows (S,) of every sequence that respond to unknown constants."""
    return np.minimum(piece.length, covs.reach[piece.offset])


def cross_sums(work: Pass, covs: Covs, piece: Piece, store: Floats) -> Floats:
    """What the rows of every sequence say on its unknown constants (S, q)."""
    found = np.zeros((len(piece.begin), covs.W.shape[2]))
    if found.size:
        adjoint_constants.cross_sums(
            work.y, piece.begin, responding(covs, piece), piece.offset, piece.tile, piece.lane, covs.slot, work.p.C,
            covs.whiten, covs.W, store, found,
        )  # fmt: skip
    return found


def shifted(work: Pass, covs: Covs, piece: Piece, value: Floats, store: Floats) -> None:
    """Add to a store what constants of these values (S, q) do."""
    adjoint_constants.shift(
        work.y, piece.begin, responding(covs, piece), piece.offset, piece.tile, piece.lane, work.p.C, covs.W, value,
        store,
    )  # fmt: skip


def blank(work: Pass) -> Raw:
    """Sums to add to."""
    n, size = len(work.mean), work.y.shape[1]
    p = 2 * n + size + 1 + work.p.U.shape[1]
    m = p - n - size
    many = work.n_kinds
    shapes = (many, p, p), (many, m, m), (many, work.n_blocks, m, m), (n,), (n, n), *2 * [(work.n_steps, n, n)]
    return Raw(*map(np.zeros, shapes))


def backward_means(
    work: Pass, covs: Covs, piece: Piece, store: Floats, one: float, end: Floats | None, raw: Raw,
    *, starts: bool = True, goes_on: bool = False,
) -> None:  # fmt: skip
    """Add to ``raw``; a series that goes on behind the piece has the future ``end``, which is led back over it."""
    p, n = work.p, len(work.mean)
    at = piece.begin, piece.length, piece.offset, piece.tile
    if len(piece.group) > 1:
        F, _, *others = covs.loops
        adjoint_lanes.backward_lanes(
            work.y, *at, piece.group, covs.slot, p.U, work.blocks, covs.gain, F, *others, one, store, *raw[:5]
        )
        return
    m0 = raw.g_m0 if starts else np.empty(0)
    adjoint_rows.backward_rows(
        work.y, *at, work.kind, covs.slot, p.A, p.C, p.U, work.blocks, covs.filtered, covs.gain, covs.whiten, one,
        goes_on, store, np.zeros(n) if end is None else end, *raw[:3], m0, raw.g_P0, work.step, raw.by_A, raw.by_Q,
    )  # fmt: skip


def backward_covariances(
    work: Pass, covs: Covs, rows: slice | Ints, count: Floats, after: float, info: Floats, found: tuple[Floats, ...],
    *, starts: bool = True,
) -> None:  # fmt: skip
    """Add contributions of the covariances: gradients by A, Q, C, R, P0, S_zz, S_uu, counts, and A, Q by step."""
    kind = work.kind if len(work.kind) == 1 else work.kind[rows]
    step = work.step[rows] if work.n_steps else work.step
    *sums, g_P0, S_zz, S_uu, counts, by_A, by_Q = found
    adjoint.backward_covariances(
        covs.y, covs.begins, count, after, kind, covs.slot, covs.A, covs.C, work.blocks, covs.filtered, covs.gain,
        covs.whiten, info, *sums,
        g_P0 if starts else np.zeros(g_P0.shape), S_zz, S_uu, counts, step, by_A, by_Q,
    )  # fmt: skip


def blank_covariances(work: Pass) -> tuple[Floats, ...]:
    """Sums for `backward_covariances` to add to; those that are not wanted have no entries."""
    n, size, m, many = len(work.mean), work.y.shape[1], len(work.mean) + 1 + work.p.U.shape[1], work.n_kinds
    some = many if work.moments else 0
    shapes = (
        (some, n, n), (many, n, n), (some, size, n), (many, size, size), (n, n), (some, m, m),
        (some, work.n_blocks, m, m), (many, work.n_blocks), *2 * [(work.n_steps, n, n)],
    )  # fmt: skip
    return tuple(map(np.zeros, shapes))
