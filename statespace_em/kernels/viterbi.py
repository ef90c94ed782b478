"""The most probable path of a finite Markov chain with observed likelihoods (Viterbi 1967; Rabiner 1989, eq. 33).

Arrays are those of `chain`, in logs, but densities are held by state, ``log_b`` (K, N), and the first rows of
sequences are given by their ``places`` in a block. Scores are logs relative to the best of their row, what is taken
off being kept apart: so they stay small, and what came long before leaves no trace in their digits. That is used to
lead stretches of rows side by side: all but the first start from a guess, and start again from where the stretch
before them ended until that changes no bit of what they say. Mostly a few dozen rows are enough for that; where
they are not, the true beginnings are found row by row. So the result is that of `walk`, which leads all rows one by
one.
"""

from __future__ import annotations

import numpy as np

from statespace_em._typing import Bools, Floats, Ints
from statespace_em.kernels._jit import jit, part
from statespace_em.kernels._lanes import LANES, anywhere, below, every, flags, gather, load, store, store_counts, where

BEFORE, AFTER = 0, 1  # scores before and after a row
CHECK = 16  # rows between looks whether stretches agree with what they said before
GUESSED = 2  # passes from beginnings that are not known to be true; as many cost about as much as to find these


@jit
def best_of(scores: Floats) -> int:
    """Place of the largest score, the first of equal ones."""
    place = 0
    for k in range(1, scores.shape[0]):
        place = k if scores[k] > scores[place] else place
    return place


@jit
def walk(
    log_b: Floats, log_pi: Floats, log_into: Floats, places: Ints, n_rows: int, scores: Floats, back: Ints, top: Floats
) -> int:
    """Score the best path into each state of the first ``n_rows`` rows: ``scores`` (K,) before and after them.

    ``back[t, k]`` says where the best path into k comes from; at the first row of a sequence, where the best path of
    the one before ends. ``top[t]`` is what the row took off. Ties go to the lower index. Returns the first row at
    which no path is possible, or -1.
    """
    K = log_b.shape[0]
    varies = int(log_into.shape[0] > 1)
    delta = np.empty(K)
    n_begun = 0
    for t in range(n_rows):
        begins = n_begun < places.shape[0] and places[n_begun] == t
        best = -np.inf
        for j in range(K):
            value, where = -np.inf, 0
            for i in range(K):
                candidate = scores[i] + log_into[t * varies, j, i]
                where = i if candidate > value else where
                value = candidate if candidate > value else value
            if begins:
                value, where = log_pi[j], best_of(scores)
            back[t, j] = where
            delta[j] = value + log_b[j, t]
            best = delta[j] if delta[j] > best else best
        if not best > -np.inf:
            return t
        n_begun += int(begins)
        top[t] = best
        for j in range(K):
            scores[j] = delta[j] - best
    return -1


@jit
def led_singly(n_rows: int, varies: bool) -> int:
    """How many rows at the beginning of a block are led one by one, so that the others fill equal stretches.

    Stretches have an odd length: a power of two apart, their rows would compete for the same places in the cache.
    """
    if varies or n_rows < CHECK * LANES:
        return n_rows
    return n_rows - LANES * ((n_rows // LANES - 1) | 1)


@part
def _mark(places: Ints, singly: int, starts: Bools) -> None:
    """Mark the first rows of sequences in the stretches (n, LANES), which begin after those led ``singly``."""
    length = starts.shape[0]
    starts[:] = False
    for place in places:
        if place >= singly:
            starts[(place - singly) % length, (place - singly) // length] = True


@part
def _restart(log_b: Floats, log_pi: Floats, starts: Bools, row: int, length: int, scores: Floats, back: Ints) -> None:
    """Begin sequences in the stretches marked (LANES,); ``row`` is that of the first stretch."""
    for lane in range(LANES):
        if starts[lane]:
            end = best_of(scores[BEFORE, :, lane])
            for j in range(log_b.shape[0]):
                back[j, lane] = end
                scores[AFTER, j, lane] = log_pi[j] + log_b[j, row + lane * length]


@part
def _advance(
    log_b: Floats,
    log_pi: Floats,
    into: Floats,
    starts: Bools,
    singly: int,
    rows: tuple[int, int],
    scores: Floats,
    back: Ints,
    top: Floats,
) -> bool:
    """Lead all stretches from the first to before the last of ``rows``; say whether there is a possible path.

    ``scores[BEFORE]`` (K, LANES), ``back`` (n, K, LANES) and ``top`` (n, 1, LANES) are as in `walk`, for each stretch
    of n rows; ``starts`` (n, LANES) marks first rows of sequences.
    """
    K, length = log_b.shape[0], top.shape[0]
    nothing, least = every(-np.inf), every(np.inf)
    for s in range(rows[0], rows[1]):
        for one in range(0, K, 2):  # two states share what they load; the last of an odd number is done twice
            two = min(one + 1, K - 1)
            value_one, from_one = nothing, every(0.0)
            value_two, from_two = nothing, every(0.0)
            for i in range(K):
                score = load(scores, BEFORE, i)
                candidate = score + into[one, i]
                better = below(value_one, candidate)
                value_one, from_one = where(better, candidate, value_one), where(better, float(i), from_one)
                candidate = score + into[two, i]
                better = below(value_two, candidate)
                value_two, from_two = where(better, candidate, value_two), where(better, float(i), from_two)
            store_counts(back, s, one, from_one)
            store_counts(back, s, two, from_two)
            store(scores, AFTER, one, value_one + gather(log_b, one, singly + s, length))
            store(scores, AFTER, two, value_two + gather(log_b, two, singly + s, length))
        if anywhere(flags(starts, s)):
            _restart(log_b, log_pi, starts[s], singly + s, length, scores, back[s])
        best = nothing
        for j in range(K):
            own = load(scores, AFTER, j)
            best = where(below(best, own), own, best)
        store(top, s, 0, best)
        least = where(below(best, least), best, least)
        for j in range(K):
            store(scores, BEFORE, j, load(scores, AFTER, j) - best)
    store(scores, AFTER, 0, least)
    possible = True
    for lane in range(LANES):
        possible &= scores[AFTER, 0, lane] > -np.inf
    return possible


@part
def _lead(
    log_b: Floats, log_pi: Floats, into: Floats, starts: Bools, row: int, lane: int, said: Floats, scores: Floats
) -> None:
    """Lead ``scores`` (2, K), of the row before a stretch, through it: from where a pass ``said`` the same, as it did.

    ``row`` is the first of the stretch. Scores without a possible path are -inf.
    """
    K, length = log_b.shape[0], starts.shape[0]
    for s in range(length):
        best = -np.inf
        for j in range(K):
            value = -np.inf
            for i in range(K):
                candidate = scores[BEFORE, i] + into[j, i]
                value = candidate if candidate > value else value
            value = (log_pi[j] if starts[s, lane] else value) + log_b[j, row + s]
            scores[AFTER, j] = value
            best = value if value > best else best
        if not best > -np.inf:
            for j in range(K):
                scores[BEFORE, j] = -np.inf
            return
        for j in range(K):
            scores[BEFORE, j] = scores[AFTER, j] - best
        if (s + 1) % CHECK == 0:
            same = True
            for j in range(K):
                same &= said[s // CHECK, j, lane] == scores[BEFORE, j]
            if same:
                for j in range(K):
                    scores[BEFORE, j] = said[said.shape[0] - 1, j, lane]
                return


@part
def _side_by_side(
    log_b: Floats,
    log_pi: Floats,
    into: Floats,
    starts: Bools,
    singly: int,
    scores: Floats,
    back: Ints,
    top: Floats,
) -> Floats:
    """Lead all stretches until they agree; return their scores (K, LANES) at the end, or no states if impossible.

    ``scores`` (K,) are those before the first of them. A guess of zeros reaches every state: what is impossible from
    there is impossible. Where stretches are slow to agree, each is led row by row before a last pass.
    """
    K, length = log_b.shape[0], top.shape[0]
    said, now = np.zeros((-(-length // CHECK), K, LANES)), np.empty((2, K, LANES))
    one, ends = np.empty((2, K)), said[said.shape[0] - 1]
    for trial in range(GUESSED + 1):
        for k in range(K):
            one[BEFORE, k] = scores[k]
        for lane in range(LANES):
            for k in range(K):  # by hand: an assignment of arrays takes longer to compile than all of the rest
                now[BEFORE, k, lane] = one[BEFORE, k]
                if trial < GUESSED:
                    one[BEFORE, k] = ends[k, lane]
            if trial == GUESSED:
                _lead(log_b, log_pi, into, starts, singly + lane * length, lane, said, one)
        changed = True
        for check in range(said.shape[0]):
            rows = check * CHECK, min((check + 1) * CHECK, length)
            if not _advance(log_b, log_pi, into, starts, singly, rows, now, back, top):
                return ends[:0]
            changed = trial == 0
            for k in range(K):
                for lane in range(LANES):
                    changed |= said[check, k, lane] != now[BEFORE, k, lane]
                    said[check, k, lane] = now[BEFORE, k, lane]
            if not changed:
                break
        if not changed:
            break
    return ends


@part
def _add_tops(places: Ints, starts: Bools, singly: int, top: Floats, totals: Floats) -> None:
    """Add ``top`` (n, 1, LANES) to the sequences that the rows are of."""
    length = top.shape[0]
    sequence = np.zeros(LANES + 1, np.int64)  # how many have begun before each stretch
    for place in places:
        sequence[(place - singly) // length + 1 if place >= singly else 0] += 1
    for lane in range(LANES):
        sequence[lane + 1] += sequence[lane]
    total = np.zeros((1, 1, LANES))
    for s in range(length):
        if anywhere(flags(starts, s)):
            for lane in range(LANES):
                if starts[s, lane]:
                    totals[sequence[lane]] += total[0, 0, lane]
                    total[0, 0, lane] = 0.0
                    sequence[lane] += 1
        store(total, 0, 0, load(total, 0, 0) + load(top, s, 0))
    for lane in range(LANES):
        totals[sequence[lane]] += total[0, 0, lane]


@part
def _trace_stretches(back: Ints, ends: Floats, path: Ints) -> None:
    """Trace the best path back through each of the stretches (n, K, LANES) from its own best state at the end."""
    length = back.shape[0]
    state = np.empty(LANES, np.int64)
    for lane in range(LANES):
        state[lane] = best_of(ends[:, lane])
    for s in range(length - 1, -1, -1):
        for lane in range(LANES):
            path[lane * length + s] = state[lane]
            state[lane] = back[s, state[lane], lane]


@jit
def follow(back: Ints, singly: int, state: int, path: Ints) -> int:
    """Mend a ``path`` (N,) through a block so that it ends in ``state``; return the state in the row before it.

    ``back`` are the rows led singly (singly, K) and then the stretches (n, K, LANES), in one array. Paths from
    different ends soon meet, and from there on back they are one.
    """
    N = path.shape[0]
    K = back.shape[0] // N
    length = (N - singly) // LANES
    for lane in range(LANES - 1, -1, -1):
        if length == 0:
            break
        begin = singly + lane * length
        for s in range(length - 1, -1, -1):
            if path[begin + s] == state:
                break
            path[begin + s] = state
            state = back[singly * K + (s * K + state) * LANES + lane]
        state = back[singly * K + path[begin] * LANES + lane]
    for t in range(singly - 1, -1, -1):
        if path[t] == state:
            break
        path[t] = state
        state = back[t * K + state]
    return int(back[path[0]]) if singly > 0 else int(state)


@jit
def search(
    log_b: Floats,
    log_pi: Floats,
    log_into: Floats,
    places: Ints,
    scores: Floats,
    back: Ints,
    path: Ints,
    totals: Floats,
) -> int:
    """Find the ``path`` (N,) through a block to the state that is best at its end; return the state in the row before.

    ``scores`` (K,) become those after the block; ``back`` (N * K,) is what `follow` needs to mend the path when another
    end turns out to be better. ``totals`` gets what was taken off the scores, its first entry that of rows before the
    first new sequence. Returns -1 if no path is possible.
    """
    K, N = log_b.shape
    singly = led_singly(N, log_into.shape[0] > 1)
    tops = np.empty(singly)
    if walk(log_b, log_pi, log_into, places, singly, scores, back[: singly * K].reshape(singly, K), tops) >= 0:
        return -1
    sequence = 0
    for t in range(singly):
        sequence += int(sequence < places.shape[0] and places[sequence] == t)
        totals[sequence] += tops[t]
        path[t] = -1
    if singly < N:
        length = (N - singly) // LANES
        starts, top = np.empty((length, LANES), np.bool_), np.empty((length, 1, LANES))
        stretches = back[singly * K :].reshape(length, K, LANES)
        _mark(places, singly, starts)
        ends = _side_by_side(log_b, log_pi, log_into[0], starts, singly, scores, stretches, top)
        if ends.shape[0] == 0:
            return -1
        _add_tops(places, starts, singly, top, totals)
        _trace_stretches(stretches, ends, path[singly:])
        for k in range(K):
            scores[k] = ends[k, LANES - 1]
    return follow(back, singly, best_of(scores), path)
