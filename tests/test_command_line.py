"""The command line: what it writes, what it says, and that it leaves nothing half-done."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import statespace_em as sse
from statespace_em.__main__ import main
from statespace_em.cli import output, run
from statespace_em.cli.arguments import parse

QUICK = ["--starts", "2"]


def regimes(n_rows=120, seed=0):
    """Two columns whose spread changes half-way, with one missing entry."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n_rows, 2)) * np.repeat([1.0, 6.0], n_rows // 2)[:, None]
    index = pd.date_range("2020-01-01", periods=n_rows, name="date")
    frame = pd.DataFrame(values.round(6), index, ["left", "right"])
    frame.iloc[7, 1] = np.nan
    return frame


@pytest.fixture
def csv(tmp_path):
    path = tmp_path / "data.csv"
    regimes().to_csv(path)
    return path


def fit(*words):
    return main(["fit", *map(str, words), *QUICK])


def refused(capsys, *words, match):
    """Check exit code 2 and one line that says what is wrong."""
    assert main([str(word) for word in words]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("statespace-em: error: ")
    assert shown.err.count("\n") == 1
    assert re.search(match, shown.err), shown.err


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


# the main job


def test_main_job_in_a_process_of_its_own(tmp_path):
    words = ["fit", "gaussian-hmm", "--dataset", "stocks", "--states", "2", "--out", "run"]
    environment = {**os.environ, "MPLBACKEND": "TkAgg"}  # must not matter: there is no display
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-m", "statespace_em", *words],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert names_in(tmp_path) == ["run"]
    assert names_in(tmp_path / "run") == ["decoded.csv", "model.nc", "posterior.nc", "regimes.png"]
    assert "GaussianHMM, 2 states; IBM: 3269 rows, date 2000-03-02 to 2013-03-01" in done.stdout
    assert "persistence" in done.stdout
    model = sse.GaussianHMM.load(tmp_path / "run" / "model.nc")
    returns = sse.datasets.stocks()["log_return"]["IBM"]
    expected = sse.GaussianHMM(2).fit(returns)
    xr.testing.assert_allclose(model.params_, expected.params_, rtol=1e-8)


def test_files_agree_with_the_saved_model(csv, tmp_path, capsys):
    assert fit("gaussian-hmm", csv, "--names", "calm,stress", "--out", tmp_path / "run") == 0
    model = sse.GaussianHMM.load(tmp_path / "run" / "model.nc")
    y = regimes()
    posterior = model.e_step(y)
    with xr.open_dataset(tmp_path / "run" / "posterior.nc") as saved:
        xr.testing.assert_allclose(saved.load(), posterior)
        assert saved["gamma"].attrs["conditioning"] == "1:T"
    decoded = pd.read_csv(tmp_path / "run" / "decoded.csv", index_col="date", parse_dates=True)
    assert decoded.index.equals(y.index)
    assert decoded["state"].tolist() == model.decode(y).values.tolist()
    known = model.filter(y)["filtered"]
    for name in ("calm", "stress"):
        np.testing.assert_allclose(decoded[f"p({name} | all data)"], posterior["gamma"].sel(state=name), rtol=1e-12)
        np.testing.assert_allclose(decoded[f"p({name} | data so far)"], known.sel(state=name), rtol=1e-12)
    assert (tmp_path / "run" / "regimes.png").read_bytes().startswith(b"\x89PNG")
    shown = capsys.readouterr()
    assert f"log-likelihood {model.score(y):.4f}" in shown.out
    assert "2 states; left, right: 120 rows, date 2020-01-01 to 2020-04-29" in shown.out
    assert shown.err == ""


def test_importing_the_package_does_not_load_matplotlib():
    code = "import sys, statespace_em, statespace_em.__main__; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_figures_of_the_caller_stay_open(csv, tmp_path):
    import matplotlib.pyplot as plt

    mine = plt.figure()
    assert fit("gaussian-hmm", csv, "--states", 2, "--out", tmp_path / "run") == 0
    assert plt.get_fignums() == [mine.number]
    plt.close(mine)


@pytest.mark.parametrize(
    ("words", "kind", "picture"),
    [
        (["poisson-hmm", "--dataset", "earthquakes", "--states", 2], sse.PoissonHMM, "regimes.png"),
        (["categorical-hmm", "--dataset", "old_faithful", "--states", 2], sse.CategoricalHMM, "regimes.png"),
        (["lgssm", "--dataset", "nile"], sse.designs.StructuralModel, "states.png"),
        (["lgssm", "--dataset", "nile", "--states", "1"], sse.LinearGaussianSSM, "states.png"),
        (["lgssm", "--dataset", "nile", "--design", "local_level(unit='s') + ar(1)"], sse.designs.ContinuousModel,
         "states.png"),
        (["linear-gaussian-ssm", "--dataset", "radar", "--tol", "0.1"], sse.designs.MotionModel, "track.png"),
        (["mixture", "--family", "gaussian", "--dataset", "nile", "--states", 2], sse.Mixture, "components.png"),
        (["mixture", "--family", "poisson", "--dataset", "earthquakes", "--states", 2], sse.Mixture, "components.png"),
        (["mixture", "--family", "categorical", "--dataset", "old_faithful", "--states", 2], sse.Mixture,
         "components.png"),
    ],
)  # fmt: skip
def test_every_model(words, kind, picture, tmp_path, capsys):
    assert fit(*words, "--out", tmp_path / "run") == 0
    assert names_in(tmp_path / "run") == sorted(["decoded.csv", "model.nc", "posterior.nc", picture])
    model = kind.load(tmp_path / "run" / "model.nc")
    assert model.converged_
    fitted = pd.read_csv(tmp_path / "run" / "decoded.csv")
    capsys.readouterr()
    assert main(["decode", str(tmp_path / "run"), "--dataset", words[words.index("--dataset") + 1]]) == 0
    (tmp_path / "again.csv").write_text(capsys.readouterr().out)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "again.csv"), fitted)


def test_local_level_of_the_nile_is_the_published_one(tmp_path, capsys):
    # Durbin & Koopman (2012), section 2.10.2: 15099 and 1469.1, with a diffuse first state, and its log-likelihood
    assert fit("lgssm", "--dataset", "nile", "--out", tmp_path / "run") == 0
    assert "log-likelihood -632.5456 nats" in capsys.readouterr().out
    params = sse.designs.StructuralModel.load(tmp_path / "run" / "model.nc").params_
    assert params["measurement_cov"].item() == pytest.approx(15099, rel=1e-3)
    assert params["process_cov"].item() == pytest.approx(1469.1, rel=1e-3)


@pytest.mark.parametrize(
    ("words", "model"),
    [
        (["--dataset", "nile"], sse.designs.local_level()),
        (["--dataset", "nile", "--design", "local_level + ar(1)"], sse.designs.local_level() + sse.designs.ar(1)),
        (["--dataset", "nile", "--design", "ar(p=1)+constant(start='diffuse')"],
         sse.designs.ar(1) + sse.designs.constant(start="diffuse")),
        (["--dataset", "nile", "--design", "arima(0, 1, 1)"], sse.designs.arima(0, 1, 1)),
        (["--dataset", "radar"], sse.designs.constant_velocity(["east", "north"])),
        (["--dataset", "radar", "--design", "acceleration"], sse.designs.constant_acceleration(["east", "north"])),
        (["--dataset", "radar", "--design", "constant_velocity(['east', 'north']) + ar(1).on('east')"],
         sse.designs.constant_velocity(["east", "north"]) + sse.designs.ar(1).on("east")),
        (["--dataset", "radar", "--design", "level"],
         sse.LinearGaussianSSM(transition=np.eye(2), observation=np.eye(2), initial="diffuse")),
    ],
)  # fmt: skip
def test_designs_are_those_of_python(words, model, tmp_path, capsys):
    assert main(["fit", "lgssm", *words, "--out", str(tmp_path / "run")]) == 0
    if words[1] == "nile":
        y = sse.datasets.nile()
    else:
        y = sse.datasets.radar()["measured"].to_pandas()
    expected = model.fit(y)
    assert f"log-likelihood {expected.score(y):.4f} nats" in capsys.readouterr().out
    saved = type(model).load(tmp_path / "run" / "model.nc")
    np.testing.assert_allclose(saved.summary()["value"], expected.summary()["value"], rtol=1e-12)


def test_velocity_design_follows_the_radar_better_than_it_measures(tmp_path):
    assert fit("lgssm", "--dataset", "radar", "--tol", "0.01", "--out", tmp_path / "run") == 0
    decoded = pd.read_csv(tmp_path / "run" / "decoded.csv")
    radar = sse.datasets.radar()
    truth, measured = radar["true_position"].sel(axis="east"), radar["measured"].sel(axis="east")
    error = decoded["mean(east | all data)"] - truth.values
    assert np.sqrt((error**2).mean()) < 0.6 * float(np.sqrt(((measured - truth) ** 2).mean()))
    speed = radar["true_velocity"].sel(axis="east").values
    assert np.corrcoef(decoded["mean(v_east | all data)"], speed)[0, 1] > 0.9  # in m/s: the step is 2 s
    assert abs(decoded["mean(v_east | all data)"].mean() - speed.mean()) < 2
    inside = np.abs(error) < 2.6 * decoded["sd(east | all data)"]
    assert inside.mean() > 0.9


def test_rows_that_are_not_evenly_spaced_have_velocities_per_second_too(tmp_path, capsys):
    track = sse.datasets.radar()["measured"].to_pandas().iloc[:60].dropna().iloc[[*range(20), *range(25, 50)]]
    track.to_csv(tmp_path / "track.csv")
    assert fit("lgssm", tmp_path / "track.csv", "--out", tmp_path / "run") == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    expected = sse.designs.constant_velocity(["east", "north"]).fit(track).score(track)
    assert f"log-likelihood {expected:.4f} nats" in shown.out


def test_warnings_are_one_line(csv, tmp_path, capsys):
    assert fit("gaussian-hmm", csv, "--states", 2, "--max-iter", 2, "--out", tmp_path / "run") == 0
    err = capsys.readouterr().err
    assert err.startswith("statespace-em: warning: stopped after 2 E-steps")
    assert "--max-iter" in err
    assert err.count("\n") == 1


def test_order_of_the_states(csv, tmp_path):
    for rule, sign in (("variance", 1), ("mean", None)):
        assert (
            fit("gaussian-hmm", csv, "--columns", "left", "--states", 2, "--order-by", rule, "--out", tmp_path / rule)
            == 0
        )
        params = sse.GaussianHMM.load(tmp_path / rule / "model.nc").params_
        value = params["cov"] if sign else params["mean"]
        assert np.diff(value.values.ravel())[0] > 0


# reading


def test_file_formats_give_the_same_result(csv, tmp_path):
    frame = regimes()
    frame.to_parquet(tmp_path / "data.parquet")
    frame.to_csv(tmp_path / "data.tsv", sep="\t")
    frame.to_csv(tmp_path / "data.csv.gz")
    frame.to_xarray().to_netcdf(tmp_path / "columns.nc", engine="h5netcdf")
    wide = xr.DataArray(frame.to_numpy(), {"date": frame.index, "side": list(frame)}, ("date", "side"), "y")
    wide.to_netcdf(tmp_path / "wide.nc", engine="h5netcdf")
    others = ["data.parquet", "data.tsv", "data.csv.gz", "columns.nc", "wide.nc"]
    for name in ("data.csv", *others):
        assert fit("gaussian-hmm", tmp_path / name, "--states", 2, "--out", tmp_path / "runs" / name) == 0
    expected = (tmp_path / "runs" / "data.csv" / "decoded.csv").read_text()
    for name in others:
        assert (tmp_path / "runs" / name / "decoded.csv").read_text() == expected, name


def read(*words):
    return run.read(parse(["decode", "model.nc", *map(str, words)]))


def test_netcdf_of_several_variables(tmp_path):
    draw = xr.Dataset(
        {"state": ("time", np.arange(4)), "y": (("time", "feature"), np.eye(4, 2))}, {"feature": ["a", "b"]}
    )
    draw.to_netcdf(tmp_path / "draw.nc", engine="h5netcdf")
    assert list(read(tmp_path / "draw.nc").columns) == ["state", "y.a", "y.b"]
    only = read(tmp_path / "draw.nc", "--columns", "y")
    assert (list(only.columns), only["a"].tolist()) == (["a", "b"], [1, 0, 0, 0])


@pytest.mark.parametrize(
    ("text", "words", "expected"),
    [
        ("date,y\n2020-01-01,1\n2020-01-02,2\n", [], pd.DatetimeIndex(["2020-01-01", "2020-01-02"])),
        ("y,Year\n1,1999\n2,2000\n", [], pd.Index([1999, 2000])),
        ("when,y\n1 March 2020,1\n2 March 2020,2\n", [], pd.DatetimeIndex(["2020-03-01", "2020-03-02"])),
        (",y\n2020-01-01,1\n2020-01-02,2\n", [], pd.DatetimeIndex(["2020-01-01", "2020-01-02"])),
        ("time,y\n0 days 00:00:01,1\n0 days 00:00:02,2\n", [], pd.to_timedelta(["1s", "2s"])),
        ("date,y\n2020-01-01T00:00+01:00,1\n2020-01-02T00:00+01:00,2\n", [],
         pd.DatetimeIndex(["2019-12-31 23:00", "2020-01-01 23:00"])),
        ("y\n1\n2\n", [], pd.RangeIndex(2)),
        ("count,y\n7,1\n9,2\n", ["--time", "count"], pd.Index([7, 9])),
        ("date,y\n2020-01-02,2\n2020-01-01,1\n", ["--sort"], pd.DatetimeIndex(["2020-01-01", "2020-01-02"])),
    ],
)  # fmt: skip
def test_column_of_times(text, words, expected, tmp_path):
    (tmp_path / "data.csv").write_text(text)
    table = read(tmp_path / "data.csv", *words)
    assert (list(table.columns), table["y"].tolist()) == (["y"], [1, 2])
    assert (table.index == expected).all()


def test_the_file_may_stand_anywhere():
    for words in (["data.csv", "--states", "2"], ["--states", "2", "data.csv"]):
        assert parse(["fit", "gaussian-hmm", *words, "--out", "run"]).file == "data.csv"


def panel():
    """Three sequences of different lengths, their rows mixed."""
    parts = [regimes(60, seed).assign(who=name).iloc[: 60 - 10 * seed] for seed, name in enumerate("cab")]
    return pd.concat(parts).reset_index().sort_values(["date", "who"], kind="stable")


def test_panels(tmp_path):
    frame = panel()
    frame.to_csv(tmp_path / "panel.csv", index=False)
    assert (
        fit("gaussian-hmm", tmp_path / "panel.csv", "--sequence", "who", "--states", 2, "--out", tmp_path / "run") == 0
    )
    model = sse.GaussianHMM.load(tmp_path / "run" / "model.nc")
    decoded = pd.read_csv(tmp_path / "run" / "decoded.csv", parse_dates=["date"])
    assert list(decoded.columns[:3]) == ["who", "date", "state"]
    for name, part in frame.groupby("who"):
        mine = decoded[decoded["who"] == name]
        y = part.set_index("date")[["left", "right"]]
        assert mine["date"].tolist() == y.index.tolist()
        assert mine["state"].tolist() == model.decode(y).values.tolist()
        gamma = model.e_step(y)["gamma"].sel(state=1)
        np.testing.assert_allclose(mine["p(1 | all data)"], gamma, rtol=1e-9)


def test_sequences_with_times_of_their_own_in_netcdf(tmp_path):
    stamps = np.array([[5.0, 6.0], [8.0, np.nan]])
    y = xr.DataArray([[1.0, 2.0], [3.0, np.nan]], dims=("sequence", "time"), name="y")
    y = y.assign_coords(sequence=["a", "b"], length=("sequence", [2, 1]), timestamp=(("sequence", "time"), stamps))
    y.to_netcdf(tmp_path / "own.nc", engine="h5netcdf")
    table = read(tmp_path / "own.nc")
    assert (table.index.tolist(), table["y"].tolist()) == ([("a", 5), ("a", 6), ("b", 8)], [1, 2, 3])


def test_panel_of_a_parquet_index_and_of_netcdf_is_that_of_the_csv(tmp_path):
    panel().to_csv(tmp_path / "panel.csv", index=False)
    whole = read(tmp_path / "panel.csv", "--sequence", "who")
    whole.to_parquet(tmp_path / "panel.parquet")
    pd.testing.assert_frame_equal(read(tmp_path / "panel.parquet"), whole, check_freq=False)
    padded = xr.DataArray(np.full((2, 3, 1), 1.5), dims=("sequence", "time", "feature"), name="y")
    padded = padded.assign_coords(sequence=["a", "b"], feature=["v"], length=("sequence", [3, 1]))
    padded.to_netcdf(tmp_path / "padded.nc", engine="h5netcdf")
    table = read(tmp_path / "padded.nc", "--sequence", "sequence")
    assert table.index.tolist() == [("a", 0), ("a", 1), ("a", 2), ("b", 0)]
    assert list(table.columns) == ["v"]


# decode and compare


def test_decode_new_data(csv, tmp_path, capsys):
    assert fit("gaussian-hmm", csv, "--states", 2, "--out", tmp_path / "run") == 0
    fresh = regimes(40, seed=9).assign(note="text that the model does not know")
    fresh.to_csv(tmp_path / "new.csv")
    words = ["decode", str(tmp_path / "run" / "model.nc"), str(tmp_path / "new.csv")]
    capsys.readouterr()
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert main([*words, "--out", str(tmp_path / "new_states.csv")]) == 0
    assert (tmp_path / "new_states.csv").read_text() == printed
    decoded = pd.read_csv(tmp_path / "new_states.csv", index_col="date", parse_dates=True)
    model = sse.GaussianHMM.load(tmp_path / "run" / "model.nc")
    y = fresh[["left", "right"]]
    assert decoded["state"].tolist() == model.decode(y).values.tolist()
    np.testing.assert_allclose(decoded["p(0 | all data)"], model.e_step(y)["gamma"].sel(state=0), rtol=1e-12)
    half = fresh.iloc[:20]
    half.to_csv(tmp_path / "half.csv")
    assert (
        main(["decode", str(tmp_path / "run"), str(tmp_path / "half.csv"), "--out", str(tmp_path / "half_states.csv")])
        == 0
    )
    early = pd.read_csv(tmp_path / "half_states.csv")
    for k in (0, 1):  # later rows change what is known with hindsight only
        np.testing.assert_array_equal(early[f"p({k} | data so far)"], decoded[f"p({k} | data so far)"].iloc[:20])


def test_compare(tmp_path, capsys):
    out = tmp_path / "table.csv"
    words = [
        "compare",
        "poisson-hmm",
        "--dataset",
        "earthquakes",
        "--states",
        "1-3",
        "--starts",
        "4",
        "--out",
        str(out),
    ]
    assert main(words) == 0
    table = pd.read_csv(out).set_index("states")
    assert list(table.columns) == ["log_likelihood", "n_parameters", "aic", "bic", "status"]
    assert table["n_parameters"].to_dict() == {1: 1, 2: 2 + 2 + 1, 3: 3 + 6 + 2}
    # Zucchini, MacDonald & Langrock (2016), table 3.2, less the distribution of the first state
    assert table["log_likelihood"].round(4).to_dict() == {1: -391.9189, 2: -341.8787, 3: -328.5275}
    np.testing.assert_allclose(table["aic"], 2 * table["n_parameters"] - 2 * table["log_likelihood"])
    np.testing.assert_allclose(table["bic"], np.log(107) * table["n_parameters"] - 2 * table["log_likelihood"])
    assert "lowest AIC: states = 3; lowest BIC: states = 2" in capsys.readouterr().out


def n_parameters(model, y, **options):
    return model.fit(y, n_starts=1, tol=0.0, max_iter=5, **options).n_parameters_


def test_n_parameters_of_every_model():
    y = regimes()
    chain = 1 + 2
    for covariance, size in (("full", 6), ("diagonal", 4), ("spherical", 2), ("tied", 3)):
        assert n_parameters(sse.GaussianHMM(2, covariance), y) == chain + 4 + size, covariance
    assert n_parameters(sse.Mixture(3, sse.emissions.Gaussian("diagonal")), y) == 2 + 6 + 6
    assert n_parameters(sse.CategoricalHMM(2), pd.DataFrame({"s": list("abcacb" * 5)})) == chain + 2 * 2
    # entries of A, Q, C, R and the mean of the first state, less a change of basis
    assert n_parameters(sse.LinearGaussianSSM(2), y) == 4 + 3 + 4 + 3 + 2 - 4


def test_a_probability_that_vanishes_counts():
    y = pd.DataFrame({"s": ["a"] * 20 + ["b"] * 20})
    model = sse.CategoricalHMM(2).fit(y)
    assert (model.params_["prob"].values < 1e-12).any()
    assert model.n_parameters_ == 1 + 2 + 2


# what is refused


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["fit", "gaussian-hmm", "--states", 2], "give a FILE or --dataset NAME"),
        (["fit", "gaussian-hmm", "nothing.csv", "--states", 2], "there is no file 'nothing.csv'"),
        (["fit", "gaussian-hmm", ".", "--states", 2], "'.' is a folder"),
        (["fit", "gaussian-hmm", "data.csv", "--columns", "up", "--states", 2], "no column 'up', only 'left', 'right'"),
        (["fit", "gaussian-hmm", "data.csv", "--time", "up", "--states", 2], "no column 'up' for --time, only 'date'"),
        (["fit", "gaussian-hmm", "data.csv", "--sequence", "up", "--states", 2], "no column 'up' for --sequence"),
        (["fit", "gaussian-hmm", "--dataset", "moon", "--states", 2], "--dataset: invalid choice: 'moon'.*'stocks'"),
        (["fit", "hmm", "data.csv", "--states", 2], "MODEL: invalid choice: 'hmm'.*'gaussian-hmm'"),
        (["fit", "gaussian-hmm", "data.csv"], "give --states K, or --names"),
        (["fit", "gaussian-hmm", "data.csv", "--states", "two"], "--states: invalid int value: 'two'"),
        (["fit", "gaussian-hmm", "data.csv", "--states", 0], "number of states is 0"),
        (["fit", "gaussian-hmm", "data.csv", "--states", 3, "--names", "a,b"], "--states 3, but --names has 2: a, b"),
        (["fit", "gaussian-hmm", "data.csv", "--names", "a,a"], "the name 'a' twice"),
        (["fit", "gaussian-hmm", "data.csv", "--states", 500], "fewer different rows .120. than states .500."),
        (["fit", "gaussian-hmm", "data.csv", "--states", 2, "--starts", 0], "n_starts is 0"),
        (["fit", "gaussian-hmm", "data.csv", "--states", 2, "--tol", "-1"], "tol is -1.0"),
        (["fit", "poisson-hmm", "data.csv", "--states", 2], "but counts are expected.*'right', date 2020-01-01"),
        (["fit", "poisson-hmm", "data.csv", "--states", 2, "--covariance", "full"], "--covariance is for gaussian-hmm"),
        (["fit", "gaussian-hmm", "data.csv", "--states", 2, "--family", "poisson"], "--family is for mixture only"),
        (["fit", "gaussian-hmm", "data.csv", "--states", 2, "--design", "level"], "--design is for lgssm only"),
        (["fit", "mixture", "data.csv", "--states", 2], "a mixture needs --family"),
        (["fit", "lgssm", "data.csv", "--states", 3, "--design", "level"], "level design of left, right has 2 states"),
        (["fit", "lgssm", "data.csv", "--names", "a,b", "--design", "constant_velocity(1)"],
         r"states of the constant_velocity\(1\) design have names: x, v_x. Leave out --names"),
        (["fit", "lgssm", "data.csv", "--design", "levle"], "--design 'levle' is no design, expected level, velocity"),
        (["fit", "lgssm", "data.csv", "--design", "seasonal(12"], r"'seasonal\(12' is no design.*\"local_trend"),
        (["fit", "lgssm", "data.csv", "--design", "seasonal(print())"], r"'seasonal\(print\(\)\)' is no design"),
        (["fit", "lgssm", "data.csv", "--design", "seasonal()"], "'period'"),
        (["fit", "lgssm", "data.csv", "--design", "local_trend + seasonal(1)"], "period is 1, expected a number of at"),
        (["fit", "lgssm", "data.csv", "--design", "local_trend"], "y has 2 columns, expected one"),
        (["fit", "gaussian-hmm", "text.csv", "--states", 2], "'red' is not a number.*'colour'.*use categorical-hmm"),
        (["fit", "gaussian-hmm", "unsorted.csv", "--states", 2], "date 2020-01-01 comes after 2020-01-02.*--sort"),
        (["fit", "gaussian-hmm", "undated.csv", "--states", 2], "'date' does not hold times .such as 'soon'.*--time"),
        (["fit", "gaussian-hmm", "broken.parquet", "--states", 2], "'broken.parquet' cannot be read as Parquet"),
        (["fit", "gaussian-hmm", "broken.nc", "--states", 2], "'broken.nc' cannot be read as NetCDF"),
        (["fit", "gaussian-hmm", "empty.csv", "--states", 2], "'empty.csv' cannot be read as CSV"),
        (["fit", "gaussian-hmm", "data.xlsx", "--states", 2], "ends in '.xlsx', expected .csv"),
        (["decode", "data.csv", "data.csv"], "'data.csv' is not a saved model"),
        (["decode", "nothing.nc", "data.csv"], "there is no file 'nothing.nc'"),
        (["decode", "data.csv", "data.csv", "--out", "nowhere/states.csv"], "no folder '.*nowhere'"),
        (["compare", "gaussian-hmm", "data.csv", "--states", "some"], "--states 'some' is not a list of numbers"),
        (["compare", "gaussian-hmm", "data.csv", "--states", "0-2"], "holds no number of states|at least 1"),
        (["compare", "gaussian-hmm", "data.csv"], "required: --states"),
        (["compare", "gaussian-hmm", "a.csv", "b.csv", "--states", 2], "unrecognized arguments: b.csv"),
        (["fit", "gaussian-hmm", "data.csv", "--dataset", "nile", "--states", 2], "a FILE or --dataset NAME, one of"),
        (["fit", "gaussian-hmm", "data.csv", "--wrong", "--states", 2], "unrecognized arguments: --wrong"),
        (["fit", "gaussian-hmm", "header.csv", "--states", 2], "'header.csv' has no rows"),
        (["fit", "gaussian-hmm", "unsorted.nc", "--states", 2], "date 2020-01-01 comes after 2020-01-02.*--sort"),
        ([], "required: COMMAND"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(words, match, csv, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.csv").write_text("colour\nred\nblue\n")
    Path("unsorted.csv").write_text("date,y\n2020-01-02,1\n2020-01-01,2\n2020-01-03,4\n")
    Path("undated.csv").write_text("date,y\nsoon,1\nlater,2\n")
    for name in ("broken.parquet", "broken.nc", "data.xlsx"):
        Path(name).write_text("nonsense")
    Path("empty.csv").touch()
    Path("header.csv").write_text("date,y\n")
    unsorted = pd.read_csv("unsorted.csv", index_col="date", parse_dates=True)
    xr.DataArray(unsorted, dims=("date", "c"), name="y").to_netcdf("unsorted.nc", engine="h5netcdf")
    before = names_in(tmp_path)
    out = ["--out", "run"] if words and words[0] == "fit" else []
    refused(capsys, *words, *out, match=match)
    assert names_in(tmp_path) == before


def test_decode_needs_the_columns_of_the_model(csv, tmp_path, capsys):
    assert fit("gaussian-hmm", csv, "--states", 2, "--out", tmp_path / "run") == 0
    capsys.readouterr()
    regimes().drop(columns="right").to_csv(tmp_path / "other.csv")
    refused(capsys, "decode", tmp_path / "run", tmp_path / "other.csv", match="no column 'right'")


def test_help_shows_the_commands_and_examples(capsys):
    for words, expected in (
        (["--help"], ["fit", "decode", "compare", "--dataset stocks --states 3 --out run"]),
        (["fit", "--help"], ["--columns", "--covariance", "p(NAME | data so far)", "velocity"]),
        (["decode", "--help"], ["model.nc"]),
        (["compare", "--help"], ["n_parameters"]),
    ):
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 0
        shown = capsys.readouterr().out
        assert all(word in shown for word in expected)


# all or nothing


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_earlier_run_is_kept_without_force(csv, tmp_path, capsys):
    words = ["gaussian-hmm", csv, "--states", 2, "--out", tmp_path / "run"]
    assert fit(*words) == 0
    capsys.readouterr()
    before = contents(tmp_path / "run")
    refused(capsys, "fit", *words, match="has model.nc, posterior.nc, decoded.csv, regimes.png already.*--force")
    assert contents(tmp_path / "run") == before


def test_force_replaces_a_run_and_leaves_other_files_alone(csv, tmp_path):
    folder = tmp_path / "run"
    assert fit("gaussian-hmm", csv, "--states", 2, "--out", folder) == 0
    (folder / "notes.txt").write_text("mine")
    assert fit("lgssm", csv, "--out", folder, "--force", "--tol", "0.1") == 0
    assert names_in(folder) == ["decoded.csv", "model.nc", "notes.txt", "posterior.nc", "states.png"]
    assert (folder / "notes.txt").read_text() == "mine"
    assert sse.LinearGaussianSSM.load(folder / "model.nc").params_.sizes["state"] == 2
    assert names_in(tmp_path) == ["data.csv", "run"]


def test_a_folder_with_other_files_is_written_into(csv, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").touch()
    assert fit("gaussian-hmm", csv, "--states", 2, "--out", tmp_path / "run") == 0
    assert "notes.txt" in names_in(tmp_path / "run")


def test_out_may_be_several_new_folders_deep(csv, tmp_path):
    assert fit("gaussian-hmm", csv, "--states", 2, "--out", tmp_path / "a" / "b" / "run") == 0
    assert "model.nc" in names_in(tmp_path / "a" / "b" / "run")
    assert names_in(tmp_path) == ["a", "data.csv"]


def test_out_that_is_a_file_is_refused_even_with_force(csv, capsys):
    refused(
        capsys, "fit", "gaussian-hmm", csv, "--states", 2, "--out", csv, "--force", match="is a file, expected a folder"
    )


def test_files_have_the_usual_permissions(csv, tmp_path):
    (tmp_path / "plain").touch()
    (tmp_path / "folder").mkdir()
    assert fit("gaussian-hmm", csv, "--states", 2, "--out", tmp_path / "run") == 0
    assert (tmp_path / "run").stat().st_mode == (tmp_path / "folder").stat().st_mode
    for path in (tmp_path / "run").iterdir():
        assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode, path.name


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("place", ["to_csv", "exchange"])
def test_a_run_that_fails_while_writing_leaves_no_trace(place, there, error, csv, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    if there:
        assert fit("gaussian-hmm", csv, "--states", 2, "--out", folder) == 0
        (folder / "notes.txt").write_text("mine")
    before = contents(folder) if there else None
    replace = Path.replace

    def fail(*_args, **_options):
        raise error

    def fail_at_posterior(self, target):
        return (
            fail()
            if Path(target) == folder / "posterior.nc" and self.parent.name.endswith(".part")
            else replace(self, target)
        )

    if place == "to_csv":
        monkeypatch.setattr(pd.DataFrame, "to_csv", fail)
    elif there:
        monkeypatch.setattr(Path, "replace", fail_at_posterior)
    else:
        monkeypatch.setattr(Path, "rename", fail)
    capsys.readouterr()
    assert fit("gaussian-hmm", csv, "--states", 3, "--out", folder, "--force") == (
        2 if isinstance(error, OSError) else 130
    )
    err = capsys.readouterr().err
    assert err == (
        "statespace-em: error: disk full\n" if isinstance(error, OSError) else "statespace-em: interrupted\n"
    )
    assert names_in(tmp_path) == ["data.csv", "run"][: 1 + there]
    if there:
        assert contents(folder) == before


def test_decode_that_fails_keeps_the_old_file(csv, tmp_path, monkeypatch, capsys):
    assert fit("gaussian-hmm", csv, "--states", 2, "--out", tmp_path / "run") == 0
    out = tmp_path / "states.csv"
    out.write_text("old")
    capsys.readouterr()
    refused(capsys, "decode", tmp_path / "run", csv, "--out", out, match="exists already")

    def half(self, path, **_options):
        Path(path).write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr(pd.DataFrame, "to_csv", half)
    refused(capsys, "decode", tmp_path / "run", csv, "--out", out, "--force", match="disk full")
    assert out.read_text() == "old"
    assert names_in(tmp_path) == ["data.csv", "run", "states.csv"]


def test_data_survive_a_picture_that_fails(csv, tmp_path, monkeypatch, capsys):
    def fail(*_args):
        raise RuntimeError("no fonts")

    monkeypatch.setattr(run, "draw", fail)
    assert fit("gaussian-hmm", csv, "--states", 2, "--out", tmp_path / "run") == 1
    assert names_in(tmp_path / "run") == ["decoded.csv", "model.nc", "posterior.nc"]
    assert capsys.readouterr().err == (
        "statespace-em: warning: regimes.png could not be drawn, the data files are complete: no fonts\n"
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_leave_nothing_behind(number, code, csv, tmp_path):
    script = (
        "import signal, sys, time, pandas as pd\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored where tests run in the background
        "from statespace_em.__main__ import main\n"
        "def hang(*args, **options):\n"
        "    print('writing', flush=True)\n"
        "    time.sleep(60)\n"
        "pd.DataFrame.to_csv = hang\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    words = ["fit", "gaussian-hmm", str(csv), "--states", "2", "--starts", "1", "--out", str(tmp_path / "run")]
    with subprocess.Popen(
        [sys.executable, "-c", script, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        while b"writing" not in process.stdout.readline():
            assert process.poll() is None
        assert any(name.endswith(".part") for name in names_in(tmp_path))
        process.send_signal(number)
        assert process.wait(30) == code
    assert names_in(tmp_path) == ["data.csv"]


def test_a_second_run_that_is_faster_wins(tmp_path):
    def slow():
        with output.new_folder(tmp_path / "run", force=False) as mine:
            (mine / "model.nc").touch()
            (tmp_path / "run").mkdir()
            (tmp_path / "run" / "model.nc").write_text("theirs")

    with pytest.raises(output.OutputError, match=r"model\.nc already"):
        slow()
    assert (tmp_path / "run" / "model.nc").read_text() == "theirs"
    assert names_in(tmp_path) == ["run"]
