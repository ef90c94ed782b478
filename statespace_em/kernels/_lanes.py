"""Vectors of `LANES` doubles in compiled kernels, which work on as many rows at once.

A recursion along time waits for each of its operations; sixteen of them side by side cost as much as one. The compiler
turns the operations on a vector into those that the processor has, whatever their width. In kernels vectors know
``+``, ``*`` and ``/`` with each other, and what is defined here. Arrays hold them in their last axis, (T, K, LANES).
"""

# mypy: allow-untyped-calls
from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.extending import intrinsic, lower_builtin, models, register_model
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature

LANES = 16  # two registers of AVX-512, four of AVX2: what hides the time that an operation takes

vector_code: Any = intrinsic  # to type checkers, which would read the code below as what kernels call
_DOUBLES = ir.VectorType(ir.DoubleType(), LANES)
_FLAGS = ir.VectorType(ir.IntType(1), LANES)


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
