"""A motion along one axis as a component of a structural model, whose rows are even."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from statespace_em.errors import ParameterError
from statespace_em.labels import listed
from statespace_em.sequence.motion_definition import Moving
from statespace_em.sequence.motion_settings import axes_of
from statespace_em.sequence.structural import StructuralModel

ONE_EACH = (
    "A sum is of one series. Axes that do not turn, with densities and noises of their own, do not touch each other: "
    "add to one axis at a time, designs.constant_velocity([axis], step=...) + ..., and fit it to its column."
)


def as_component(model: Moving) -> StructuralModel:
    """Structural model of a motion along one axis.

    Raises
    ------
    ParameterError
        If it is of several axes or sensors, or has settings that a structural model does not have.
    """
    axes, density = axes_of(model.dims), model.density
    if len(axes) > 1:
        raise ParameterError(f"{model.kind} along {listed(axes)} cannot be added to other components. {ONE_EACH}")
    if model.sensors != 1:
        raise ParameterError(f"{model.kind} seen by sensors {model.sensors!r} cannot be added to others. {ONE_EACH}")
    if not (isinstance(model.noise, str) and model.initial == "diffuse"):
        raise ParameterError(
            f"{model.kind} with noise {model.noise!r} and initial {model.initial!r} cannot be added to other "
            "components: in a sum the noise is free and the start diffuse, leave both settings out."
        )
    known = model._fixed_densities()
    options = {
        "motion": model.kind, "axis": axes[0], "step": 1.0 if model.step is None else float(model.step),
        "unit": model.unit, "density": None if known is None else float(np.ravel(density)[0]),
        "timed": model.step is None,
    }  # fmt: skip
    kept: dict[str, Any] = {name: getattr(model, name) for name in ("likelihood", "measurement_prior", "unsorted")}
    components: Sequence[Any] = [("motion", options)]
    return StructuralModel(components, **kept)
