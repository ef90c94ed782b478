"""Does the model describe the data? Tests of residuals and innovations, replicated data, calibration, consistency."""

from statespace_em.checks.auxiliary import auxiliary_residuals
from statespace_em.checks.innovations import gate, gated, innovation_tests, nees, nis, standardised_innovations
from statespace_em.checks.joint import joint_tests
from statespace_em.checks.residuals import (
    anderson_darling_cdf,
    autocorrelation,
    calibration,
    ljung_box,
    predictive_check,
    residual_tests,
)

__all__ = [
    "anderson_darling_cdf",
    "autocorrelation",
    "auxiliary_residuals",
    "calibration",
    "gate",
    "gated",
    "innovation_tests",
    "joint_tests",
    "ljung_box",
    "nees",
    "nis",
    "predictive_check",
    "residual_tests",
    "standardised_innovations",
]
