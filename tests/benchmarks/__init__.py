"""Times of this package beside its peers, at the same work and with the numbers compared: `python tests/benchmarks`."""
