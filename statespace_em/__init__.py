"""Time-series state-space learning: hidden Markov and linear-Gaussian models on one EM engine.

Models: `GaussianHMM`, `PoissonHMM`, `CategoricalHMM`, `HMM` with any of the `emissions`, `LinearGaussianSSM`, ready
`designs` of it, `Mixture`. Around a fit: `compare`, `checks`, `walk_forward`, `paths`, `regimes`, `robust`,
`plotting`. At scale: `fit_many`. Also `priors`, `datasets`, `errors`, and `testing` for families of your own.
"""

import importlib

from statespace_em import checks, compare, datasets, emissions, errors, paths, priors, regimes
from statespace_em.compare import walk_forward
from statespace_em.many import fit_many
from statespace_em.sequence import designs, robust
from statespace_em.sequence.hmm import HMM, CategoricalHMM, GaussianHMM, PoissonHMM
from statespace_em.sequence.lgssm import LinearGaussianSSM
from statespace_em.static.mixture import Mixture

__version__ = "0.1.0"
__all__ = [
    "HMM",
    "CategoricalHMM",
    "GaussianHMM",
    "LinearGaussianSSM",
    "Mixture",
    "PoissonHMM",
    "checks",
    "compare",
    "datasets",
    "designs",
    "emissions",
    "errors",
    "fit_many",
    "paths",
    "plotting",
    "priors",
    "regimes",
    "robust",
    "testing",
    "walk_forward",
]


def __getattr__(name: str) -> object:
    """Import what needs matplotlib, or only tests need, when it is first used."""
    if name in ("plotting", "testing"):
        return importlib.import_module(f"statespace_em.{name}")
    raise AttributeError(f"module 'statespace_em' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Public names, those imported on first use among them."""
    return [*__all__, "__version__"]
