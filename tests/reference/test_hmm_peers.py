"""The same parameters in hmmlearn: log-likelihood, posteriors and Viterbi paths."""

import numpy as np
import pytest
from hmm_cases import case

import statespace_em as sse

hmmlearn = pytest.importorskip("hmmlearn.hmm")
TOLERANCE = 1e-8
FLAT = {"startprob_prior": 1.0, "transmat_prior": 1.0}
NO_PRIORS = {**FLAT, "means_prior": 0.0, "means_weight": 0.0, "covars_prior": 0.0, "covars_weight": -1.0}
WORDS = {"full": "full", "tied": "tied", "diagonal": "diag", "spherical": "spherical"}


def peer_of(kind, params):
    chain = {"startprob_": params["initial"].values, "transmat_": params["transition"].values}
    if kind == "poisson":
        peer, own = hmmlearn.PoissonHMM(3), {"lambdas_": params["rate"].values}
    elif kind == "categorical":
        peer, own = hmmlearn.CategoricalHMM(3), {"emissionprob_": params["prob"].values, "n_features": 4}
    else:
        peer = hmmlearn.GaussianHMM(3, WORDS[kind], **NO_PRIORS)
        peer.n_features = params.sizes["feature"]
        own = {"means_": params["mean"].values, "covars_": params["cov" if "cov" in params else "var"].values}
    for name, value in {**chain, **own}.items():
        setattr(peer, name, value)
    return peer


def plain(kind, y):
    if kind == "categorical":
        return np.array([["abcd".index(symbol) for symbol in row] for row in y])
    return y.astype(int) if kind == "poisson" else y


@pytest.mark.parametrize("kind", [*WORDS, "poisson", "categorical"])
def test_the_same_answers(kind):
    tolerance = TOLERANCE
    model, params, first = case(kind, 3, 120, 0)
    parts = [first, case(kind, 3, 1, 1)[2], case(kind, 3, 45, 2)[2]]
    peer, rows, lengths = peer_of(kind, params), plain(kind, np.vstack(parts)), [len(part) for part in parts]
    log_likelihood, gamma = peer.score_samples(rows, lengths)
    np.testing.assert_allclose(model.score(parts, params), log_likelihood, rtol=tolerance)
    ours = model.e_step(parts, params)
    ends = np.cumsum([0, *lengths])
    paths, log_prob = model.decode(parts, params), 0.0
    for s, n in enumerate(lengths):
        part = rows[ends[s] : ends[s + 1]]
        np.testing.assert_allclose(ours["gamma"][s, :n], gamma[ends[s] : ends[s + 1]], rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(ours["log_likelihood"][s], peer.score(part), rtol=tolerance)
        best, path = peer.decode(part)
        log_prob += best
        np.testing.assert_array_equal(paths[s, :n], path)
    np.testing.assert_allclose(paths["log_prob"].sum(), log_prob, rtol=tolerance)


@pytest.mark.parametrize("kind", [*WORDS, "poisson", "categorical"])
def test_one_em_step_is_theirs(kind):
    tolerance = TOLERANCE
    model, params, y = case(kind, 3, 200, 3)
    peer = peer_of(kind, params)
    peer.set_params(init_params="", n_iter=1)
    if kind not in WORDS:
        peer.set_params(**FLAT)
    peer.fit(plain(kind, y))
    ours = model.m_step(y, model.e_step(y, params), params)
    np.testing.assert_allclose(ours["transition"], peer.transmat_, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(ours["initial"], peer.startprob_, rtol=tolerance, atol=tolerance)
    if kind == "poisson":
        np.testing.assert_allclose(ours["rate"], peer.lambdas_, rtol=tolerance)
    elif kind == "categorical":
        np.testing.assert_allclose(ours["prob"], peer.emissionprob_, rtol=tolerance, atol=tolerance)
    else:
        np.testing.assert_allclose(ours["mean"], peer.means_, rtol=tolerance, atol=tolerance)


def test_a_fit_reaches_at_least_their_maximum():
    nats = 1e-6
    y = sse.datasets.earthquakes()
    peer = hmmlearn.PoissonHMM(2, n_iter=2000, tol=1e-10, random_state=0, lambdas_prior=0.0, lambdas_weight=0.0, **FLAT)
    peer.fit(y.to_numpy()[:, None])
    assert sse.PoissonHMM(2).fit(y).score(y) >= peer.score(y.to_numpy()[:, None]) - nats
