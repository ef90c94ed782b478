"""Exceptions and warnings: each says what happened, where, and what to do."""

from __future__ import annotations

import numpy as np


class StateSpaceError(Exception):
    """Anything this package raises on purpose."""


class DataError(StateSpaceError, ValueError):
    """The observations cannot be used as they are."""


class ParameterError(StateSpaceError, ValueError):
    """A parameter or an option has a value that cannot be used."""


class UsageTypeError(ParameterError, TypeError):
    """Arguments that a function does not have, or something added that cannot be."""


class RowError(DataError):
    """A row cannot be explained; the cores give its number, the models its label."""

    explanation = "the row cannot be explained"


class ImpossibleObservationError(RowError):
    """An observation has probability zero under every state that can be reached."""

    explanation = (
        "has probability zero under every state that can be reached there: mark it missing, or let a prior or other "
        "parameters allow it"
    )


class ImpossibleStateError(RowError):
    """A state that is said to be known has probability zero; carries the number of the row and of the state."""

    explanation = (
        "has probability zero there: no allowed path leads to it, or the state cannot produce the observation. "
        "Correct states=, or let other parameters allow it"
    )


class SingularInnovationError(RowError):
    """The predicted distribution of an observation has no density."""

    explanation = (
        "has a predicted covariance that is not positive definite: give measurement_cov a positive diagonal (where it "
        "has one, a larger: noise below 1e-14 of the variance that states bring, that of all rows where they start "
        "diffuse, is lost to rounding), a prior to the "
        'noise that vanishes, or, where it is the first row of a fixed state, initial="diffuse"'
    )


class UndeterminedStartError(RowError):
    """The rows do not determine a first state that nothing is known of; carries the row and the states."""

    explanation = (
        "begins a sequence whose rows do not determine the diffuse or fixed first state{}: give it more rows, leave "
        "out one of two components that rows do not tell apart (two levels, a level and a constant regressor, or "
        "columns that are sums of others), "
        'or give states a proper start (initial="known" or "stationary")'
    )


class UnstableDynamicsError(ParameterError, ArithmeticError):
    """Dynamics without a stationary distribution, or that decay at no rate, where that is asked for."""


# what parameters lead to that cannot be worked with in floating point, such as a covariance that has become singular
UNRESOLVED = (ArithmeticError, np.linalg.LinAlgError, RowError)


class NotFittedError(StateSpaceError, RuntimeError, AttributeError):
    """The model has no parameters yet."""


class LookAheadError(StateSpaceError, RuntimeError):
    """A value that should rest on the past alone changed with the future."""


class FileFormatError(StateSpaceError, ValueError):
    """The file is not a saved model, or was written by a newer version."""


class StateSpaceWarning(UserWarning):
    """Anything this package warns of."""


class ConvergenceWarning(StateSpaceWarning):
    """The fit stopped before it reached the accuracy asked for."""


class LocalOptimumWarning(ConvergenceWarning):
    """The best optimum was found by one start only: there may be a higher one."""


class InformationWarning(StateSpaceWarning):
    """The data say nothing of some parameters, or the parameters are not at a maximum: no standard errors there."""


class DataWarning(StateSpaceWarning):
    """The data can be used, but hardly support what is asked of them."""
