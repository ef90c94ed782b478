"""Fits side by side: information criteria, states matched, likelihood ratios."""

from statespace_em.compare.criteria import fit_each, table
from statespace_em.matching import match_states

__all__ = ["fit_each", "match_states", "table"]
