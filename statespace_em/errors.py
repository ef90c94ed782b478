"""Exceptions and warnings: each says what happened, where, and what to do."""

from __future__ import annotations


class StateSpaceError(Exception):
    """Anything this package raises on purpose."""


class DataError(StateSpaceError, ValueError):
    """The observations cannot be used as they are."""


class ParameterError(StateSpaceError, ValueError):
    """A parameter or an option has a value that cannot be used."""


class RowError(DataError):
    """A row cannot be explained; the cores give its number, the models its label."""

    explanation = "the row cannot be explained"


class ImpossibleObservationError(RowError):
    """An observation has probability zero under every state that can be reached."""

    explanation = (
        "has probability zero under every state that can be reached there: mark it missing, or let a prior or other "
        "parameters allow it"
    )


class SingularInnovationError(RowError):
    """The predicted distribution of an observation has no density."""

    explanation = (
        "has a predicted covariance that is not positive definite: give measurement_cov a positive diagonal, or a "
        "prior to the noise that vanishes"
    )


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


class DataWarning(StateSpaceWarning):
    """The data can be used, but hardly support what is asked of them."""
