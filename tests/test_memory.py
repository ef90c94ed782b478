"""Memory of one step is there for the next."""

import os
import subprocess
import sys

import pytest

STEPS = """
import resource
import numpy as np
import statespace_em as sse

rng = np.random.default_rng(0)
y = [rng.normal(size=100) + rng.integers(0, 3) for _ in range(50)]
model = sse.GaussianHMM(8, "diagonal")
start = model.fit(y, n_starts=1, max_iter=2, tol=0.0).params_

def faults(n_steps):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    model.fit(y, start=start, max_iter=n_steps, tol=0.0, accelerate=False)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults(5)
print(faults(45) - faults(5))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems have other allocators")
@pytest.mark.parametrize("said", [{}, {"MALLOC_TRIM_THRESHOLD_": "65536"}], ids=["fresh", "worker of Dask"])
def test_steps_use_the_memory_of_those_before_in_a_fresh_process(said):
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", STEPS], capture_output=True, text=True, check=True, env=plain | said
    )
    assert int(done.stdout) < 40 * 20  # pages; some 600 a step are written to
