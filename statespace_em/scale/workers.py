"""The workers of a Dask cluster, if there is one."""

from __future__ import annotations

import sys
from typing import Any

import statespace_em


def current_client() -> Any:
    """Return the client that Dask computes with; None without a cluster."""
    if "distributed" not in sys.modules:  # then there is none, and importing it would be slow
        return None
    from distributed import default_client

    try:
        return default_client()  # type: ignore[no-untyped-call]
    except ValueError:
        return None


def check_workers(client: Any = None) -> None:
    """Raise RuntimeError if a worker lacks this package, or has another version of it, or if there is no worker.

    Parameters
    ----------
    client
        A `distributed.Client`; None takes the current one, if any.
    """
    client = current_client() if client is None else client
    if client is None:
        return
    # `eval`, because a function of ours could not be told to workers that lack the package
    found = client.run(eval, "__import__('statespace_em').__version__", on_error="return")
    if not found:
        raise RuntimeError(f"the cluster at {client.scheduler.address} has no workers: start some.")
    for worker, version in found.items():
        if isinstance(version, Exception):
            raise RuntimeError(
                f"worker {worker} cannot import statespace_em ({version}): install it there, as in "
                "client.register_plugin(distributed.PipInstall(['statespace_em']))."
            )
        if version != statespace_em.__version__:
            raise RuntimeError(
                f"worker {worker} has statespace_em {version}, but this process has {statespace_em.__version__}: "
                "install the same version on both."
            )
