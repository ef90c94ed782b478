"""Nominal 95 % intervals cover the truth in 93 to 97 % of fits to simulations."""

import numpy as np

import statespace_em as sse

N_FITS = 400


def test_intervals_of_a_two_state_model_cover():
    model = sse.GaussianHMM(2, "diagonal", order_by=None, initial="uniform")
    truth = model.parameters(
        initial=[0.5, 0.5], transition=[[0.9, 0.1], [0.15, 0.85]], mean=[[0.0], [3.0]], var=[[1.0], [2.0]]
    )
    expected = {"persistence": [0.9, 0.85], "stationary": [0.6, 0.4], "duration": [10.0, 1.0 / 0.15]}
    inside: dict[str, list[np.ndarray]] = {}
    for seed in range(N_FITS):
        y = model.sample(500, truth, seed=seed)["y"].values
        model.fit(y, start=truth)
        ends = model.confidence_intervals(y)
        if seed % 2 == 0:
            ends = ends.merge(model.confidence_intervals(y, of="derived"))
        for name in ends.data_vars:
            if name != "initial":
                value = np.asarray(truth[name] if name in truth else expected[name])
                low, high = (ends[name].sel(bound=bound).values for bound in ("lower", "upper"))
                inside.setdefault(name, []).append(((low <= value) & (value <= high)).ravel())
    assert len(inside["mean"]) == N_FITS
    for name in ("transition", "mean", "var"):
        assert 0.93 <= np.mean(inside[name]) <= 0.97, name
    assert 0.93 <= np.mean([np.mean(inside[name]) for name in expected]) <= 0.97
    for name, hits in inside.items():
        share = np.mean(hits, axis=0)
        error = np.sqrt(0.05 * 0.95 / len(hits))
        assert (np.abs(share - 0.95) < 4.0 * error).all(), name
