"""Families p(y | state): the protocol and the ones that come with the package."""

from statespace_em.emissions.base import EmissionFamily
from statespace_em.emissions.categorical import Categorical
from statespace_em.emissions.diagonal import DiagonalGaussian
from statespace_em.emissions.gaussian import FullGaussian, Gaussian
from statespace_em.emissions.poisson import Poisson

__all__ = ["Categorical", "DiagonalGaussian", "EmissionFamily", "FullGaussian", "Gaussian", "Poisson"]
