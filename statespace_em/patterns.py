"""Structure of a matrix of real numbers: which entries are fixed, which are free, which are tied.

A matrix is ``constant + sum of values[j] * design[j]``; the free values have names. It is written as a word
("free", "diagonal", ...), as an array of numbers (fixed), or entry by entry with numbers and names, where the same
name twice is one value: ``[["phi", 0], [0, "phi"]]``. An entry may be an expression: ``"-b"``, ``"1 + 2*q"``, and a
product of names that also stand alone, as in the multiplicative seasonal models: ``"theta*Theta"``.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from statespace_em._typing import Bools, Floats, Ints
from statespace_em.errors import ParameterError

SQUARE_WORDS = ("zero", "free", "diagonal", "scalar", "equal", "identity")
WORDS = ("zero", "free", "equal")


@dataclass(frozen=True, eq=False)
class Pattern:
    """A family of arrays of one shape: ``constant + sum of values * design + sum of products of values * extra``."""

    names: tuple[str, ...]  # of the free values
    constant: Floats  # (...)
    design: Floats  # (n_free, ...)
    products: tuple[tuple[int, ...], ...] = ()  # positions of the values in each product; most families are affine
    extra: Floats | None = None  # (n_products, ...)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self.constant.shape

    @property
    def flat(self) -> Floats:
        """Design with the entries of the array in a row (n_free, entries)."""
        return self.design.reshape(len(self.names), self.constant.size)

    @cached_property
    def touched(self) -> Bools:
        """Entries that depend on a free value."""
        touched = (self.design != 0.0).any(0)
        return np.asarray(touched if self.extra is None else touched | (self.extra != 0.0).any(0))

    @cached_property
    def linked(self) -> Bools:
        """Entries that are not zero."""
        return np.asarray(self.touched | (self.constant != 0.0))

    @cached_property
    def is_plain(self) -> bool:
        """Whether every free value is one entry as it is, and no entry is the sum of several terms."""
        flat = self.flat
        if self.products:
            return False
        single = ((flat != 0.0).sum(1) == 1).all() and ((flat == 0.0) | (flat == 1.0)).all()
        return bool(single and (flat.sum(0) <= 1.0).all() and not self.constant[self.touched].any())

    @property
    def is_whole(self) -> bool:
        """Whether every entry is free for itself."""
        return self.is_plain and len(self.names) == self.constant.size

    @cached_property
    def columns(self) -> Ints | None:
        """Columns of a matrix that are free, every entry for itself; None where one is free in part or tied."""
        free = self.touched.any(0)
        whole = self.is_plain and (self.touched.all(0) | ~free).all()
        return np.flatnonzero(free) if whole else None

    @cached_property
    def _inverse(self) -> Floats:
        """Reads the free values, whatever their products are."""
        whole = self.flat
        if self.extra is not None:
            whole = np.vstack([whole, self.extra.reshape(len(self.products), self.constant.size)])
        return np.asarray(np.linalg.pinv(whole.T))[: len(self.names)]

    @cached_property
    def _places(self) -> Ints:
        """Entry of each free value, where every value is one entry."""
        return np.asarray(self.flat.argmax(1))

    def build(self, values: Floats) -> Floats:
        """Array from the free values."""
        if not self.names:
            return self.constant
        array = self.constant + self.moved(values)
        if self.extra is None:
            return array
        return np.asarray(array + np.tensordot([np.prod(values[list(term)]) for term in self.products], self.extra, 1))

    def shifted(self, array: Floats, change: Floats) -> Floats:
        """Array of the family where the free values of another change by so much."""
        return array + self.moved(change) if self.extra is None else self.build(self.read(array) + change)

    def tangent(self, array: Floats) -> Pattern:
        """Affine family that touches this one at one of its arrays."""
        if self.extra is None:
            return self
        values, design = self.read(array), np.array(self.design)
        for term, part in zip(self.products, self.extra):
            for place, j in enumerate(term):
                design[j] += np.prod(values[[*term[:place], *term[place + 1 :]]]) * part
        return Pattern(self.names, array - np.tensordot(values, design, 1), design)

    def moved(self, change: Floats) -> Floats:
        """Change of the array where the free values of an affine family change by so much."""
        if not self.is_plain:
            return np.asarray(np.tensordot(change, self.design, 1))
        flat = np.zeros(self.constant.size)
        flat[self._places] = change
        return flat.reshape(self.shape)

    def read(self, array: Floats) -> Floats:
        """Free values of an array: those that come closest to it."""
        if self.is_plain:
            return np.ravel(array)[self._places]
        return np.asarray(self._inverse @ (array - self.constant).ravel())

    def holds(self, array: Floats) -> bool:
        """Whether an array is of this family, up to round-off."""
        off = np.abs(self.build(self.read(array)) - array)
        return bool((off <= 1e-8 * max(float(np.abs(array).max(initial=0.0)), 1e-300)).all())

    def pull_back(self, gradient: Floats) -> Floats:
        """Gradient with respect to the free values from that with respect to the entries."""
        if self.is_plain:
            return np.ravel(gradient)[self._places]
        return np.asarray(self.flat @ np.ravel(gradient))

    def steps(self, units: Floats) -> Floats:
        """Unit of each free value from those of the entries."""
        if self.is_plain:
            return self.read(units)
        used = self.flat != 0.0
        return np.asarray((used * units.ravel()).sum(1) / used.sum(1))

    @property
    def on_diagonal(self) -> list[str]:
        """Names that stand on the diagonal of a square matrix."""
        return [name for name, part in zip(self.names, self.design) if np.diag(part).any()]

    def dense(self, begin: int, end: int) -> Floats:
        """Design (n_free, kinds, ...) by kind of row, of which there is one."""
        return self.design[:, None]


def fixed(array: Any) -> Pattern:
    """Return the pattern without free values."""
    array = np.asarray(array, dtype=float)
    return Pattern((), array, np.zeros((0, *array.shape)))


def beside(patterns: list[Pattern]) -> Pattern:
    """Put matrices (vectors as columns) side by side; names of different matrices are different values."""
    names = tuple(name for pattern in patterns for name in pattern.names)
    parts, designs, first = [], [], 0
    for pattern in patterns:
        rows = len(pattern.constant)
        parts.append(pattern.constant.reshape(rows, pattern.constant.size // rows))
        design = np.zeros((len(names), rows, parts[-1].shape[1]))
        design[first : first + len(pattern.names)] = pattern.design.reshape(
            len(pattern.names), rows, parts[-1].shape[1]
        )
        designs.append(design)
        first += len(pattern.names)
    return Pattern(names, np.hstack(parts), np.concatenate(designs, axis=2))


def _entries(where: Sequence[Sequence[tuple[int, ...]]], shape: tuple[int, ...]) -> Floats:
    """Design with ones at these places, a list of places for every free value."""
    design = np.zeros((len(where), *shape))
    for j, places in enumerate(where):
        for place in places:
            design[(j, *place)] = 1.0
    return design


def from_word(word: str, shape: tuple[int, ...], name: str, *, symmetric: bool) -> Pattern:
    """Return the pattern that a word stands for; ``name`` is that of the matrix, for messages and for names."""
    if "+" in word:
        return _blocks(word, shape, name, symmetric=symmetric)
    square = len(shape) == 2 and shape[0] == shape[1]
    allowed = SQUARE_WORDS if square else WORDS
    if word not in allowed:
        raise ParameterError(
            f"{name} is {word!r}, expected one of {', '.join(map(repr, allowed))}, an array of numbers, or a matrix "
            "of numbers and names."
        )
    size = shape[0]
    zero = np.zeros(shape)
    if word in ("zero", "identity"):
        return fixed(zero if word == "zero" else np.eye(size))
    diagonal = [(i, i) for i in range(size)]
    if word == "free" and symmetric:
        places = [[(i, j), (j, i)] for i in range(size) for j in range(i + 1)]
    elif word == "free":
        places = [[place] for place in np.ndindex(shape)]
    elif word == "diagonal":
        places = [[place] for place in diagonal]
    elif word == "scalar":
        return Pattern((name,), zero, _entries([diagonal], shape))
    elif square:
        off = [(i, j) for i in range(size) for j in range(size) if i != j]
        names = (f"{name} diagonal", f"{name} off-diagonal")[: 2 if off else 1]
        return Pattern(names, zero, _entries([diagonal, off][: len(names)], shape))
    else:
        return Pattern((name,), zero, _entries([list(np.ndindex(shape))], shape))
    names = tuple(f"{name}[{', '.join(map(str, p[0]))}]" for p in places)
    return Pattern(names, zero, _entries(places, shape))


def _blocks(text: str, shape: tuple[int, ...], name: str, *, symmetric: bool) -> Pattern:
    """Block-diagonal pattern written as words with sizes: "free 2 + diagonal 3"."""
    parts = [part.split() for part in text.split("+")]
    if not all(len(part) == 2 and part[1].isdigit() for part in parts):
        raise ParameterError(f"{name} is {text!r}, expected blocks as in 'free 2 + diagonal 1'.")
    sizes = [int(part[1]) for part in parts]
    if len(shape) != 2 or shape != (sum(sizes), sum(sizes)):
        raise ParameterError(f"{name} is {text!r}, blocks of {sum(sizes)} rows in all, expected shape {shape}.")
    names: list[str] = []
    constant, designs, begin = np.zeros(shape), [], 0
    for i, (word, _) in enumerate(parts):
        end = begin + sizes[i]
        part = from_word(word, (sizes[i], sizes[i]), f"{name} block {i}", symmetric=symmetric)
        names += part.names
        constant[begin:end, begin:end] = part.constant
        wide = np.zeros((len(part.names), *shape))
        wide[:, begin:end, begin:end] = part.design
        designs.append(wide)
        begin = end
    return Pattern(tuple(names), constant, np.concatenate(designs))


def from_entries(rows: Any, name: str, *, symmetric: bool) -> Pattern:
    """Return the pattern written entry by entry, with numbers and names; a vector has no rows.

    Raises
    ------
    ParameterError
        If rows differ in length, an entry is neither a number nor an expression linear in names, or a covariance is
        not symmetric.
    """
    array = np.empty(_shape(rows, name), dtype=object)
    for place in np.ndindex(array.shape):
        entry = rows
        for i in place:
            entry = entry[i]
        array[place] = entry
    terms = {place: terms_of(array[place], name, place) for place in np.ndindex(array.shape)}
    found = list(dict.fromkeys(term for parts in terms.values() for term in parts if term))
    names = tuple(term[0] for term in found if len(term) == 1)
    products = [term for term in found if len(term) > 1]
    _check_products(terms, names, array, name, symmetric=symmetric)
    constant, design = np.zeros(array.shape), np.zeros((len(names), *array.shape))
    extra = np.zeros((len(products), *array.shape))
    for place, parts in terms.items():
        for term, factor in parts.items():
            if not term:
                constant[place] += factor
            elif len(term) == 1:
                design[(names.index(term[0]), *place)] += factor
            else:
                extra[(products.index(term), *place)] += factor
    pattern = Pattern(names, constant, design)
    if products:
        places = tuple(tuple(names.index(word) for word in term) for term in products)
        pattern = replace(pattern, products=places, extra=extra)
        whole = np.vstack([pattern.flat, extra.reshape(len(products), array.size)])
        if np.linalg.matrix_rank(whole) < len(names) + np.linalg.matrix_rank(whole[len(names) :]):
            place = tuple(int(i) for i in np.argwhere((extra != 0.0).any(0))[0])
            raise ParameterError(
                f"{name} has the entry {array[place]!r} at {place}, a product, but its names cannot be told from it: "
                "let each stand in an entry without products."
            )
    if symmetric:
        check_symmetric(pattern, name, array)
    return pattern


def _shape(rows: Any, name: str) -> tuple[int, ...]:
    if not _is_list(rows):
        words = ", ".join(map(repr, WORDS))
        raise ParameterError(
            f"{name} is {rows!r}, expected one of {words} or another word, an array of numbers, or numbers and names."
        )
    if not any(map(_is_list, rows)):
        return (len(rows),)
    lengths = [len(row) if _is_list(row) else None for row in rows]
    if len(set(lengths)) > 1:
        raise ParameterError(f"{name} has rows of different lengths: {lengths}.")
    return (len(rows), len(rows[0]))


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple | np.ndarray)


def check_symmetric(pattern: Pattern, name: str, written: Any = None) -> None:
    """Refuse a pattern that is not symmetric; ``written`` has the entries as the user gave them."""
    parts = [pattern.constant, *pattern.design]
    if any(part.ndim != 2 or part.shape[0] != part.shape[1] for part in parts):
        raise ParameterError(f"{name} has shape {pattern.shape}, expected a square matrix.")
    for part in parts:
        off = np.argwhere(part != part.T)
        if len(off):
            i, j = (int(k) for k in off[0])
            written = part if written is None else written
            raise ParameterError(
                f"{name} is not symmetric: entry ({i}, {j}) is {written[i, j]!r}, entry ({j}, {i}) {written[j, i]!r}."
            )


Terms = dict[tuple[str, ...], float]  # factor of each product of names; () is the number


def _check_products(
    terms: dict[tuple[int, ...], Terms], names: tuple[str, ...], array: Any, name: str, *, symmetric: bool
) -> None:
    for place, parts in terms.items():
        for term in parts:
            if len(term) > 1 and (symmetric or not set(term) <= set(names)):
                lost = next((word for word in term if word not in names), None)
                why = "products have no place in a covariance" if symmetric else f"{lost!r} stands nowhere alone"
                raise ParameterError(f"{name} has the entry {array[place]!r} at {place}, a product, but {why}.")


def terms_of(entry: Any, name: str, place: tuple[int, ...]) -> Terms:
    """Number, names and products of names in one entry of a matrix, each with its factor."""
    if isinstance(entry, str):
        try:
            return _expression(ast.parse(entry.strip(), mode="eval").body)
        except SyntaxError:
            if entry.strip() and not set(entry) & set("+-*/()"):
                return {(entry.strip(),): 1.0}  # a name of several words
        except ValueError:
            pass
        raise ParameterError(
            f"{name} has the entry {entry!r} at {place}, expected a number, a name, or an expression in names such as "
            "'-b', '1 + 2*q' or 'a*b'."
        )
    try:
        number = float(entry)
    except (TypeError, ValueError):
        raise ParameterError(f"{name} has the entry {entry!r} at {place}, expected a number or a name.") from None
    if not np.isfinite(number):
        raise ParameterError(f"{name} has the entry {entry!r} at {place}, expected a finite number or a name.")
    return {(): number}


def _expression(node: ast.expr) -> Terms:
    """Terms of a parsed expression; ValueError where it is no polynomial."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        return {(): float(node.value)}
    if isinstance(node, ast.Name):
        return {(node.id,): 1.0}
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        sign = -1.0 if isinstance(node.op, ast.USub) else 1.0
        return _product(_expression(node.operand), {(): sign})
    if isinstance(node, ast.BinOp):
        left, right = _expression(node.left), _expression(node.right)
        if isinstance(node.op, ast.Add | ast.Sub):
            right = _product(right, {(): 1.0 if isinstance(node.op, ast.Add) else -1.0})
            return {term: left.get(term, 0.0) + right.get(term, 0.0) for term in dict.fromkeys((*left, *right))}
        if isinstance(node.op, ast.Mult):
            return _product(left, right)
        if isinstance(node.op, ast.Div) and set(right) == {()} and right[()]:
            return _product(left, {(): 1.0 / right[()]})
    raise ValueError("not a polynomial")


def _product(left: Terms, right: Terms) -> Terms:
    found: Terms = {}
    for one, factor in left.items():
        for other, times in right.items():
            term = tuple(sorted((*one, *other)))
            found[term] = found.get(term, 0.0) + factor * times
    return found


def components(linked: Bools) -> list[Ints]:
    """Blocks of a covariance: sets of rows that no entry links to the others, in the order of their first row."""
    left, found = list(range(len(linked))), []
    while left:
        block = [left[0]]
        for i in block:
            block += [j for j in left if linked[i, j] and j not in block]
        found.append(np.array(sorted(block)))
        left = [i for i in left if i not in block]
    return found
