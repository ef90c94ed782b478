"""Which of the moving averages of one likelihood is meant: the invertible one.

A root z of the polynomial of a moving average may be replaced by 1 / z, with the variance of the disturbances
multiplied by |z|^2: all autocovariances, and so the likelihood, stay as they are (Box & Jenkins 1970, sec. 3.3). With
all roots inside the unit circle the disturbances are the errors of forecasts from the past.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from statespace_em._typing import Floats

INSIDE = 1.0 + 1e-9  # modulus from which a root is outside the unit circle; on it is its own image


def invertible(coefficients: Floats) -> tuple[Floats, float]:
    """Coefficients (q,) with all roots inside, and what the variance is multiplied by; the same ones if they are."""
    roots = np.roots(np.append(1.0, coefficients))
    outside = np.abs(roots) > INSIDE
    if not outside.any():
        return coefficients, 1.0
    factor = float(np.prod(np.abs(roots[outside]) ** 2))
    roots[outside] = 1.0 / np.conj(roots[outside])
    found = np.zeros(len(coefficients))  # trailing coefficients of 0 have roots of 0, which np.roots leaves out
    found[: len(roots)] = np.poly(roots).real[1:]
    return found, factor


def mirrored(labels: Sequence[str], values: Mapping[str, float]) -> dict[str, float]:
    """Named values of ARMA parts with every moving average, seasonal or not, in its invertible form."""
    new = dict(values)
    for label in labels:
        for kind in ("ma", "seasonal_ma"):
            names = [name for i in range(len(values)) if (name := f"{label}{kind}{i + 1}") in values]
            if not names:
                continue
            found, factor = invertible(np.array([values[name] for name in names]))
            new |= dict(zip(names, found.tolist()))
            new[f"{label}arma_var"] *= factor
    return new
