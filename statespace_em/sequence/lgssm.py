"""The linear-Gaussian state-space model, written down matrix by matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, Literal

import numpy as np

from statespace_em._typing import Floats
from statespace_em.errors import ParameterError
from statespace_em.labels import state_names
from statespace_em.patterns import Pattern, fixed, from_word
from statespace_em.priors import InverseWishart, MatrixNormal
from statespace_em.row_entries import n_rows_of
from statespace_em.row_panels import common, end_to_end
from statespace_em.row_patterns import RowPattern
from statespace_em.segments import Segments
from statespace_em.sequence.decays import found_in
from statespace_em.sequence.lgssm_checks import check
from statespace_em.sequence.lgssm_loading import loaded, loaded_rows
from statespace_em.sequence.lgssm_params import INPUTS, NDIM
from statespace_em.sequence.lgssm_specification import (
    DIM_KIND,
    DIMS,
    OPTIONAL,
    Specification,
    infer_size,
    parse_initial,
    parse_loading,
    parse_matrix,
    segments_in,
)
from statespace_em.sequence.lgssm_stationary import stationary_moments
from statespace_em.sequence.lgssm_structure import COVARIANCES, STEPS
from statespace_em.sequence.state_space import StateSpaceModel

DISTURBANCES = ("disturbance", "disturbance_aux")
MOVING = ("transition", "process_cov")
MATRICES = tuple(name for name in DIMS if not name.startswith("initial"))


@dataclass(eq=False, repr=False)
class LinearGaussianSSM(StateSpaceModel):
    """State-space model with linear dynamics and Gaussian noise (Kalman 1960; EM: Shumway & Stoffer 1982).

    ``s[t+1] = transition @ s[t] + state_offset + state_input @ u[t] + w``, w ~ N(0, process_cov), and
    ``y[t] = observation @ s[t] + observation_offset + observation_input @ u[t] + v``, v ~ N(0, measurement_cov); the
    first state has ``initial_mean`` and ``initial_cov`` before the first row is seen, and u are known inputs, given
    to every question as ``inputs=``: ``fit(y, inputs=U)``, ``forecast(y, 12, inputs=U)``. Single missing entries are
    left out exactly. A row is a step: where samples are missing from an even grid, their rows must be there, with NaN.

    Parameters
    ----------
    states
        Number of states, or their names; None takes the number from the matrices.
    transition, process_cov, observation, measurement_cov, state_offset, observation_offset
        What is free in each matrix. A word: "free", "zero", "equal" (one value; of a square matrix one on the diagonal
        and one beside it), "diagonal", "scalar" (one value times the identity), "identity", or blocks such as
        "free 2 + diagonal 1". An array of numbers: fixed; with a leading axis of rows (a DataArray with a ``time``
        dim): known at every row. A matrix of numbers and names: names are free, the same name is one value, and
        an entry may be linear in names, as in ``[["phi", 0], [0, "1 - phi"]]``. A pair of a name and a matrix: a free
        scale of a known matrix. A row of a matrix without noise must be fixed.
        What changes over rows may have names as well: an entry may be an array with one element a row, numbers or
        names, or a dict of names and factors, ``{"beta": x}``; a dict or a pair in place of the matrix is the sum of
        names times arrays (rows, ...); and an array (rows, ...) may hold numbers and names. Rows after the last of y
        are of its future, which forecasts need. Entry t leads from row t to the next in what moves the states.
        What sequences have of their own stands by their names: a factor ``{"r": {"north": u, "south": v}}``, numbers
        for good or arrays (rows,), or a DataArray with a ``sequence`` dim, of an entry or of the matrix.
    state_input, observation_input
        Effects of known inputs (state, input) and (feature, input), written likewise, for every row too: with a break,
        ``[[np.where(late, "after", "before")]]``, or factors of names; "zero" is none. The effects on
        the states act from the row of the inputs to the next. Both sides see all columns of ``inputs=``: a column
        of zeros leaves one out.
    process_loading, measurement_loading
        How disturbances enter: known matrices G (state, disturbance) and H (feature, disturbance), or one a row (rows,
        state, disturbance), where a disturbance may be left out of rows by a column of zeros. ``process_cov`` and
        ``measurement_cov`` are then written for the disturbances, and ``params_`` has G Q G' and H R H', which may
        be singular; None is the identity.
    initial
        "diffuse": nothing is known of the first state (exact, no large numbers). "fixed": it is a constant to be
        estimated (generalised least squares), one for all sequences. "stationary": it has the distribution that the
        dynamics settle to (those of the first row, where rows have others). "known": ``initial_mean`` and
        ``initial_cov`` as given here or in ``start``. A list gives one of these words for each state.
        "estimated": the mean, and with several sequences the covariance. One sequence cannot tell
        it (its estimate runs to 0): there it is held where ``start`` gives it and "tied" where not. "tied": the
        mean is estimated and the covariance is ``process_cov``, as after one step from a fixed but unknown state.
        "free": both in any case. A covariance that is held means nothing in an arbitrary basis:
        with all matrices free, EM would change the basis without end to make it small.
    initial_mean, initial_cov
        Values for "known"; for "estimated" and "free" also words, or matrices of numbers and names.
    likelihood
        Which density a diffuse start leaves. "diffuse": the diffuse observations contribute -1/2 log F, without
        1/2 log 2 pi (Durbin & Koopman 2012, sec. 7.2.2; KFAS). "full": with it, so that every observation has one.
        "marginal": that of the data free of the unknown start, the same however the state is written down
        (Francke, Koopman & de Vos 2010).
    process_prior, measurement_prior
        Inverse-Wishart priors on the noise covariances; flat by default. With breaks every covariance has it, that
        before and that after.
    transition_prior, observation_prior
        Matrix-normal priors on [transition, state_offset, state_input] given process_cov, and on [observation,
        observation_offset, observation_input] given measurement_cov: columns for the states, then for those of
        the others that the model has. Flat by default.
    unsorted
        "error" or "sort": what to do with timestamps that do not increase.

    Notes
    -----
    Where the likelihood is highest with a singular noise, the fit ends there and says so in
    ``params_["measurement_cov"].attrs["boundary"]`` (or ``"process_cov"``, ``"initial_cov"``).

    With everything free the basis of the states is arbitrary: fix ``observation`` (or ``transition``) at a
    value with a meaning. ``params_`` has infinite variances in ``initial_cov`` where the start is diffuse.

    Examples
    --------
    A local level for the Nile (Durbin & Koopman 2012, ch. 2):

    >>> import statespace_em as sse
    >>> model = sse.LinearGaussianSSM(transition=[[1]], process_cov=[["level"]], observation=[[1]], initial="diffuse")
    >>> model = model.fit(sse.datasets.nile())
    >>> round(model.score(sse.datasets.nile()), 4)
    -632.5456
    >>> model.summary().loc["level", "value"].round(0).item()
    1469.0

    A sensor that reports its accuracy: noise known up to a scale, row by row. And a break at a known time, in the
    noise of the level:

    >>> import numpy as np
    >>> flow = sse.datasets.nile()
    >>> accuracy = np.where(flow.index < 1902, 4.0, 1.0)          # variance, in units of the later instrument
    >>> level = {"transition": [[1]], "observation": [[1]], "initial": "diffuse"}
    >>> model = sse.LinearGaussianSSM(**level, process_cov=[["q"]], measurement_cov=[[{"r": accuracy}]]).fit(flow)
    >>> model.params_["measurement_cov"].sizes["time"], model.n_parameters_
    (100, 2)
    >>> regime = np.where(flow.index < 1899, "before", "after")
    >>> model = sse.LinearGaussianSSM(**level, process_cov=[[regime]], measurement_cov=[["r"]]).fit(flow)
    >>> model.summary().index.get_level_values("parameter").tolist()
    ['before', 'after', 'r']

    Sensors that report when and as accurately as they like, one a sequence, with one scale:

    >>> halves = {"early": flow[:50], "late": flow[50:]}
    >>> own = {"early": accuracy[:50], "late": accuracy[50:]}
    >>> model = sse.LinearGaussianSSM(**level, process_cov=[["q"]], measurement_cov=[[{"r": own}]]).fit(halves)
    >>> model.summary().index.get_level_values("parameter").tolist()
    ['q', 'r']

    An intervention, the dam of 1899; a coefficient with a season in the transition; the slope of a regressor in the
    view of a state:

    >>> dam = [{"dam": flow.index >= 1899}]
    >>> model = sse.LinearGaussianSSM(
    ...     **level, process_cov=[["q"]], measurement_cov=[["r"]], observation_offset=dam
    ... ).fit(flow)
    >>> model.summary().loc["dam", "value"].round(0).item()
    -248.0
    >>> turn = 2 * np.pi * np.arange(len(flow)) / 11
    >>> swing = sse.LinearGaussianSSM(transition=[[{"mean": 1, "cos": np.cos(turn), "sin": np.sin(turn)}]])
    >>> factor = sse.LinearGaussianSSM(observation=[[1], [{"beta": np.log(flow)}]])
    """

    states: int | Sequence[Any] | None = None
    _: KW_ONLY
    transition: Any = "free"
    process_cov: Any = "free"
    observation: Any = "free"
    measurement_cov: Any = "free"
    state_offset: Any = "zero"
    observation_offset: Any = "zero"
    state_input: Any = "zero"
    observation_input: Any = "zero"
    process_loading: Any = None
    measurement_loading: Any = None
    initial: str | Sequence[str] = "estimated"
    initial_mean: Any = None
    initial_cov: Any = None
    likelihood: Literal["diffuse", "full", "marginal"] = "diffuse"
    process_prior: InverseWishart = InverseWishart()
    measurement_prior: InverseWishart = InverseWishart()
    transition_prior: MatrixNormal = MatrixNormal()
    observation_prior: MatrixNormal = MatrixNormal()
    unsorted: Literal["error", "sort"] = "error"

    @property
    def _sized(self) -> dict[str, Any]:
        """Arguments that tell the number of states or features."""
        given = self._loads
        return {name: getattr(self, name) for name in DIMS if name not in given} | {
            name: np.eye(np.shape(value)[-2]) for name, value in given.items() if np.ndim(value) in (2, 3)
        }

    @property
    def _loads(self) -> dict[str, Any]:
        """How disturbances enter, by the covariance that is written for them; rows of all sequences end to end."""
        given = {"process_cov": self.process_loading, "measurement_cov": self.measurement_loading}
        return {
            name: end_to_end(value, name.replace("cov", "loading"))[0]
            for name, value in given.items()
            if value is not None
        }

    def _segments(self) -> Segments | None:
        given = {name: segments_in(name, getattr(self, name)) for name in MATRICES}
        given |= {name: end_to_end(getattr(self, name), name)[1] for name in ("process_loading", "measurement_loading")}
        found = common({name: own for name, own in given.items() if own is not None})
        if found is None or not found.constant:
            return found
        shared = [n_rows_of(getattr(self, name), name, NDIM[name]) for name in MATRICES if given[name] is None]
        words = (f"{side}_loading" for side in ("process", "measurement"))
        shared += [len(own) for word in words if given[word] is None and np.ndim(own := getattr(self, word)) == 3]
        return found.lasting(max(shared, default=0)) if any(shared) else found

    def _default_starts(self) -> int:
        spec = self._specification(None)
        found = spec.value("transition") is None or spec.value("observation") is None
        if found and len(spec.names) > 1:
            return 20 if spec.starts_as("stationary").all() else 12  # several factors explain y in several ways
        others = (spec.starts_as(word) for word in ("stationary", "fixed", "free"))
        if spec.value("transition") is None and not any(own.any() for own in others):
            return 5  # one state may follow a curve by itself
        noise = spec.patterns.get("process_cov")
        variances = [] if noise is None or found else noise.on_diagonal
        return 4 if len(variances) > 1 else 3

    def _names(self) -> list[Any]:
        if self.states is not None:
            return state_names(self.states)
        size = infer_size(self._sized, "state")
        if size is None:
            raise ParameterError(
                "the number of states is not known: give states=, or a matrix that has one row a state."
            )
        return state_names(size)

    def _derived(self, values: Mapping[str, float]) -> dict[str, float]:
        return {}

    def _specification(self, n_features: int | None) -> Specification:
        names = self._names()
        own = infer_size(self._sized, "feature")
        if own is not None and n_features is not None and own != n_features:
            raise ParameterError(f"y has {n_features} columns, but the matrices of the model are for {own}.")
        n_inputs = infer_size({name: getattr(self, name) for name in INPUTS}, "input")
        if n_inputs is not None and self._inputs is not None and len(self._inputs.names) != n_inputs:
            raise ParameterError(
                f"inputs= has {len(self._inputs.names)} columns, but the matrices of the model are for {n_inputs}."
            )
        n_inputs = n_inputs if self._inputs is None else len(self._inputs.names)
        sizes = {"state": len(names), "feature": n_features if own is None else own, "input": n_inputs}
        patterns: dict[str, Pattern | RowPattern] = {}
        varying: dict[str, Floats] = {}
        absent = tuple(n for n in OPTIONAL if isinstance(getattr(self, n), str) and getattr(self, n) == "zero")
        loads, segments = self._loads, self._segments()
        loadings: dict[str, Floats] = {}
        for name in MATRICES:
            value, shape = getattr(self, name), tuple(sizes[DIM_KIND[dim]] for dim in DIMS[name])
            found = None
            if name in loads:
                loadings[name] = self._loading(name, loads[name], shape[0], segments)
                found = self._under_loading(name, value, loadings, segments)
            elif name not in absent:
                found = parse_matrix(name, value, shape, segments)
            if isinstance(found, Pattern | RowPattern):
                patterns[name] = found
            elif found is not None:
                varying[name] = found
        initial = parse_initial(self.initial, names)
        patterns |= self._first_state(names, initial)
        spec = Specification(names, sizes["feature"], patterns, varying, initial, loadings, absent, segments=segments)
        stationary = spec.starts_as("stationary")
        if stationary.any() and not set(STEPS) & set(
            spec.by_row
        ):  # else nothing decays, and all entries of large matrices would be made for nothing
            whole = {name: from_word("free", (len(names),) * 2, name, symmetric=name in COVARIANCES) for name in MOVING}
            alone = {name: own for name, own in (whole | patterns).items() if name not in (*loadings, *varying)}
            spec = replace(spec, decays=found_in(alone.get("transition"), alone.get("process_cov"), stationary))
        check(spec)
        _check_stable(spec)
        return spec

    def _loading(self, name: str, value: Any, size: int | None, segments: Segments | None) -> Floats:
        """How disturbances enter: a matrix, or one a row, those of all sequences end to end."""
        word = name.replace("cov", "loading")
        found = parse_loading(word, value, size)
        if segments is None or found.ndim == 2:
            return found
        own = end_to_end(getattr(self, word), word)[1]
        return np.asarray(segments.of_each(found, word) if own is None else own.as_of(segments, found), dtype=float)

    def _under_loading(
        self, name: str, value: Any, loadings: dict[str, Floats], segments: Segments | None
    ) -> Pattern | RowPattern | Floats:
        """Pattern of the disturbances; what is known for every row, multiplied out, which takes the loading away."""
        loading = loadings[name]
        size = loading.shape[-1]
        found = parse_matrix(name, value, (size, size), segments, DISTURBANCES)
        if found is None:
            found = from_word("free", (size, size), name, symmetric=True)
        by_row = loading.ndim == 3
        if by_row and isinstance(found, Pattern) and not found.names:
            found = found.constant
        if isinstance(found, np.ndarray):
            del loadings[name]
            return loaded(found, loading)
        return loaded_rows(name, found, loading) if by_row else found

    def _first_state(self, names: list[Any], initial: str | tuple[str, ...]) -> dict[str, Pattern]:
        """Patterns of the moments of the first state; none where they are free as a whole or come with ``start``."""
        given = {
            name: getattr(self, name) for name in ("initial_mean", "initial_cov") if getattr(self, name) is not None
        }
        n = len(names)
        found = {}
        for name, value in given.items():
            pattern = parse_matrix(name, value, (n,) if name == "initial_mean" else (n, n))
            if isinstance(pattern, Pattern):
                found[name] = pattern
        if isinstance(initial, str) and initial in ("estimated", "free", "tied", "known"):
            return found
        words = np.array([initial] * n if isinstance(initial, str) else initial)
        if given and not (words == "known").any():
            raise ParameterError(
                f"{next(iter(given))} is given, but initial is {self.initial!r}, which has no use for it: leave it "
                'out, or say initial="known".'
            )
        if (words == "known").any() and len(found) < 2:
            raise ParameterError("initial has 'known' states: give initial_mean and initial_cov for them.")
        mean, cov = np.zeros(n), np.zeros((n, n))
        if (words == "known").any():
            known = words == "known"
            mean[known] = found["initial_mean"].constant[known]
            cov[np.ix_(known, known)] = found["initial_cov"].constant[np.ix_(known, known)]
        mean[words == "fixed"] = np.nan
        cov[words == "diffuse", words == "diffuse"] = np.inf
        return {"initial_mean": fixed(mean), "initial_cov": fixed(cov)}


def _check_stable(spec: Specification) -> None:
    """Refuse a stationary start of states whose fixed dynamics are not stable, or that others drive."""
    some = spec.starts_as("stationary")
    value = spec.value("transition")
    if not some.any():
        return
    pattern = spec.patterns.get("transition")
    outside = None if pattern is None else pattern.linked[np.ix_(some, ~some)]
    if outside is not None and outside.any():
        raise ParameterError("initial is 'stationary' for states that others drive: start all of them alike.")
    if value is not None:
        value, block = value[0] if value.ndim == 3 else value, np.ix_(some, some)
        stationary_moments(value[block], np.zeros(int(some.sum())), np.eye(int(some.sum())))
