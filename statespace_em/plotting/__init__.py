"""Figures of sequence models: every function takes labelled results, never a model.

A posterior that was saved and loaded again plots like one that was just computed, and a state has the same
colour in every figure. Import this module when you need it; importing the package does not load matplotlib.
"""

from statespace_em.plotting.components import plot_components
from statespace_em.plotting.emissions import plot_emissions
from statespace_em.plotting.innovations import plot_consistency, plot_innovations
from statespace_em.plotting.parameters import plot_trace, plot_transition
from statespace_em.plotting.regimes import plot_posterior, plot_regimes
from statespace_em.plotting.residuals import plot_residuals
from statespace_em.plotting.states import plot_states
from statespace_em.plotting.track import plot_track

__all__ = [
    "plot_components",
    "plot_consistency",
    "plot_emissions",
    "plot_innovations",
    "plot_posterior",
    "plot_regimes",
    "plot_residuals",
    "plot_states",
    "plot_trace",
    "plot_track",
    "plot_transition",
]
