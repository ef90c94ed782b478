"""Designs as the command line names them: a word, or a sum written as in Python."""

from __future__ import annotations

import ast
from typing import Any

import numpy as np

from statespace_em import LinearGaussianSSM, designs
from statespace_em.cli.arguments import UsageError
from statespace_em.model import LatentModel
from statespace_em.sequence.state_space import StateSpaceModel

PLANES = ({"east", "north"}, {"x", "y"})
DESIGNS = tuple(name for name in designs.__all__ if name.islower() and name != "regression")  # which has rows of X
MOTIONS = {"velocity": designs.constant_velocity, "acceleration": designs.constant_acceleration}
EXPECTED = f'level, velocity, acceleration, free, or a sum as "local_trend() + seasonal(12)" of {", ".join(DESIGNS)}'


def usual_design(states: int | None, columns: list[str]) -> str:
    """Word of the design where the command line has none."""
    if {name.lower() for name in columns} in PLANES and states in (None, 4):
        return "velocity"
    return "level" if states is None else "free"


def designed(text: str, columns: list[str], names: list[str] | None, states: int | None) -> LatentModel:
    """Model of a design for these columns; ``names`` and ``states`` are what was said besides, and may not differ.

    Raises
    ------
    UsageError
        If the text is no design, or its states are others.
    """
    if text == "level":
        model = _level(columns, names)
    elif text in MOTIONS:
        model = MOTIONS[text](columns)
    else:
        model = _summed(text)
    own = model._names()
    for given in (None if names is None else len(names), states):
        if given not in (None, len(own)):
            what = f"the {text} design of {', '.join(columns)}"
            count = f"{len(own)} state{'s' * (len(own) != 1)}"
            raise UsageError(f"{what} has {count} ({', '.join(map(str, own))}), not {given}.")
    if names is not None and names != own:
        raise UsageError(f"the states of the {text} design have names: {', '.join(map(str, own))}. Leave out --names.")
    return model


def _level(columns: list[str], names: list[str] | None) -> StateSpaceModel:
    """A random walk seen through noise; several may move together."""
    size = len(columns)
    if size == 1 and names is None:
        return designs.local_level()
    states: Any = names if names is not None and len(names) == size else columns
    return LinearGaussianSSM(states, transition=np.eye(size), observation=np.eye(size), initial="diffuse")


def _summed(text: str) -> Any:
    try:
        return _value(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, _NoDesignError):
        raise UsageError(f"--design {text!r} is no design, expected {EXPECTED}.") from None


class _NoDesignError(Exception):
    """Python, but no design."""


def _value(node: ast.AST) -> Any:
    """Model of a name, a call with plain values, or a sum of these: nothing else is run."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _value(node.left) + _value(node.right)
    if isinstance(node, ast.Name) and node.id in DESIGNS:
        return _value(ast.Call(node, [], []))
    if not isinstance(node, ast.Call):
        raise _NoDesignError
    try:
        values = [ast.literal_eval(value) for value in node.args]
        options = {str(word.arg): ast.literal_eval(word.value) for word in node.keywords if word.arg is not None}
    except ValueError:
        raise _NoDesignError from None
    if isinstance(node.func, ast.Attribute) and node.func.attr == "on":
        return _value(node.func.value).on(*values, **options)
    if isinstance(node.func, ast.Name) and node.func.id in DESIGNS:
        return getattr(designs, node.func.id)(*values, **options)
    raise _NoDesignError
