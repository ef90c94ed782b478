"""What a user says that states share: whole emissions, or single parameters of them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from statespace_em._typing import Floats, Ints
from statespace_em.emissions import sharing
from statespace_em.errors import ParameterError
from statespace_em.labels import show

Dims = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, eq=False)
class Ties:
    """Which states have the same value of which parameter of their emissions."""

    groups: Mapping[str, Ints]  # number of the value of each state (K,), of every parameter that differs by state

    @property
    def cells(self) -> Ints | None:
        """Number of the emission of each state (K,): the same where all parameters are; None where none are."""
        if not self.groups:
            return None
        _, cells = np.unique(np.stack(list(self.groups.values())), axis=1, return_inverse=True)
        own = _numbered(cells.ravel().tolist())
        return None if own.max() + 1 == len(own) else own

    @property
    def of_cells(self) -> sharing.Ties:
        """Parameters that different emissions share, as a family takes them."""
        cells = self.cells
        found = {}
        for name, groups in self.groups.items():
            own = groups if cells is None else groups[sharing.representatives(cells)]
            if len(set(own.tolist())) < len(own):
                found[name] = tuple(_numbered(own.tolist()).tolist())
        return tuple(found.items())

    def invariant(self, order: Ints) -> bool:
        """Whether the states may be put in this order: what they share does not tell them apart."""
        same = (groups[:, None] == groups for groups in self.groups.values())
        return all(np.array_equal(alike[np.ix_(order, order)], alike) for alike in same)

    def check(self, arrays: Mapping[str, Floats], names: Sequence[Any]) -> None:
        """Raise ParameterError where states that share a parameter have different values of it."""
        for name in set(self.groups) & set(arrays):
            value, groups = arrays[name], self.groups[name]
            first = sharing.representatives(groups)[groups]
            off = [k for k in range(len(names)) if not np.allclose(value[k], value[first[k]], rtol=1e-10, atol=0.0)]
            if off:
                one, other = (show(names[int(k)]) for k in (first[off[0]], off[0]))
                raise ParameterError(
                    f"{name} of states {one} and {other} differ, but tie= of the model says that they share "
                    f"{'it' if self.of_cells else 'their emission'}: give them the same value."
                )


def read_ties(given: Any, names: Sequence[Any], dims: Dims) -> Ties:
    """Read groups of states that share their emission, or single parameters of it.

    Parameters
    ----------
    given
        A list of groups of names of states, or a mapping from names of states to the label of their group: these
        share everything. Or a mapping from names of parameters to such groups, or to "all".
    names
        Of the states.
    dims
        Dimensions of the parameters of the family.

    Raises
    ------
    ParameterError
        Naming what is no state or no parameter of the states, and what is named twice.
    """
    if given is None:
        return Ties({})
    by_state = [name for name, own in dims.items() if own[0] == "state"]
    if isinstance(given, Mapping) and not _names_states(given, names):
        for name in given:
            _check_parameter(name, dims)
        read = {name: _groups(f"tie of {name}", given[name], names) for name in given}
        groups = {name: read.get(name, np.arange(len(names))) for name in by_state}
    else:
        groups = dict.fromkeys(by_state, _groups("tie", given, names))
    shared = any(len(set(own.tolist())) < len(names) for own in groups.values())
    return Ties(groups if shared else {})


def _names_states(given: Mapping[Any, Any], names: Sequence[Any]) -> bool:
    """Whether a mapping is from states to labels; one from parameters has groups as values."""
    labels = all(isinstance(value, Hashable) and not isinstance(value, tuple) for value in given.values())
    return labels and any(key in names for key in given)


def _check_parameter(name: Any, dims: Dims) -> None:
    if name not in dims:
        raise ParameterError(
            f"tie names {show(name)}, which is neither a state nor a parameter of the emissions: these are "
            f"{', '.join(map(repr, dims))}. Probabilities of the chain are fixed by transition= and initial=."
        )
    if dims[name][0] != "state":
        raise ParameterError(f"tie names {name!r}, of which there is one for all states already: leave it out.")


def _groups(what: str, given: Any, names: Sequence[Any]) -> Ints:
    """Number of the group of each state (K,)."""
    if isinstance(given, str) and given == "all":
        return np.zeros(len(names), dtype=np.int64)
    if isinstance(given, Mapping):
        groups = [[s for s in given if given[s] == label] for label in dict.fromkeys(given.values())]
    elif isinstance(given, Sequence) and not isinstance(given, str) and all(map(_is_group, given)):
        groups = [list(group) for group in given]
    else:
        raise ParameterError(f"{what} is {given!r}, expected a list of groups of states, such as [['a', 'b']].")
    label: dict[Any, int] = {}
    for number, group in enumerate(groups):
        for state in group:
            if state not in names:
                raise ParameterError(f"{what} names {show(state)}, which is not a state: the states are {list(names)}.")
            if state in label:
                raise ParameterError(f"{what} names {show(state)} twice: put it in one group.")
            label[state] = number
    return _numbered([label.get(state, len(groups) + i) for i, state in enumerate(names)])


def _is_group(item: Any) -> bool:
    return isinstance(item, Sequence) and not isinstance(item, str)


def _numbered(keys: Sequence[Any]) -> Ints:
    """Numbers 0, 1, ... of labels in the order in which they first occur."""
    order = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    return np.array([order[key] for key in keys], dtype=np.int64)
