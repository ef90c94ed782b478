"""Fits side by side: information criteria, states matched, likelihood ratios, refits on a calendar."""

from statespace_em.compare.criteria import fit_each, table
from statespace_em.compare.likelihood_ratio import likelihood_ratio_bootstrap
from statespace_em.compare.walking import walk_forward
from statespace_em.matching import match_states

__all__ = ["fit_each", "likelihood_ratio_bootstrap", "match_states", "table", "walk_forward"]
