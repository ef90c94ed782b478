"""Published results of hidden Markov models and mixtures, from default starts where they are fits."""

import numpy as np
import pytest
from scipy import stats
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.optimize import minimize
from scipy.special import expit, logsumexp

import statespace_em as sse
from statespace_em.emissions import Gaussian, Poisson

# counts of the years 1851-1962 (Jarrett 1979)
COAL = np.array(
    list(
        "45410434063340263354531441553425223421322111130010110031"
        "03220111010100021000110233112111123300014000100000100101"
    )
).astype(int)


def close(got, expected, digits):
    np.testing.assert_allclose(got, expected, rtol=0, atol=0.51 * 10.0**-digits)


def symbols_model(states, symbols, initial, transition, prob):
    model = sse.CategoricalHMM(states, symbols=symbols)
    return model, model.parameters(initial=initial, transition=transition, prob=prob)


# earthquakes: Zucchini, MacDonald & Langrock, tables 1.2 and 4.2


def test_earthquakes_two_states():
    y = sse.datasets.earthquakes()
    model = sse.PoissonHMM(2).fit(y)
    close(model.score(y), -341.8787, 4)
    close(model.params_["rate"].values.ravel(), [15.4207, 26.0182], 3)  # 15.42076: the table cuts, or stops early
    close(model.params_["transition"], [[0.9284, 0.0716], [0.1190, 0.8810]], 4)
    close(model.params_["initial"], [1.0, 0.0], 10)


@pytest.mark.parametrize(("n_states", "minus"), [(1, 391.9189), (2, 360.3690), (3, 356.8489)])
def test_earthquakes_mixture(n_states, minus):
    y = sse.datasets.earthquakes()
    mixture = sse.Mixture(n_states, Poisson(), order_by="mean").fit(y)
    close(mixture.score(y), -minus, 4)
    if n_states == 2:
        close(mixture.params_["rate"].values.ravel(), [15.7771, 26.8399], 4)
        close(mixture.params_["weight"], [0.6757, 0.3243], 4)


# coal-mining disasters


def test_coal_two_states_from_the_stationary_distribution():
    model = sse.PoissonHMM(2, initial="stationary").fit(COAL)
    assert model.status_ == "converged"
    close(model.score(COAL), -173.55830, 5)


def test_coal_two_states():
    assert len(COAL) == 112
    assert COAL.sum() == 191
    model = sse.PoissonHMM(2).fit(COAL)
    close(model.score(COAL), -171.89363, 5)
    close(model.params_["rate"].values.ravel(), [0.92485, 3.12322], 5)
    close(model.params_["transition"], [[1.0, 0.0], [0.02515, 0.97485]], 5)


def test_coal_three_states():
    close(sse.PoissonHMM(3).fit(COAL).score(COAL), -169.04381, 5)


def change_points(y):
    """Log-likelihood (n,) of one change after year 1, ..., n (n: none), each at its own rates."""
    left = [stats.poisson.logpmf(y[:k], max(y[:k].mean(), 1e-300)).sum() for k in range(1, len(y) + 1)]
    right = [stats.poisson.logpmf(y[k:], max(y[k:].mean(), 1e-300)).sum() for k in range(1, len(y))]
    return np.array(left) + np.append(right, 0.0)


def left_right(y, rates, leave, n_features=1):
    """Two states that follow one another: structural zeros in both initial and transition."""
    model = sse.PoissonHMM(["before", "after"])
    return model, model.parameters(
        initial=[1.0, 0.0], transition=[[1.0 - leave, leave], [0.0, 1.0]],
        rate=np.repeat(np.reshape(rates, (2, 1)), n_features, axis=1),
    )  # fmt: skip


def test_coal_change_point():
    """Maximised over the year: Carlin, Gelfand & Smith 1992."""
    profile = change_points(COAL)
    best = int(np.argmax(profile)) + 1
    assert 1850 + best == 1891
    close(profile.max(), -168.5760, 4)
    close([COAL[:best].mean(), COAL[best:].mean()], [3.0976, 0.9014], 4)
    # the most probable path of a left-right chain is that change; its log probability is the change point's
    # log-likelihood plus the log prior of the year, (1 - p)**(year - 1) p
    leave = 0.01
    model, params = left_right(COAL, [COAL[:best].mean(), COAL[best:].mean()], leave)
    path = model.decode(COAL, params)
    assert (path.values == "before").sum() == best
    prior = (best - 1) * np.log1p(-leave) + np.log(leave)
    close(float(path["log_prob"]) - prior, -168.5760, 4)


def test_coal_left_right_chain_is_a_mixture_of_change_points():
    """Its likelihood is the sum over the years of geometric prior times that of the change, at common rates."""
    rates, leave, n = (3.0976, 0.9014), 0.02, len(COAL)
    model, params = left_right(COAL, rates, leave)
    steps = [stats.poisson.logpmf(COAL, rate) for rate in rates]
    change = np.array([steps[0][:k].sum() + steps[1][k:].sum() for k in range(1, n + 1)])
    years = np.arange(1, n + 1)
    prior = (years - 1) * np.log1p(-leave) + np.where(years < n, np.log(leave), 0.0)
    np.testing.assert_allclose(model.score(COAL, params), logsumexp(change + prior), rtol=1e-13)
    gamma = model.e_step(COAL, params)["gamma"].sel(state="after").values
    weight = np.exp(change + prior - logsumexp(change + prior))
    np.testing.assert_allclose(gamma[1:], np.cumsum(weight)[:-1], atol=1e-12)


def test_coal_left_right_fit_keeps_its_zeros_and_is_the_free_optimum():
    model, start = left_right(COAL, [2.0, 1.0], 0.1)
    model.fit(COAL, start=start)
    close(model.score(COAL), -171.89363, 5)
    close(model.params_["rate"].values.ravel(), [3.12322, 0.92485], 5)
    close(model.params_["transition"], [[0.97485, 0.02515], [0.0, 1.0]], 5)
    assert model.params_["transition"].values[1, 0] == 0.0
    assert model.params_["initial"].values.tolist() == [1.0, 0.0]
    assert model.score(COAL) < change_points(COAL).max()  # an average of likelihoods is below their maximum


@pytest.mark.filterwarnings("ignore::statespace_em.errors.DataWarning")  # a copy is no new row
def test_coal_change_point_is_the_limit_of_many_copies():
    """With the series seen m times over one hidden path, a copy's share of the likelihood tends to the maximum.

    ll = log sum_k prior_k exp(m f_k), so that max f + log(prior) / m <= ll / m <= max f.
    """
    gaps = []
    for m in (1, 10, 100, 1000):
        model, start = left_right(COAL, [2.5, 1.0], 0.05, n_features=m)
        y = np.repeat(COAL[:, None], m, axis=1)
        model.fit(y, start=start)
        gaps.append(-168.5760 - model.score(y) / m)
        leave = float(model.params_["transition"][0, 1])
        prior = 40 * np.log1p(-leave) + np.log(leave)
        assert -5.1e-5 <= gaps[-1] <= -prior / m + 5.1e-5
    assert np.all(np.diff(gaps) < 0.0)
    close(model.params_["rate"][:, 0], [3.0976, 0.9014], 4)
    assert (model.decode(y).values == "before").sum() == 1891 - 1850


def test_coal_stationary_two_states():
    """Initial distribution tied to the transitions: maximised over the public score by a general optimiser."""
    model = sse.PoissonHMM(2)

    def minus(x):
        p, q = expit(x[:2])
        stationary = np.array([q, p]) / (p + q)
        params = model.parameters(
            initial=stationary, transition=[[1 - p, p], [q, 1 - q]], rate=np.exp(x[2:]).reshape(2, 1)
        )
        return -model.score(COAL, params)

    best = minimize(minus, [-3.0, -3.0, 1.0, 0.0], method="L-BFGS-B", options={"ftol": 1e-13})
    close(-best.fun, -173.55830, 5)


# textbook examples


def test_umbrella_world():
    """Russell & Norvig, 15.2: the prior .5/.5 is of day 0, but is stationary, so that day 1 has it too."""
    transition = np.array([[0.7, 0.3], [0.3, 0.7]])
    model, params = symbols_model(
        ["rain", "dry"], ["U", "N"], np.array([0.5, 0.5]) @ transition, transition, [[0.9, 0.1], [0.2, 0.8]]
    )
    two = list("UU")
    close(model.filter(two, params)["filtered"].sel(state="rain"), [0.81818, 0.88336], 5)
    close(model.e_step(two, params)["gamma"].sel(state="rain")[0], 0.88336, 5)
    five = list("UUNUU")
    close(model.filter(five, params)["filtered"].sel(state="rain"), [0.8182, 0.8834, 0.1907, 0.7308, 0.8673], 4)
    close(model.e_step(five, params)["gamma"].sel(state="rain"), [0.8673, 0.8204, 0.3075, 0.8204, 0.8673], 4)
    close(np.exp(model.score(five, params)), 0.0343037005, 10)
    path = model.decode(five, params)
    assert path.values.tolist() == ["rain", "rain", "dry", "rain", "rain"]
    close(np.exp(path["log_prob"]), 0.011573604, 9)


def test_healthy_or_fever():
    model, params = symbols_model(
        ["healthy", "fever"],
        ["normal", "cold", "dizzy"],
        [0.6, 0.4],
        [[0.7, 0.3], [0.4, 0.6]],
        [[0.5, 0.4, 0.1], [0.1, 0.3, 0.6]],
    )
    y = ["normal", "cold", "dizzy"]
    path = model.decode(y, params)
    assert path.values.tolist() == ["healthy", "healthy", "fever"]
    close(np.exp(path["log_prob"]), 0.01512, 5)
    close(np.exp(model.score(y, params)), 0.03628, 5)


def test_stamp_tree_rings():
    model, params = symbols_model(
        ["H", "C"], [0, 1, 2], [0.6, 0.4], [[0.7, 0.3], [0.4, 0.6]], [[0.1, 0.4, 0.5], [0.7, 0.2, 0.1]]
    )
    y = [0, 1, 0, 2]
    close(np.exp(model.score(y, params)), 0.0096296, 7)
    path = model.decode(y, params)
    assert "".join(path.values) == "CCCH"
    close(np.exp(path["log_prob"]), 0.0028224, 7)
    gamma = model.e_step(y, params)["gamma"]
    close(gamma.sel(state="H"), [0.188170, 0.519432, 0.228878, 0.803979], 6)
    assert "".join(gamma.idxmax("state").values) == "CHCH"


def test_rabiner_weather():
    """Sun, sun, sun, rain, rain, sun, cloud, sun, given sun on day 1: a chain that is seen without error."""
    names = ["rain", "cloud", "sun"]
    transition = [[0.4, 0.3, 0.3], [0.2, 0.6, 0.2], [0.1, 0.1, 0.8]]
    model, params = symbols_model(names, names, [0.0, 0.0, 1.0], transition, np.eye(3))
    days = ["sun", "sun", "sun", "rain", "rain", "sun", "cloud", "sun"]
    close(np.exp(model.score(days, params)), 1.536e-4, 7)


ICE_CREAMS = list("233232322313311121113121112332322")


def ice_cream_model():
    """Stopping is a third state that is entered after the last day and shows a symbol of its own."""
    return symbols_model(
        ["C", "H", "end"],
        ["1", "2", "3", "stop"],
        [0.5, 0.5, 0.0],
        [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.0, 0.0, 1.0]],
        [[0.7, 0.2, 0.1, 0.0], [0.1, 0.2, 0.7, 0.0], [0.0, 0.0, 0.0, 1.0]],
    )


def test_eisner_ice_cream():
    model, params = ice_cream_model()
    y = [*ICE_CREAMS, "stop"]
    assert len(ICE_CREAMS) == 33
    close(1e19 * np.exp(model.score(y, params)), 9.12756, 5)
    close(model.e_step(y, params)["gamma"].sel(state="H")[:5], [0.8709, 0.9769, 0.9893, 0.9733, 0.9874], 4)
    step = model.m_step(y, model.e_step(y, params), params)
    close(1e16 * np.exp(model.score(y, step)), 1.10414, 5)
    seen = step["prob"].sel(symbol=["1", "2", "3"])
    close(seen.sel(state="C"), [0.6765, 0.2188, 0.1047], 4)
    close(seen.sel(state="H"), [0.0584, 0.4251, 0.5165], 4)
    with pytest.warns(sse.errors.ConvergenceWarning):
        model.fit(y, start=params, accelerate=False, max_iter=11)  # 11 E-steps: 10 M-steps between them
    close(1e16 * np.exp(model.score(y)), 4.51357, 5)


# daily returns, percent

RETURNS = [
    ("IBM", 2, -5843.0336, [1.01725, 2.84179], [0.98458, 0.96186]),
    ("IBM", 3, -5742.8641, [0.79093, 1.59377, 3.28234], None),
    ("MSFT", 2, -6392.6483, [1.20077, 3.29651], None),
    ("MSFT", 3, -6283.5156, None, None),
]


@pytest.mark.parametrize(("name", "n_states", "log_likelihood", "sd", "stay"), RETURNS)
def test_daily_returns(name, n_states, log_likelihood, sd, stay):
    y = 100 * sse.datasets.stocks()["log_return"][name]
    model = sse.GaussianHMM(n_states).fit(y)
    close(model.score(y), log_likelihood, 4)
    if sd is not None:
        close(np.sqrt(model.params_["cov"].values.ravel()), sd, 5)
    if stay is not None:
        close(np.diag(model.params_["transition"]), stay, 5)


# mixtures: mclust


def geyser():
    return sse.datasets.old_faithful(table="haerdle")[["duration", "waiting"]]


def test_geyser_mixtures():
    y = geyser()
    tied = sse.Mixture(3, Gaussian("tied")).fit(y)
    close(tied.score(y), -1126.3159, 4)
    full = sse.Mixture(2, Gaussian("full"), order_by="mean").fit(y)
    close(full.score(y), -1130.2640, 4)
    close(full.params_["weight"], [0.355873, 0.644127], 6)


def test_geyser_waiting():
    y = geyser()["waiting"]
    mixture = sse.Mixture(2, Gaussian(), order_by="mean").fit(y)
    close(mixture.score(y), -1034.0017, 4)
    close(mixture.params_["mean"].values.ravel(), [54.6149, 80.0911], 4)
    close(np.sqrt(mixture.params_["cov"].values.ravel()), [5.8712, 5.8677], 4)
    close(mixture.params_["weight"][0], 0.360886, 6)


@pytest.fixture(scope="module")
def iris():
    """Fisher's table as R has it."""
    from sklearn.datasets import load_iris

    return load_iris().data


@pytest.mark.parametrize(
    ("covariance", "n_states", "log_likelihood"),
    [("full", 2, -214.3547), ("full", 3, -180.1855), ("tied", 3, -256.3540)],
)
def test_iris(iris, covariance, n_states, log_likelihood):
    close(sse.Mixture(n_states, Gaussian(covariance)).fit(iris).score(iris), log_likelihood, 4)


def test_iris_diagonal(iris):
    """The quoted optimum is reached from clusters, as mclust starts; default starts find a higher one."""
    model = sse.Mixture(3, Gaussian("diagonal")).fit(iris)
    assert model.status_ == "converged"
    assert model.score(iris) > -307.1776 + 0.3
    clusters = fcluster(linkage(iris, "ward"), 3, "maxclust") - 1
    guess = model.e_step(iris).assign(gamma=(("time", "state"), np.eye(3)[clusters]))
    near = sse.Mixture(3, Gaussian("diagonal")).fit(iris, start=model.m_step(iris, guess))
    close(near.score(iris), -307.1776, 4)


# earthquakes again: m = 1 to 4 with stationary beginnings, and how sure the estimates are


@pytest.mark.parametrize(
    ("n_states", "minus", "aic", "bic", "rates"),
    [
        (1, 391.9189, 785.8, 788.5, [19.364]),
        (2, 342.3183, 692.6, 703.3, [15.472, 26.125]),
        (3, 329.4603, 676.9, 701.0, [13.146, 19.721, 29.714]),
        (4, 327.8316, 687.7, 730.4, [11.283, 13.853, 19.695, 29.700]),
    ],
)
@pytest.mark.filterwarnings("ignore::statespace_em.errors.LocalOptimumWarning")
def test_earthquakes_from_the_stationary_distribution(n_states, minus, aic, bic, rates):
    y = sse.datasets.earthquakes()
    model = sse.PoissonHMM(n_states, initial="stationary").fit(y)
    close(model.score(y), -minus, 4)
    close(model.params_["rate"].values.ravel(), rates, 3)
    row = sse.compare.table({"fit": model}, y).loc["fit"]
    assert row["n_parameters"] == n_states**2
    close([row["aic"], row["bic"]], [aic, bic], 1)


def test_earthquakes_three_states():
    y = sse.datasets.earthquakes()
    model = sse.PoissonHMM(3).fit(y)
    close(model.score(y), -328.5275, 4)
    close(model.params_["rate"].values.ravel(), [13.134, 19.713, 29.710], 3)
    close(model.params_["transition"][0], [0.9393, 0.0321, 0.0286], 4)
    close(model.params_["transition"][1:], [[0.0404, 0.9064, 0.0532], [0.0000, 0.1903, 0.8097]], 4)
    close(model.params_["initial"], [1.0, 0.0, 0.0], 10)


def test_earthquakes_three_states_stationary():
    y = sse.datasets.earthquakes()
    params = sse.PoissonHMM(3, initial="stationary").fit(y).params_
    close(params["transition"][0], [0.9546, 0.0244, 0.0209], 4)
    close(params["transition"][1:], [[0.0498, 0.8994, 0.0509], [0.0, 0.1966, 0.8034]], 4)
    close(params["initial"], [0.4436, 0.4045, 0.1519], 4)


def test_earthquakes_how_sure():
    """Information and bootstrap of two states disagree for these data, and both are right.

    The information is that of the likelihood by itself (differences of the score function, no EM). The bootstrap is
    what estimates scatter by; over its own simulations the standard errors from the information agree with it.
    """
    y = sse.datasets.earthquakes()
    model = sse.PoissonHMM(2, initial="stationary").fit(y)
    top, errors = model.params_, model.standard_errors(y)
    centre = np.array([*top["rate"].values.ravel(), top["transition"].values[0, 1], top["transition"].values[1, 0]])
    steps = np.array([1e-3, 1e-3, 1e-4, 1e-4])

    def score(x):
        transition = [[1 - x[2], x[2]], [x[3], 1 - x[3]]]
        return model.score(y, model.parameters(rate=x[:2, None], transition=transition))

    hessian = np.empty((4, 4))
    for i, j in np.ndindex(4, 4):
        a, b = steps[i] * np.eye(4)[i], steps[j] * np.eye(4)[j]
        corners = score(centre + a + b) - score(centre + a - b) - score(centre - a + b) + score(centre - a - b)
        hessian[i, j] = corners / (4 * steps[i] * steps[j])
    expected = np.sqrt(np.diag(np.linalg.inv(-hessian)))
    np.testing.assert_allclose(errors["rate"].values.ravel(), expected[:2], rtol=1e-4)
    np.testing.assert_allclose(errors["transition"].values[[0, 1], [1, 0]], expected[2:], rtol=1e-4)

    drawn = model.bootstrap(y, n_replicates=80, seed=4)
    spread = drawn["rate"].std("replicate", ddof=1).values.ravel()
    averages = []
    for seed in range(60):
        sample = model.sample(len(y), top, seed=seed)["y"].values
        fit = sse.PoissonHMM(2, initial="stationary").fit(sample, start=top)
        averages.append(fit.standard_errors(sample)["rate"].values.ravel() ** 2)
    usual = np.sqrt(np.mean(averages, axis=0))
    assert (np.abs(usual / spread - 1.0) < 0.25).all()
    assert (errors["rate"].values.ravel() > 1.1 * usual).all()  # these data tell less than most of their kind


def test_earthquakes_bootstrap_of_three_states():
    """90 per cent limits of the first rate by 500 simulations: (11.463, 14.253) in the book; another run gave
    (11.841, 14.612)."""
    y = sse.datasets.earthquakes()
    model = sse.PoissonHMM(3, initial="stationary").fit(y)
    drawn = model.bootstrap(y, n_replicates=60, seed=0)["rate"].isel(state=0)
    low, high = np.quantile(drawn, [0.05, 0.95])
    assert 11.463 - 0.4 < low < 11.841 + 0.4
    assert 14.253 - 0.4 < high < 14.612 + 0.4
