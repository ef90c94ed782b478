"""Unconstrained coordinates: inverse pairs, unit-free, zeros kept."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statespace_em.domains import from_vector, joined, n_coordinates, n_free, taken, to_vector

DOMAINS = ["simplex", "positive", "nonnegative", "covariance", "location", "real"]
TOLERANCE = 1e-10


def draw(domain, rng, scale=1.0):
    if domain == "simplex":
        return rng.dirichlet(np.ones(4), size=3)
    if domain in ("positive", "nonnegative"):
        return scale * rng.gamma(1.0, size=(3, 2))
    if domain == "covariance":
        root = rng.normal(size=(3, 4, 4))
        return scale * (root @ root.transpose(0, 2, 1) + 0.1 * np.eye(4))
    return scale * rng.normal(size=(3, 2))


@pytest.mark.parametrize("domain", DOMAINS)
@given(seed=st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_from_vector_inverts_to_vector(domain, seed):
    rng = np.random.default_rng(seed)
    value, reference = draw(domain, rng), draw(domain, rng)
    vector = to_vector(value, reference, domain, 2.0)
    assert vector.shape == (n_coordinates(reference, domain),)
    back = from_vector(vector, reference, domain, 2.0)
    np.testing.assert_allclose(back, value, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("domain", DOMAINS)
@given(seed=st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_any_vector_is_a_point_of_the_domain(domain, seed):
    rng = np.random.default_rng(seed)
    reference = draw(domain, rng)
    value = from_vector(rng.normal(size=n_coordinates(reference, domain)), reference, domain)
    assert value.shape == reference.shape
    assert np.isfinite(value).all()
    if domain == "simplex":
        np.testing.assert_allclose(value.sum(-1), 1.0, rtol=TOLERANCE)
    if domain in ("simplex", "positive", "nonnegative"):
        assert (value >= 0.0).all()
    if domain == "covariance":
        np.testing.assert_array_equal(value, value.transpose(0, 2, 1))
        assert (np.linalg.eigvalsh(value) > 0.0).all()


@pytest.mark.parametrize("domain", ["simplex", "nonnegative"])
def test_zeros_of_the_reference_stay_exactly_zero(domain):
    reference = np.array([[0.5, 0.0, 0.5], [0.2, 0.8, 0.0]])
    size = n_coordinates(reference, domain)
    assert size == 4
    value = from_vector(np.random.default_rng(0).normal(size=size), reference, domain)
    np.testing.assert_array_equal(value == 0.0, reference == 0.0)


@pytest.mark.parametrize("domain", ["simplex", "nonnegative"])
def test_a_value_that_has_vanished_has_finite_coordinates(domain):
    reference = np.array([[0.5, 0.25, 0.25]])
    value = np.array([[0.75, 0.25, 0.0]])
    vector = to_vector(value, reference, domain)
    assert np.isfinite(vector).all()
    np.testing.assert_allclose(from_vector(vector, reference, domain), value, rtol=1e-15)


def test_a_row_without_any_mass_stays_at_the_reference():
    reference = np.array([[0.5, 0.5], [0.1, 0.9]])
    value = from_vector(np.array([0.0, 0.0, 1.0, 1.0]), reference, "simplex")
    np.testing.assert_array_equal(value, [[0.5, 0.5], [0.5, 0.5]])


@pytest.mark.parametrize("domain", ["positive", "nonnegative", "covariance", "location"])
@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_coordinates_do_not_know_the_unit(domain, unit):
    tolerance = 1e-12
    rng = np.random.default_rng(1)
    value, reference = draw(domain, rng), draw(domain, rng)
    plain = to_vector(value, reference, domain, np.array(1.0))
    scaled = to_vector(unit * value, unit * reference, domain, np.array(unit))
    np.testing.assert_allclose(scaled, plain, rtol=tolerance, atol=tolerance)


def test_free_values_are_coordinates_less_one_for_every_sum():
    transition = np.array([[0.9, 0.1, 0.0], [0.2, 0.3, 0.5], [0.0, 0.0, 1.0]])
    assert n_free(transition, "simplex") == 3
    assert n_free(np.ones((2, 3)), "positive") == 6
    assert n_free(np.array([np.eye(3)] * 2), "covariance") == 12
    assert n_free(np.ones((2, 3)), "location") == 6


def test_parameters_are_taken_from_one_vector_in_turn():
    rng = np.random.default_rng(0)
    references = {domain: draw(domain, rng) for domain in DOMAINS}
    references["simplex"] = np.array([[0.5, 0.0, 0.5], [0.2, 0.8, 0.0]])
    values = {domain: draw(domain, rng) for domain in DOMAINS}
    values["simplex"] = np.array([[0.1, 0.0, 0.9], [0.3, 0.7, 0.0]])
    vector = joined([to_vector(values[domain], references[domain], domain, 2.0) for domain in DOMAINS])
    for domain in DOMAINS:
        value, vector = taken(vector, references[domain], domain, 2.0)
        np.testing.assert_allclose(value, values[domain], rtol=TOLERANCE, atol=TOLERANCE)
    assert vector.shape == (0,)
    assert joined([]).shape == (0,)
