"""Time-series state-space learning: hidden Markov and linear-Gaussian models on one EM engine.

Models: `GaussianHMM`, `PoissonHMM`, `CategoricalHMM`, `HMM` with any of the `emissions`, `LinearGaussianSSM`, ready
`designs` of it, `Mixture`. Around a fit: `compare`, `checks`, `walk_forward`, `paths`, `regimes`, `robust`,
`plotting`. At scale: `fit_many`. Also `priors`, `datasets`, `errors`, and `testing` for families of your own.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from statespace_em._garbage import pause

if TYPE_CHECKING:  # what is behind the names below, for editors and type checkers
    from statespace_em import (
        checks,
        compare,
        datasets,
        emissions,
        errors,
        geodesy,
        paths,
        plotting,
        priors,
        regimes,
        testing,
    )  # fmt: skip
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
    "geodesy",
    "paths",
    "plotting",
    "priors",
    "regimes",
    "robust",
    "testing",
    "walk_forward",
]


_HOME = {  # of the names that are not modules of the package itself; imported when first asked for
    **dict.fromkeys(("HMM", "CategoricalHMM", "GaussianHMM", "PoissonHMM"), "sequence.hmm"),
    "LinearGaussianSSM": "sequence.lgssm",
    "Mixture": "static.mixture",
    "designs": "sequence",
    "fit_many": "many",
    "robust": "sequence",
    "walk_forward": "compare",
}


def __getattr__(name: str) -> object:
    """Import what a name stands for when it is first used: a small fit needs a third of all this."""
    if name not in __all__:
        raise AttributeError(f"module 'statespace_em' has no attribute {name!r}")
    home = _HOME.get(name)
    with pause:
        if home is None or home == "sequence":
            found: object = import_module(".".join(("statespace_em", *([home] if home else []), name)))
        else:
            found = getattr(import_module(f"statespace_em.{home}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """Public names, those imported on first use among them."""
    return [*__all__, "__version__"]
