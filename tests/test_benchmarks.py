"""The machinery of the benchmark: turns, comparison of numbers, table and report; not its times."""

import importlib.util
import json
import math
import time

import numpy as np
import pytest
from benchmarks import command, report, simulate
from benchmarks.case import Case, Shorter, Side, Target, Work, at_least, deviation
from benchmarks.row import measure, measure_apart
from benchmarks.timing import alternate


def side(name, log, *, seconds=0.0, value=1.0):
    def run():
        log.append(name)
        time.sleep(seconds)
        return value

    return Side(run, lambda result: {"value": np.array(result)})


def case(ours, theirs, **settings):
    return Case("work", "peer", lambda *, quick: Work(ours, theirs, rows=10), **settings)


def test_sides_take_turns_and_the_first_run_is_not_counted():
    log = []
    timed = alternate(Work(side("ours", log), side("theirs", log, seconds=0.01)), 3)
    assert log == ["ours", "theirs"] * 4
    assert timed.theirs.max >= timed.theirs.median >= timed.theirs.min >= 0.01 > timed.ours.min


def test_work_that_must_be_cold_gets_no_warm_up():
    log = []
    alternate(Work(side("ours", log), warm_up=False), 2)
    assert log == ["ours", "ours"]


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ({"a": 1.0}, {"a": 1.0}, 0.0),
        ({"a": [2.0, math.nan]}, {"a": [1.0, math.nan]}, 0.5),
        ({"a": math.nan}, {"a": 1.0}, math.inf),
        ({"a": [1.0, 2.0]}, {"a": 1.0}, math.inf),
        ({"a": 1.0}, {"a": 1.0, "b": 2.0}, math.inf),
        ({}, {}, math.inf),
    ],
)
def test_numbers_are_compared(ours, theirs, expected):
    assert deviation(ours, theirs)[0] == expected


def test_a_row_that_agrees_has_ratio_target_and_verdict():
    row = measure(
        case(side("ours", []), side("theirs", [], seconds=0.01), target=at_least(1.5)), quick=False, repeats=5
    )
    assert (row["status"], row["met"], row["deviation"]) == ("ok", True, 0.0)
    assert row["ratio"] == row["theirs"]["median"] / row["ours"]["median"]
    line = report.table([row])
    assert "1.5x" in line
    assert "met" in line
    assert "ns/row" in line
    assert not report.broken([row])


def test_the_iteration_alone_is_the_difference_of_two_fits():
    sides = [side(name, [], seconds=seconds) for name, seconds in (("o", 0.03), ("t", 0.07), ("o", 0.02), ("t", 0.03))]
    whole = Case("work", "peer", lambda *, quick: Work(*sides[:2], rows=10, shorter=Shorter(*sides[2:], iterations=2)))
    row = measure(whole, quick=False, repeats=5)
    assert row["iteration"]["ours"] == pytest.approx(0.005, rel=0.5)
    assert row["iteration"]["ratio"] == row["iteration"]["theirs"] / row["iteration"]["ours"]
    assert row["ratio"] < row["iteration"]["ratio"]
    assert "iteration alone" in report.table([row])


def test_a_row_that_disagrees_says_so_and_fails_the_run():
    row = measure(case(side("ours", [], value=1.0 + 1e-6), side("theirs", [])), quick=False, repeats=5)
    assert row["status"] == "disagrees"
    assert "DISAGREE in value: 5e-07 > 1e-08" in report.table([row])
    assert report.broken([row])


def test_a_peer_that_is_not_installed_is_skipped_by_name():
    row = measure_apart(Case("work", "no_such_package", lambda **_: None), quick=True, repeats=2)
    assert row["status"] == "skipped"
    assert "no_such_package is not installed" in report.table([row])
    assert not report.broken([row])


def test_a_row_that_breaks_is_reported_and_fails_the_run():
    row = measure_apart(Case("no such row", None, lambda **_: None), quick=True, repeats=2)
    assert row["status"] == "failed"
    assert "no such row" in report.summary([row])
    assert report.broken([row])


def test_targets_are_lower_bounds_of_ratios_and_upper_bounds_of_costs():
    assert at_least(5).met(5.0, 1.0, 1.0)
    assert not at_least(5).met(4.9, 1.0, 1.0)
    assert Target("seconds", 15).met(None, 15.0, 1.0)
    assert not Target("megabytes", 1500).met(None, 1.0, 1501.0)


def test_the_rows_have_names_of_their_own_and_every_target_has_one():
    found = command.cases()
    assert len({case.name for case in found}) == len(found)
    assert sum(case.section == "targets" for case in found) == 24


@pytest.mark.skipif(importlib.util.find_spec("hmmlearn") is None, reason="hmmlearn is not installed")
def test_the_command_measures_compares_and_writes(tmp_path, capsys):
    file = tmp_path / "times.json"
    assert command.main(["--quick", "--only", "^Viterbi.*K=3", "--json", str(file)]) == 0
    assert "agree to" in capsys.readouterr().out
    found = json.loads(file.read_text())
    assert found["machine"]["versions"]["hmmlearn"]
    assert found["rows"][0]["name"] == "Viterbi, T=1e6, K=3 / hmmlearn"
    assert found["rows"][0]["peak_megabytes"] > 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--repeats", "3"], "at least 5"),
        (["--only", "("], "not a regular expression"),
        (["--json", "no_such_directory/times.json"], "a directory that exists"),
        (["--json", "."], "expected a file"),
    ],
)
def test_options_that_make_no_sense_are_refused(words, message, capsys):
    with pytest.raises(SystemExit):
        command.main(words)
    assert message in capsys.readouterr().err


def test_rows_that_are_not_there_are_said(capsys):
    assert command.main(["--only", "no such row"]) == 1
    assert "no row has a name with 'no such row': see --list" in capsys.readouterr().err


@pytest.mark.parametrize("n_states", [1, 2, 4])
def test_the_simulated_path_is_that_of_the_chain(n_states):
    path = simulate.path(200_000, n_states, np.random.default_rng(0))
    pairs = np.zeros((n_states, n_states))
    np.add.at(pairs, (path[:-1], path[1:]), 1.0)
    np.testing.assert_allclose(pairs / pairs.sum(1, keepdims=True), simulate.chain(n_states).transition, atol=0.005)


def test_the_simulated_series_have_the_covariance_of_the_model():
    model = simulate.trend()._replace(transition=np.diag([0.5, 0.9]))
    stationary = np.diag(model.process_cov) / (1.0 - np.diag(model.transition) ** 2)
    y = simulate.linear(model, 200, 500)[:, 100:, 0]
    assert y.var() == pytest.approx(stationary[0] + model.measurement_cov[0, 0], rel=0.02)
    assert np.isnan(simulate.linear(model, 100, 100, missing=0.2)).mean() == pytest.approx(0.2, abs=0.01)
