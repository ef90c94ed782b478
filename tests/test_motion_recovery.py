"""Turns and accelerations give their parameters back, with units; a filter that knows them is as sure as it should."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from statespace_em import checks, designs

KINDS = {
    "turn 2": lambda **own: designs.coordinated_turn(0.15, ["east", "north"], **own),
    "turn 3": lambda **own: designs.coordinated_turn(-0.1, ["east", "north", "up"], **own),
    "acceleration 1": lambda **own: designs.constant_acceleration(1, **own),
    "acceleration 2": lambda **own: designs.constant_acceleration(2, **own),
    "acceleration 3": lambda **own: designs.constant_acceleration(3, **own),
}
DENSITY, NOISE = 0.2, 9.0
NAMES = {"turn": ("acceleration_density", "m^2/s^3"), "acceleration": ("jerk_density", "m^2/s^5")}


def known_start(make):
    """A model whose target begins near the origin, and its true parameters."""
    n = len(make()._names())
    model = make(initial="known", initial_mean=np.zeros(n), initial_cov=np.eye(n))
    size = len(model._sensors.owner)
    flow = model._flow_over_step(1.0)
    values = {
        "transition": flow.base_transition().constant,
        "process_cov": flow.process_cov_pattern().build(np.array([DENSITY])),
        "measurement_cov": NOISE * np.eye(size),
    }
    return model, model.parameters(**values)


def drawn(make, seed, n_rows):
    model, params = known_start(make)
    times = np.cumsum(np.random.default_rng(seed).exponential(1.0, n_rows))
    return model.sample(times, params, seed=seed)


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_come_back_within_their_errors(kind):
    make, (density, unit) = KINDS[kind], NAMES[kind.split()[0]]
    scores = []
    for seed in range(5):
        y = drawn(make, seed, 120)["y"].assign_attrs(units="m")
        y["time"].attrs["units"] = "s"
        fitted = make().fit(y, n_starts=1)  # knows nothing of the start
        table, errors = fitted.summary(), fitted.standard_errors(y, of="named")
        assert fitted.converged_
        assert table.loc[[density, "noise_var"], "unit"].tolist() == [unit, "m^2"]
        for name, truth in ((density, DENSITY), ("noise_var", NOISE)):
            value = table.loc[name, "value"].item()
            scores.append(np.log(value / truth) * value / errors[name].item())  # on the scale where errors are normal
    scores = np.reshape(scores, (5, 2))
    assert np.abs(scores).max() < 3.5
    assert np.abs(scores.mean(0)).max() < 3.0 / np.sqrt(5)
    assert 0.1 < (scores**2).mean() < 2.5


@pytest.mark.parametrize("kind", KINDS)
def test_the_true_model_is_as_sure_as_it_should_be_and_a_mistuned_one_is_not(kind):
    make = KINDS[kind]
    model, params = known_start(make)
    runs = [drawn(make, 100 + seed, 80) for seed in range(10)]
    y = {seed: run["y"].to_pandas() for seed, run in enumerate(runs)}
    states = xr.concat([run["state"].drop_vars("time").rename(state_name="state") for run in runs], "sequence")
    wrong = params.assign(process_cov=25.0 * params["process_cov"])
    sure = params.assign(measurement_cov=0.3 * params["measurement_cov"])

    def shares(own):
        """NIS over all rows by its degrees of freedom, and NEES at the last rows of independent runs."""
        known = model.filter(y, own)
        nis = checks.nis(known)
        nees = checks.nees(known, states.transpose("sequence", "time", "state").values)
        return (
            float(nis["nis"].sum()),
            int(nis["dof"].sum()),
            float(nees["nees"][:, -1].sum()),
            nees["dof"][:, -1].sum(),
        )

    square, dof, error, own = shares(params)
    assert stats.chi2(dof).cdf(square) == pytest.approx(0.5, abs=0.4995)
    assert stats.chi2(own).cdf(error) == pytest.approx(0.5, abs=0.4995)
    assert stats.chi2(dof).cdf(shares(wrong)[0]) < 1e-6  # too careful
    assert stats.chi2(dof).sf(shares(sure)[0]) < 1e-6  # too sure
    assert stats.chi2(own).sf(shares(sure)[2]) < 0.01
    average = checks.nis(model.filter(y[0], params))
    assert average.average_lower < average.average < average.average_upper
