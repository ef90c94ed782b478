"""The picture of a run; nothing else of the command line needs matplotlib."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from statespace_em import designs
from statespace_em.cli.design import PLANES
from statespace_em.model import LatentModel
from statespace_em.sequence.component_sum import ComponentSum
from statespace_em.sequence.hidden_markov import HiddenMarkovModel
from statespace_em.sequence.state_space import StateSpaceModel

DPI = 150


def picture_name(model: LatentModel, y: pd.DataFrame) -> str:
    """File that the picture of a run goes to."""
    if isinstance(model, HiddenMarkovModel):
        return "regimes.png"
    if isinstance(model, StateSpaceModel):
        plane = {str(name).lower() for name in y.columns} in PLANES
        return "track.png" if y.shape[1] == 2 and (plane or isinstance(model, designs.MotionModel)) else "states.png"
    return "components.png"


def draw(path: Path, model: LatentModel, y: pd.DataFrame, posterior: xr.Dataset) -> None:
    """Draw regimes, components, states or a track; of a panel the first sequence."""
    if "matplotlib.pyplot" not in sys.modules:
        import matplotlib

        matplotlib.use("agg")  # no window, no display; who calls this from Python keeps the backend chosen there
    import matplotlib.pyplot as plt

    sequence = y.index[0][0] if isinstance(y.index, pd.MultiIndex) else None
    before = plt.get_fignums()
    try:
        figure = _figure(path.name, model, y, posterior, sequence)
        figure.savefig(path, dpi=DPI)
    finally:
        for number in set(plt.get_fignums()) - set(before):
            plt.close(number)


def _figure(name: str, model: LatentModel, y: pd.DataFrame, posterior: xr.Dataset, sequence: Any) -> Any:
    panels: Any
    from statespace_em import plotting

    if isinstance(model, HiddenMarkovModel):
        panels = plotting.plot_regimes(y, posterior, path=model.decode(y), sequence=sequence)
        shown = len(panels) - 1
        some = "" if shown == y.shape[1] else f" ({shown} of {y.shape[1]} columns)"
        _title(panels[0], f"Most probable path of states: with hindsight, data 1:T{some}", sequence)
    elif name == "track.png":
        panels = [plotting.plot_track(y, posterior, model.params_, sequence=sequence)]
        _title(panels[0], panels[0].get_title(loc="left"), sequence)
    elif name == "states.png" and isinstance(model, ComponentSum) and len(model.components) > 1:
        panels = plotting.plot_components(model.decompose(y), sequence=sequence)
        _title(panels[0], panels[0].get_title(loc="left"), sequence)
    elif name == "states.png":
        panels = plotting.plot_states(y, posterior, model.params_, sequence=sequence)
        _title(panels[0], panels[0].get_title(loc="left"), sequence)
    else:
        panels = plotting.plot_emissions(model.params_, y, sequence=sequence)
        if y.shape[1] == 1:
            panels[0].set_xlabel(str(y.columns[0]))
    return panels[0].figure


def _title(ax: Any, text: str, sequence: Any) -> None:
    where = "" if sequence is None else f" ({sequence}, the first sequence)"
    ax.set_title(text + where, loc="left", fontsize=10)
