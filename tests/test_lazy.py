"""What a fit leaves on the model is made when somebody asks, and travels like anything else."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import statespace_em as sse
from statespace_em.lazy import Deferred, LazyAttribute

LEFT = ("params_", "trace_", "starts_", "n_parameters_")


class Holder:
    value = LazyAttribute()


def fitted():
    y = np.random.default_rng(0).normal(size=60)
    return sse.GaussianHMM(["calm", "stress"]).fit(y, n_starts=2, max_iter=5, tol=0.0)


def test_a_value_is_made_once_and_only_when_asked_for():
    calls, holder = [], Holder()
    holder.value = Deferred(lambda: calls.append(1) or [3])
    assert not calls
    assert holder.value is holder.value
    assert calls == [1]
    holder.value = [4]
    assert holder.value == [4]
    del holder.value
    assert not hasattr(holder, "value")
    assert isinstance(Holder.value, LazyAttribute)


@pytest.mark.parametrize("name", LEFT)
def test_before_a_fit_there_is_nothing(name):
    model = sse.GaussianHMM(2)
    assert not hasattr(model, name)
    with pytest.raises(AttributeError, match=f"'GaussianHMM' object has no attribute '{name}'"):
        getattr(model, name)


@pytest.mark.parametrize("name", LEFT)
def test_nothing_is_made_by_a_fit(name):
    assert isinstance(vars(fitted())[name], Deferred)


@pytest.mark.parametrize("travel", [lambda m: pickle.loads(pickle.dumps(m)), copy.copy, copy.deepcopy])
def test_a_fit_that_nobody_looked_at_travels_whole(travel):
    here, there = fitted(), travel(fitted())
    xr.testing.assert_identical(there.params_, here.params_)
    pd.testing.assert_frame_equal(there.trace_, here.trace_)
    pd.testing.assert_frame_equal(there.starts_, here.starts_)
    assert there.n_parameters_ == here.n_parameters_ == 7
    assert not any(isinstance(value, Deferred) for value in vars(there).values())


def test_a_fit_that_nobody_looked_at_is_saved_whole(tmp_path):
    fitted().save(tmp_path / "model.nc")
    loaded, here = sse.GaussianHMM.load(tmp_path / "model.nc"), fitted()
    xr.testing.assert_identical(loaded.params_, here.params_)
    np.testing.assert_array_equal(loaded.trace_["objective"], here.trace_["objective"])
    assert loaded.n_parameters_ == here.n_parameters_


def test_what_is_written_into_the_parameters_stays():
    model = fitted()
    model.params_.attrs["note"] = "mine"
    assert model.params_.attrs["note"] == "mine"
