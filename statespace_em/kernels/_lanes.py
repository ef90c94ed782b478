"""Vectors of `LANES` doubles in compiled kernels, which work on as many rows at once.

A recursion along time waits for each of its operations; sixteen of them side by side cost as much as one. The compiler
turns the operations on a vector into those that the processor has, whatever their width. In kernels vectors know
``+``, ``*`` and ``/`` with each other, and what is defined here. Arrays hold them in their last axis, (T, K, LANES).
"""

# mypy: allow-untyped-calls
from __future__ import annotations

import operator
from collections.abc import Callable
from math import factorial, log
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.extending import intrinsic, lower_builtin, models, register_model
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature

from statespace_em.kernels._jit import inlined

LANES = 16  # two registers of AVX-512, four of AVX2: what hides the time that an operation takes

vector_code: Any = intrinsic  # to type checkers, which would read the code below as what kernels call
_DOUBLES = ir.VectorType(ir.DoubleType(), LANES)
_BITS = ir.VectorType(ir.IntType(64), LANES)
_FLAGS = ir.VectorType(ir.IntType(1), LANES)
_EXPONENT, _TWICE_ONE = 0x7FF0000000000000, 0x7FE0000000000000  # bits of a double


class _Lanes(types.Type):
    """Numbers, one a lane."""


class _Mask(types.Type):
    """Truth values, one a lane."""


lanes, mask = _Lanes("Lanes"), _Mask("Mask")
register_model(_Lanes)(lambda manager, kind: models.PrimitiveModel(manager, kind, _DOUBLES))
register_model(_Mask)(lambda manager, kind: models.PrimitiveModel(manager, kind, _FLAGS))


def _constant(kind: Any, value: Any) -> Any:
    return ir.Constant(kind, [value] * LANES)


def _at(context: Any, builder: Any, array_type: Any, array: Any, index: list[Any]) -> Any:
    """Address of an entry of a C-contiguous array."""
    made = context.make_array(array_type)(context, builder, array)
    return cgutils.get_item_pointer(context, builder, array_type, made, index, wraparound=False)


def _filled(builder: Any, value: Any) -> Any:
    """A vector of one value, unless it is one already."""
    if value.type == _DOUBLES:
        return value
    one = builder.insert_element(ir.Constant(_DOUBLES, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    every = _constant(ir.VectorType(ir.IntType(32), LANES), 0)
    return builder.shuffle_vector(one, ir.Constant(_DOUBLES, ir.Undefined), every)


def _operation(symbol: Any, name: str) -> None:
    """Teach the compiler an operation on vectors, or on a vector and a number."""
    cases = [(lanes, lanes), (lanes, types.float64), (types.float64, lanes)]
    template = type(
        f"_{name}", (ConcreteTemplate,), {"key": symbol, "cases": [signature(lanes, *case) for case in cases]}
    )
    infer_global(symbol)(template)

    def lower(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        return getattr(builder, name)(_filled(builder, values[0]), _filled(builder, values[1]))

    for case in cases:
        lower_builtin(symbol, *case)(lower)


for _symbol, _name in (
    (operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul"), (operator.truediv, "fdiv")
):  # fmt: skip
    _operation(_symbol, _name)


def _function(result: Any, arguments: Any, lower: Callable[..., Any]) -> Any:
    """What an intrinsic returns: its types, and what makes its code."""
    return signature(result, *arguments), lower


def _of_numbers(name: str, result: Any, values: Any) -> Any:
    """Lower to an intrinsic of the compiler on vectors of doubles."""

    def lower(context: Any, builder: Any, sig: Any, given: Any) -> Any:
        kind = ir.FunctionType(_DOUBLES, [_DOUBLES] * len(given))
        function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v{LANES}f64")
        return builder.call(function, [_filled(builder, value) for value in given])

    return _function(result, [lanes if value == lanes else types.float64 for value in values], lower)


@vector_code
def load(typing, array, t, k):  # type: ignore[no-untyped-def]
    """Fetch the vector ``array[t, k]``."""

    def lower(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        where = _at(context, builder, sig.args[0], values[0], [*values[1:], ir.Constant(ir.IntType(64), 0)])
        found = builder.load(builder.bitcast(where, _DOUBLES.as_pointer()))
        found.align = 8
        return found

    return _function(lanes, (array, types.int64, types.int64), lower)


@vector_code
def store(typing, array, t, k, value):  # type: ignore[no-untyped-def]
    """Set the vector ``array[t, k]``."""

    def lower(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        where = _at(context, builder, sig.args[0], values[0], [*values[1:3], ir.Constant(ir.IntType(64), 0)])
        builder.store(values[3], builder.bitcast(where, _DOUBLES.as_pointer())).align = 8
        return context.get_dummy_value()

    return _function(types.void, (array, types.int64, types.int64, lanes), lower)


@vector_code
def store_counts(typing, array, t, k, value):  # type: ignore[no-untyped-def]
    """Set the vector ``array[t, k]`` of an array of unsigned integers to whole numbers that it can hold."""

    def lower(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        where = _at(context, builder, sig.args[0], values[0], [*values[1:3], ir.Constant(ir.IntType(64), 0)])
        kind = context.get_data_type(sig.args[0].dtype)
        counts = ir.VectorType(kind, LANES)
        address = builder.bitcast(where, counts.as_pointer())
        builder.store(builder.fptoui(values[3], counts), address).align = kind.width // 8
        return context.get_dummy_value()

    return _function(types.void, (array, types.int64, types.int64, lanes), lower)


@vector_code
def gather(typing, array, k, t, stride):  # type: ignore[no-untyped-def]
    """Fetch ``array[k, t]``, ``array[k, t + stride]``, ..."""

    def lower(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        where = _at(context, builder, sig.args[0], values[0], list(values[1:3]))
        found = ir.Constant(_DOUBLES, ir.Undefined)
        for lane in range(LANES):
            entry = builder.gep(where, [builder.mul(values[3], ir.Constant(ir.IntType(64), lane))])
            found = builder.insert_element(found, builder.load(entry), ir.Constant(ir.IntType(32), lane))
        return found

    return _function(lanes, (array, types.int64, types.int64, types.int64), lower)


@vector_code
def every(typing, value):  # type: ignore[no-untyped-def]
    """Repeat a number in all lanes."""
    return _function(lanes, (types.float64,), lambda context, builder, sig, values: _filled(builder, values[0]))


@vector_code
def below(typing, a, b):  # type: ignore[no-untyped-def]
    """Return where a < b; nowhere where one is NaN."""

    def lower(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        return builder.fcmp_ordered("<", *(_filled(builder, value) for value in values))

    return _function(mask, [lanes if value == lanes else types.float64 for value in (a, b)], lower)


@vector_code
def where(typing, condition, a, b):  # type: ignore[no-untyped-def]
    """Return a where the condition holds, else b."""

    def lower(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        return builder.select(values[0], *(_filled(builder, value) for value in values[1:]))

    return _function(lanes, [mask, *(lanes if value == lanes else types.float64 for value in (a, b))], lower)


@vector_code
def scatter(typing, array, k, t, stride, value):  # type: ignore[no-untyped-def]
    """Set ``array[k, t]``, ``array[k, t + stride]``, ..."""

    def lower(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        where = _at(context, builder, sig.args[0], values[0], list(values[1:3]))
        for lane in range(LANES):
            entry = builder.gep(where, [builder.mul(values[3], ir.Constant(ir.IntType(64), lane))])
            builder.store(builder.extract_element(values[4], ir.Constant(ir.IntType(32), lane)), entry)
        return context.get_dummy_value()

    return _function(types.void, (array, types.int64, types.int64, types.int64, lanes), lower)


@vector_code
def flags(typing, array, t):  # type: ignore[no-untyped-def]
    """Fetch the truth values ``array[t]`` of an array of bool (T, LANES)."""

    def lower(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        where = _at(context, builder, sig.args[0], values[0], [values[1], ir.Constant(ir.IntType(64), 0)])
        bytes_ = ir.VectorType(ir.IntType(8), LANES)
        found = builder.load(builder.bitcast(where, bytes_.as_pointer()))
        found.align = 1
        return builder.icmp_unsigned("!=", found, _constant(bytes_, 0))

    return _function(mask, (array, types.int64), lower)


@vector_code
def fma(typing, a, b, c):  # type: ignore[no-untyped-def]
    """Return a * b + c; each a vector or a number."""
    return _of_numbers("fmuladd", lanes, (a, b, c))


@vector_code
def larger(typing, a, b):  # type: ignore[no-untyped-def]
    """Return the larger of each two; of a number and NaN the number."""
    return _of_numbers("maxnum", lanes, (a, b))


@vector_code
def size_of(typing, a):  # type: ignore[no-untyped-def]
    """Return the absolute values."""
    return _of_numbers("fabs", lanes, (a,))


@vector_code
def everywhere(typing, condition):  # type: ignore[no-untyped-def]
    """Whether a condition holds in all lanes."""

    def lower(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        bits = builder.bitcast(values[0], ir.IntType(LANES))
        return builder.icmp_unsigned("==", bits, ir.Constant(bits.type, -1))

    return _function(types.boolean, (mask,), lower)


@vector_code
def anywhere(typing, condition):  # type: ignore[no-untyped-def]
    """Whether a condition holds in any lane."""

    def lower(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        bits = builder.bitcast(values[0], ir.IntType(LANES))
        return builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))

    return _function(types.boolean, (mask,), lower)


@vector_code
def to_one(typing, a):  # type: ignore[no-untyped-def]
    """Return the powers of two that bring positive numbers into [1, 2); 2**1023 for 0 and what is next to it."""

    def lower(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        exponent = builder.and_(builder.bitcast(values[0], _BITS), _constant(_BITS, _EXPONENT))
        return builder.bitcast(builder.sub(_constant(_BITS, _TWICE_ONE), exponent), _DOUBLES)

    return _function(lanes, (lanes,), lower)


@vector_code
def exponent(typing, a):  # type: ignore[no-untyped-def]
    """Return the whole numbers n of positive numbers in [2**n, 2**(n + 1))."""

    def lower(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        shifted = builder.lshr(builder.bitcast(values[0], _BITS), _constant(_BITS, 52))
        return builder.fsub(builder.uitofp(shifted, _DOUBLES), _constant(_DOUBLES, 1023.0))

    return _function(lanes, (lanes,), lower)


@vector_code
def two_to(typing, shifted):  # type: ignore[no-untyped-def]
    """Return 2**n of what `exp` makes of whole numbers n: the last bits of n + `_SHIFT` are those of n."""

    def lower(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        biased = builder.add(builder.bitcast(values[0], _BITS), _constant(_BITS, 1023))
        return builder.bitcast(builder.shl(biased, _constant(_BITS, 52)), _DOUBLES)

    return _function(lanes, (lanes,), lower)


_SHIFT = 1.5 * 2.0**52  # to add it rounds to a whole number
_LOWEST = -708.0  # exp of less is taken as 0, less than a normal double
_LOG2_E = 1.0 / log(2.0)
_LN2 = 0.69314718036912381649  # its last bits are 0, so that small multiples are exact
_LN2_REST = 1.9082149292705877e-10  # ln 2 is the sum of the two
_TAYLOR = tuple(1.0 / factorial(n) for n in range(14))  # the next term is below 4e-18 for arguments up to ln(2) / 2


@inlined
def exp(x):  # type: ignore[no-untyped-def]
    """Exponential of numbers up to 0, within two units in the last place; NaN stays NaN."""
    shifted = fma(x, _LOG2_E, _SHIFT)
    n = shifted - _SHIFT
    r = fma(n, -_LN2_REST, fma(n, -_LN2, x))
    total = every(_TAYLOR[13])
    for i in range(12, -1, -1):
        total = fma(total, r, _TAYLOR[i])
    return where(below(x, _LOWEST), 0.0, total * two_to(shifted))
