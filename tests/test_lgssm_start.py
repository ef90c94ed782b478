"""Default fits reach the higher of two tops, also the one where states hardly have noise."""

import numpy as np
import pytest
import xarray as xr

import statespace_em as sse


def test_a_smooth_track_is_found_beside_one_that_follows_a_wave():
    rng = np.random.default_rng(1)
    y = np.cumsum(rng.normal(size=150)) * 0.7 + rng.normal(size=150) + 2 * np.sin(np.arange(150) * 2 * np.pi / 12)
    y[[5, 6, 50]] = np.nan
    track = xr.DataArray(y[:, None], dims=("time", "feature"), coords={"time": 2.0 * np.arange(150)})
    model = sse.designs.constant_velocity(1).fit(track)
    assert model.score(track) == pytest.approx(-304.6573866, abs=1e-6)  # the other top is at -305.4098872
