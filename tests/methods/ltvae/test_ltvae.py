"""LTVAE against the equations of its paper; what it shares with every method is tested beside the base."""

import json
import math
from copy import copy

import numpy as np
import pytest
import torch
from torch.distributions import Independent, Normal
from torch.testing import assert_close

from nvisa import load, write_report
from nvisa.commands import cli
from nvisa.fitting.run import Run
from nvisa.fitting.training import Training
from nvisa.methods import LTVAE
from nvisa.methods.ltvae import ltvae
from nvisa.methods.ltvae.latent_tree import LatentTree, em
from nvisa.nets.layers import Network
from nvisa.nets.rows import Source
from nvisa.nets.units import Rescale
from oracles import TIGHT, build, grid, information, log_bernoulli, normal
from trees import CHAIN, enumerated, some_tree, structure_of

FLOOR = 0.3


def networks(rng, likelihood="gaussian", n_features=4):
    units = Rescale(torch.zeros(n_features), torch.ones(n_features))
    if likelihood != "bernoulli":
        units = Rescale(torch.arange(n_features) / 3.0, 0.5 + torch.arange(n_features))
    structure = structure_of((2, 3), [(0, 1)], {(0,): 0, (1,): 1})
    network = Network(hidden=(6, 5), latent_dim=2, batch_norm=False)
    net = build(lambda: ltvae.Networks(units, structure, network, likelihood=likelihood), rng, spread=0.5)
    net.tree = some_tree(structure, rng)
    return net


@pytest.mark.parametrize("rate", [0.01, 0.4])
def test_the_objective_steps_by_its_rate_towards_the_batch_s_statistics(rng, rate):
    net, z = networks(rng), normal(rng, 40, 2)
    before, batch = net.tree.statistics(z[:30]), net.tree.statistics(z[30:])
    ltvae.Objective(net, z[:30], rate, FLOOR, rng).follow(z[30:])
    expected = before.prior + rate * (batch.prior - before.prior)
    assert_close(net.tree.log_prior.exp(), expected, **TIGHT)
    mass, first = (
        getattr(before, n)[0] + rate * (getattr(batch, n)[0] - getattr(before, n)[0]) for n in ("mass", "first")
    )
    assert_close(net.tree.loc_0, (first / mass[:, None])[:, net.tree.structure.dims(0)], **TIGHT)


@pytest.mark.parametrize("likelihood", ["gaussian_unit", "bernoulli"])
def test_the_terms_add_up_to_the_paper_s_bound(rng, likelihood):
    net, noise = networks(rng, likelihood), normal(rng, 6, 2)
    x = normal(rng, 6, 4).sigmoid()
    terms, log_q_y, z = net.elbo(x, noise, FLOOR)
    loc, scale = net.encoder.q_z(x)
    assert_close(z, loc + scale * noise, **TIGHT)
    h, units = net.decoder(z), net.rescale(x)
    out = net.x_head.logits(h) if likelihood == "bernoulli" else net.x_head.loc(h)
    recon = log_bernoulli(x, out) if likelihood == "bernoulli" else Independent(Normal(out, 1.0), 1).log_prob(units)
    joint = enumerated(net.tree, z)
    log_p_z = torch.stack(list(joint.values())).logsumexp(0)
    assert_close(sum(terms.values()), recon + log_p_z + Normal(loc, scale).entropy().sum(1), **TIGHT)
    first = torch.stack([torch.stack([v for s, v in joint.items() if s[0] == k]).logsumexp(0) for k in range(2)], 1)
    assert_close(log_q_y, first.log_softmax(1), **TIGHT)


def test_stepwise_em_averages_statistics_and_at_rate_one_is_em(rng):
    z = normal(rng, 40, 4)
    whole, stepwise = some_tree(CHAIN, rng), LatentTree(CHAIN).double()
    stepwise.load_state_dict(whole.state_dict())
    em(whole, z, 1, ltvae.LEAST_VARIANCE)
    net = networks(rng)
    net.tree = stepwise
    ltvae.Objective(net, z[:7], 1.0, FLOOR, rng).follow(z)
    assert_close(dict(stepwise.named_buffers()), dict(whole.named_buffers()), **TIGHT)
    first, second = whole.statistics(z[:10]), whole.statistics(z[10:40])
    mixed, both = first.towards(second, 0.75), whole.statistics(z)  # 10 + 30 rows
    for name in ("tables", "mass", "first", "second"):
        assert_close(getattr(mixed, name), getattr(both, name), **TIGHT)
    assert_close(mixed.prior, both.prior, **TIGHT)


def test_the_density_has_mass_one_in_the_user_s_units(rng):
    net = networks(rng, n_features=2)
    with torch.no_grad():
        net.encoder.z_loc.weight.zero_()
        net.encoder.z_loc.bias.zero_()
    net.tree = LatentTree(net.tree.structure).double()  # N(0, I) in every state
    net.encoder.init_scale(1 - 1e-4)
    fitted = LTVAE(2, likelihood="gaussian", std_floor=FLOOR)
    fitted.module_ = net
    x, cell = grid(-40, 40, 401, 2)
    with torch.inference_mode():
        assert float(fitted._log_p_x(x).exp().sum()) * cell == pytest.approx(1, abs=1e-6)


def test_the_importance_sampled_density_uses_the_tree(rng):
    net, x = networks(rng), normal(rng, 5, 4)
    fitted = LTVAE(2, likelihood="gaussian", std_floor=FLOOR)
    fitted.module_ = net
    net.encoder.init_scale(1 - 1e-4)
    with torch.inference_mode():
        loc, scale = net.encoder.q_z(x)
        noise = torch.randn(32, 2, generator=torch.Generator().manual_seed(0)).double()
        draws = []
        for eps in noise:
            z = loc + scale * eps
            log_p_z = torch.stack(list(enumerated(net.tree, z).values())).logsumexp(0)
            draws.append(
                net.log_p_x_given_z(x, z[None], FLOOR)[0] + log_p_z - Independent(Normal(loc, scale), 1).log_prob(z)
            )
        expected = torch.stack(draws).logsumexp(0) - math.log(32) + net.rescale.log_det(x)
        assert_close(fitted._log_p_x(x), expected, **TIGHT)


@torch.no_grad()
def test_the_facet_that_tells_most_becomes_the_first_and_every_facet_is_numbered_by_size(rng):
    """Of latent 0 all rows are in one state, for sure; latent 1 cuts them in three, the smallest first."""
    net, X = networks(rng).float(), normal(rng, 90, 4).float().numpy()
    source = Source(X)
    z = net.code(source[slice(None)])[:, 1].sort().values
    net.tree = LatentTree(structure_of((2, 3), [(0, 1)], {(0,): 0, (1,): 1}))
    net.tree.loc_0.copy_(torch.tensor([[500.0], [0.0]]))
    net.tree.loc_1.copy_(torch.stack([part.mean() for part in z.split([15, 30, 45])])[:, None])
    net.tree.tril_1.fill_(0.2 * float(z.std()))
    found = ltvae.name_facets(net, Run(X, source, net.rescale, net, np.random.RandomState(0), rng, 0, None, []))
    assert found["n_clusters_"] == 3
    assert net.tree.structure.plain() == found["structure_"]
    assert net.tree.structure.pouches_of(0) == [(1,)]
    assert found["information_"][0] > 0.5
    assert 0 <= found["information_"][1] < 0.01
    for facet in found["facets_"].T:
        assert (np.diff(np.bincount(facet)) < 0).all()
    assert torch.equal(net.log_q_y(source[slice(None)]).argmax(1), torch.from_numpy(found["facets_"][:, 0]))


# ---- fits ----------------------------------------------------------------------------------------------------------


SMALL = {
    "n_init": 2,
    "network": Network(hidden=(16,), latent_dim=4, batch_norm=False),
    "pretraining": Training(epochs=30, batch_size=64),
    "training": Training(epochs=10, batch_size=64),
    "random_state": 0,
}


def two_facets(n=300):
    """Rows with two independent clusterings: 3 groups in the first columns, 2 in the last."""
    rng = np.random.RandomState(0)
    a, b = rng.randint(3, size=n), rng.randint(2, size=n)
    X = np.c_[6.0 * np.eye(3)[a], 6.0 * np.eye(2)[b]] + rng.randn(n, 5) * 0.7
    return X, a, b


@pytest.fixture(scope="module")
def searched():
    X, a, b = two_facets()
    return LTVAE(6, structure="search", states="search", search_rows=200, **SMALL).fit(X), X, a, b


def test_the_facets_are_ordered_by_information_numbered_by_size_and_the_first_one_labels(searched):
    model, X, _, _ = searched
    np.testing.assert_array_equal(model.facets_[:, 0], model.labels_)
    np.testing.assert_array_equal(model.predict_facets(X[:50]), model.facets_[:50])
    assert model.information_[0] == max(model.information_)
    told = information(model.predict_proba(X).astype(np.float64) / len(X))  # a row is drawn with probability 1/N
    assert model.information_[0] == pytest.approx(told, rel=1e-5)
    assert len(model.information_) == model.facets_.shape[1] == len(model.structure_["states"])
    assert model.n_clusters_ == model.structure_["states"][0]
    for facet in model.facets_.T:
        assert (np.diff(np.bincount(facet)) <= 0).all()
    stages = {record["stage"] for record in model.history_}
    assert stages == {"pretraining", "structure search", "training"}
    assert len(model.moves_) == sum(r["stage"] == "structure search" for r in model.history_) - model.n_searches


def test_a_searched_tree_comes_back_from_its_directory(searched, tmp_path):
    model, X, _, _ = searched
    kept = model.module_.tree
    rng = torch.Generator().manual_seed(0)
    model.module_.tree = some_tree(
        structure_of((3, 2, 4), [(0, 1), (1, 2)], {(0, 2): 0, (1,): 2, (3,): 2}), rng
    ).float()
    model.structure_ = model.module_.tree.structure.plain()
    model.n_clusters_ = 3
    try:
        model.save(tmp_path / "model")
        again = load(tmp_path / "model")
        assert again.module_.tree.structure == model.module_.tree.structure
        for method in ("predict_facets", "predict_proba", "score_samples"):
            np.testing.assert_array_equal(getattr(again, method)(X), getattr(model, method)(X))
        assert again.sample(5, cluster=2)[1].tolist() == [2] * 5
        with pytest.raises(ValueError, match="cluster must be in 0..2"):
            again.sample(5, cluster=3)
        assert again.structure_ == model.structure_
        assert again.moves_ == model.moves_
    finally:
        model.module_.tree, model.structure_, model.n_clusters_ = kept, kept.structure.plain(), kept.structure.states[0]


def test_the_first_tree_is_the_start_with_the_highest_bic(rng, monkeypatch):
    z, found, fit = normal(rng, 90, 2), [], ltvae.fit_from_posteriors
    monkeypatch.setattr(ltvae, "fit_from_posteriors", lambda *start: found.append(fit(*start)) or found[-1])
    tree = LTVAE(4, n_init=6)._first_tree(z, np.random.RandomState(0))
    scores = [model.score for model in found]
    assert len(set(scores)) > 1  # rows without clusters: every start ends elsewhere
    assert tree is found[int(np.argmax(scores))].tree


def test_the_page_and_the_command_line_count_the_clusters_that_were_found(searched, tmp_path, capsys):
    model, X = copy(searched[0]).set_params(n_clusters=9), searched[1]
    page = write_report(model, X, out=tmp_path / "r.html", maps=("pca",)).read_text()
    assert f"<h1>{model.n_clusters_} clusters" in page
    model.save(tmp_path / "model")
    np.save(tmp_path / "X.npy", X)
    cli.main(["predict", f"{tmp_path}/model", f"{tmp_path}/X.npy", "--out", f"{tmp_path}/labels.csv", "--json"])
    assert json.loads(capsys.readouterr().out)["sizes"] == np.bincount(model.labels_).tolist()


def test_em_follows_the_codes(searched):
    """After training, the tree is near EM's fixed point on the codes it was trained beside."""
    model, X, _, _ = searched
    z = torch.from_numpy(model.transform(X)).float()
    tree = LatentTree(model.module_.tree.structure)
    tree.load_state_dict(model.module_.tree.state_dict())
    path = em(tree, z, 20, ltvae.LEAST_VARIANCE)
    assert path[-1] - path[0] < 1.0


def test_the_rate_of_em_is_the_setting(monkeypatch):
    rates, objective = set(), ltvae.Objective
    monkeypatch.setattr(
        ltvae, "Objective", lambda net, z, rate, *rest: rates.add(rate) or objective(net, z, rate, *rest)
    )
    LTVAE(2, em_rate=0.3, **SMALL | {"training": Training(epochs=1), "pretraining": Training(epochs=1)}).fit(
        two_facets(60)[0]
    )
    assert rates == {0.3}
