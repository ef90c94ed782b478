"""Time-series state-space learning: hidden Markov and linear-Gaussian models on one EM engine."""

from statespace_em import datasets, emissions, errors, priors
from statespace_em.sequence.hmm import HMM, CategoricalHMM, GaussianHMM, PoissonHMM

__version__ = "0.1.0"
__all__ = [
    "HMM",
    "CategoricalHMM",
    "GaussianHMM",
    "PoissonHMM",
    "datasets",
    "emissions",
    "errors",
    "priors",
]
