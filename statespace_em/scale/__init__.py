"""Data that are larger than the memory: Dask-backed arrays, one chunk of sequences at a time."""
