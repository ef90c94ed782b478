"""Time-series state-space learning: hidden Markov and linear-Gaussian models on one EM engine."""

from statespace_em import datasets, emissions, errors, priors
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
    "datasets",
    "emissions",
    "errors",
    "priors",
]
