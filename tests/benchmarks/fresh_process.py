"""What a process pays before the first answer: imports, and the first small fit with compiled code cached or not."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from functools import partial

import numpy as np

from benchmarks.case import Case, Side, Target, Work, at_least

DATA = """
import numpy as np
rng = np.random.default_rng(0)
y = rng.standard_normal((500, 1)) + 3.0 * (np.arange(500)[:, None] // 50 % 2)
"""
OURS = f"""{DATA}
import statespace_em as sse
model = sse.GaussianHMM(2, "diagonal")
transition = [[0.9, 0.1], [0.1, 0.9]]
start = model.parameters(initial=[0.5, 0.5], transition=transition, mean=[[0.0], [2.0]], var=[[1.0], [1.0]])
model.fit(y, start=start, max_iter=10, tol=0.0, accelerate=False)
print(model.trace_["log_likelihood"].iloc[-1])
"""
THEIRS = f"""{DATA}
import logging
from hmmlearn.hmm import GaussianHMM
logging.getLogger("hmmlearn").setLevel(logging.CRITICAL)
model = GaussianHMM(
    2, "diag", implementation="scaling", init_params="", n_iter=10, tol=-np.inf, means_weight=0.0, covars_prior=0.0,
    covars_weight=-1.0,
)
model.startprob_, model.transmat_ = np.array([0.5, 0.5]), np.array([[0.9, 0.1], [0.1, 0.9]])
model.means_, model.covars_ = np.array([[0.0], [2.0]]), np.array([[1.0], [1.0]])
model.fit(y)
print(model.monitor_.history[-1])
"""
OURS_LINEAR = f"""{DATA}
import statespace_em as sse
model = sse.designs.local_level().fit(y[:, 0])
print(model.trace_["log_likelihood"].iloc[-1])
"""
OUR_DEFAULTS = f"{DATA}\nimport statespace_em as sse\nsse.GaussianHMM(2).fit(y)"
THEIR_DEFAULTS = f"{DATA}\nfrom hmmlearn.hmm import GaussianHMM\nGaussianHMM(2).fit(y)"
IMPORTS = {
    "import GaussianHMM": "from statespace_em import GaussianHMM",
    "import numpy, pandas, xarray": "import numpy, pandas, xarray",
    "import numpy, pandas, xarray, numba": "import numpy, pandas, xarray, numba",
    "python alone": "",
}


def cases() -> list[Case]:
    """Rows of this area."""
    limit = Target("seconds", 15.0)
    work = "first small fit in a fresh process, import included"
    return [
        Case(f"{work}, code cached", "hmmlearn", partial(_first_fit, OURS, THEIRS, "10 iterations"), at_least(1)),
        Case(f"{work}, nothing cached", None, partial(_cold, OURS), limit),
        Case(f"local level, {work}, nothing cached", None, partial(_cold, OURS_LINEAR), limit, "more"),
        Case(f"{work}, each by its own defaults", "hmmlearn", _defaults, section="more"),
        *(Case(name, None, partial(_first_import, code), section="growth") for name, code in IMPORTS.items()),
        Case("import hmmlearn.hmm", "hmmlearn", partial(_first_import, "import hmmlearn.hmm"), section="growth"),
    ]


def fresh(code: str, cache: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run code in a new process, with compiled code cached where it is by default or in this folder."""
    environment = dict(os.environ) if cache is None else {**os.environ, "NUMBA_CACHE_DIR": cache}
    words = [sys.executable, "-W", "ignore", "-c", code]
    return subprocess.run(words, capture_output=True, text=True, check=True, env=environment)


def _side(code: str) -> Side:
    return Side(lambda: fresh(code), _printed)


def _printed(done: subprocess.CompletedProcess[str]) -> dict[str, np.ndarray]:
    return {"log-likelihood": np.array(float(done.stdout.split()[-1]))}


def _first_fit(ours: str, theirs: str, note: str, *, quick: bool) -> Work:
    return Work(_side(ours), _side(theirs), note=note)


def _defaults(*, quick: bool) -> Work:
    note = "ours: 10 starts to convergence; theirs: 1 start, at most 10 iterations"
    return Work(_side(OUR_DEFAULTS), _side(THEIR_DEFAULTS), tolerance=None, note=note)


def _cold(code: str, *, quick: bool) -> Work:
    def run() -> subprocess.CompletedProcess[str]:
        with tempfile.TemporaryDirectory() as empty:
            return fresh(code, empty)

    def said(done: subprocess.CompletedProcess[str]) -> str:
        lines = done.stderr.strip().splitlines()
        return f"it said: {lines[0]}" if lines else "it did not say what it waits for"

    return Work(Side(run, _printed), remark=said, warm_up=False)


def _first_import(code: str, *, quick: bool) -> Work:
    return Work(Side(lambda: fresh(code), lambda done: {}))
