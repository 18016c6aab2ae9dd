"""GM-GAN against its equations: the latent mixture, the game's optimum, and the modes of planted data."""

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import make_blobs
from torch.testing import assert_close

from nvisa.fitting import checkpoint
from nvisa.fitting.run import DivergedError
from nvisa.fitting.training import StepOutput, Training
from nvisa.maths.bounds import scaled_gradient
from nvisa.maths.metrics import accuracy
from nvisa.maths.schedules import Cosine
from nvisa.methods import GMGAN, gm_gan, load
from nvisa.methods.gm_gan import (
    Discriminator,
    FactorPrior,
    Game,
    Networks,
    classifier_terms,
    discriminate,
    gradient_penalty,
    log_q_of,
)
from nvisa.nets.convolutions import Layout
from nvisa.nets.layers import Network
from nvisa.nets.units import Rescale
from oracles import TIGHT, build, gradients, log_normal, normal

B, D, Z, K = 6, 4, 2, 3
NETWORK = Network(hidden=(6, 5), latent_dim=Z, batch_norm=False)
both = pytest.mark.parametrize("dynamic", [False, True])


def latent(rng, *, dynamic, n_clusters=K, latent_dim=Z):
    """A mixture with random tables, trained or not."""
    made = FactorPrior(n_clusters, latent_dim, dynamic=dynamic).double()
    with torch.no_grad():
        made.loc.copy_(normal(rng, n_clusters, latent_dim))
        made.factor.copy_(normal(rng, n_clusters, latent_dim, latent_dim))
    return made


def game(rng, *, dynamic=True, penalty=0.3, information=0.0, rate=1e-3):
    units = Rescale(torch.arange(D) / 3.0, 0.5 + torch.arange(D))
    net = build(lambda: Networks(units, K, NETWORK, None, dynamic=dynamic), rng)
    critic = build(lambda: Discriminator(D, NETWORK, None), rng)
    return Game(net, critic, Training(learning_rate=rate), penalty, information, rng)


# ---- the latent mixture ----------------------------------------------------------------------------------------------


@both
def test_the_moments_are_the_mixture_s(rng, dynamic):
    mixture, n = latent(rng, dynamic=dynamic), 60_000
    z = mixture.draw(torch.arange(n) % K, rng).detach()
    loc, factor = mixture.loc.detach(), mixture.factor.detach()
    mean = loc.mean(0)
    covariance = sum(factor[k] @ factor[k].T + torch.outer(loc[k] - mean, loc[k] - mean) for k in range(K)) / K
    centered = z - mean
    products = centered[:, :, None] * centered[:, None]
    assert ((z.mean(0) - mean).abs() < 6 * z.std(0) / n**0.5).all()
    assert ((products.mean(0) - covariance).abs() < 6 * products.std(0) / n**0.5).all()


def test_means_start_at_the_separation_of_the_paper(rng):
    """c = 0.1, sigma = 0.15 and Z = 100 are 5.4 sigma."""
    spread, scale, latent_dim = 0.1, 0.15, 100
    separation = spread * (2 * latent_dim / 3) ** 0.5 / scale
    assert round(separation, 1) == GMGAN().separation
    mixture = FactorPrior(10, latent_dim, dynamic=False)
    mixture.start(separation, scale, rng)
    assert 0.99 * spread < mixture.loc.abs().max() <= spread * (1 + 1e-6)
    assert_close(mixture.factor, scale * torch.eye(latent_dim).expand(10, -1, -1))


@both
def test_the_gradient_reaches_the_mixture_only_if_it_is_dynamic(rng, dynamic):
    play = game(rng, dynamic=dynamic)
    mixture = play.networks.generator.latent
    assert len(list(mixture.parameters())) == (2 if dynamic else 0)
    assert set(mixture.state_dict()) == {"loc", "factor"}
    play(normal(rng, 40, D), np.arange(40), 0.0).value.mean().backward()
    assert next(play.networks.generator.decoder.parameters()).grad.abs().max() > 0
    for table in (mixture.loc, mixture.factor):
        assert (table.grad is not None and bool((table.grad != 0).any())) is dynamic


# ---- the game --------------------------------------------------------------------------------------------------------


def test_the_best_discriminator_is_the_log_ratio_and_worth_the_jensen_shannon_divergence(rng):
    p, q = normal(rng, 2, 7).softmax(1)
    logit = (p / q).log().requires_grad_()
    zero = torch.zeros(7, dtype=torch.float64)
    real, made = discriminate(logit, zero) - discriminate(zero, zero) / 2, discriminate(zero, logit)
    made = made - discriminate(zero, zero) / 2
    value = (p * real + q * made).sum()
    (slope,) = gradients(value, [logit])
    assert_close(slope, zero, **TIGHT)
    middle = (p + q) / 2
    divergence = 0.5 * (p * (p / middle).log() + q * (q / middle).log()).sum()
    assert_close(value.detach(), 2 * divergence - 2 * torch.tensor(2.0, dtype=torch.float64).log(), **TIGHT)


def test_the_penalty_is_half_the_squared_slope(rng):
    x, w, form = normal(rng, B, D).requires_grad_(), normal(rng, D), normal(rng, D, D)
    assert_close(gradient_penalty(x @ w, x), (0.5 * w @ w).expand(B), **TIGHT)
    quadratic = torch.einsum("bi,ij,bj->b", x, form, x)
    expected = torch.stack([0.5 * ((form + form.T) @ row).square().sum() for row in x])
    penalty = gradient_penalty(quadratic, x)
    assert_close(penalty, expected, **TIGHT)
    assert gradients(penalty.sum(), [x])[0].abs().max() > 0  # it can be trained


def test_a_step_raises_the_discriminator_s_objective_and_leaves_the_generator_alone(rng):
    play = game(rng, rate=1e-4)
    before = {name: value.clone() for name, value in play.networks.state_dict().items()}
    x, state = normal(rng, 50, D), rng.get_state()
    step = play(x, np.arange(50), 0.0)
    assert all(p.grad is None for p in play.networks.parameters())
    assert all(torch.equal(value, before[name]) for name, value in play.networks.state_dict().items())
    _, _, made = play.networks.generator.draw(50, rng.set_state(state))
    after = play.discriminator_objective(play.networks.rescale(x), made.detach())
    told_apart = (after.value + play.penalty * after.terms["gradient_penalty"]).mean().detach()
    assert_close(told_apart, after.terms["log_told_apart"].mean(), **TIGHT)
    assert after.value.mean() > (step.terms["log_told_apart"] - play.penalty * step.terms["gradient_penalty"]).mean()
    assert_close(step.value, play.discriminator(made).sigmoid().log(), **TIGHT)


def test_the_discriminator_learns_at_the_rate_of_the_fraction_done(rng):
    """At the end of ``Cosine(0.1)`` the rate is zero, and the discriminator stays where it is."""
    play, x = game(rng, rate=Cosine(0.1)), normal(rng, B, D)
    weight = play.discriminator.logit.weight
    start = weight.detach().clone()
    play(x, np.arange(B), 1.0)
    assert torch.equal(weight, start)
    play(x, np.arange(B), 0.0)
    assert not torch.equal(weight, start)


def test_the_plain_game_has_no_penalty(rng):
    play = game(rng, penalty=0.0)
    x, made = normal(rng, 2, B, D)
    objective = play.discriminator_objective(x, made)
    expected = play.discriminator(x).sigmoid().log() + (1 - play.discriminator(made).sigmoid()).log()
    assert_close(objective.value, expected, **TIGHT)


def test_a_scaled_gradient_has_the_same_value(rng):
    x = normal(rng, B, D).requires_grad_()
    y = scaled_gradient(x, 0.3)
    assert_close(y.detach(), x.detach(), **TIGHT)
    assert_close(gradients(y.square().sum(), [x])[0], 0.6 * x.detach(), **TIGHT)


@pytest.mark.parametrize("information", [0.5, 2.0])
def test_information_adds_its_weight_of_log_q_to_what_the_generator_climbs(rng, information):
    """The generator's slope is the game's + information * that of log q(y|G(z)); the classifier's that of log q."""
    play, state = game(rng, information=information), rng.get_state()
    generator, classifier = (
        list(net.parameters()) for net in (play.networks.generator, play.networks.classifier.y_logits)
    )
    x = normal(torch.Generator().manual_seed(1), 30, D)
    climbed = gradients(play(x, np.arange(30), 0.0).value.sum(), [*generator, *classifier])
    y, _, made = play.networks.generator.draw(30, rng.set_state(state))
    logits = play.networks.classifier.y_logits(play.networks.classifier.trunk(made))
    log_q = torch.distributions.Categorical(logits=logits).log_prob(y)
    game_value = play.discriminator(made).sigmoid().log().sum()
    for got, plain, told in zip(
        climbed, gradients(game_value, generator), gradients(log_q.sum(), generator), strict=False
    ):
        assert_close(got, plain + information * told, **TIGHT)
    for got, told in zip(climbed[len(generator) :], gradients(log_q.sum(), classifier), strict=True):
        assert_close(got, told, **TIGHT)


def test_recognition_is_a_log_likelihood_of_y_and_of_z_per_dimension(rng):
    log_q_y, m, z, scale = normal(rng, B, K).log_softmax(1), normal(rng, B, Z), normal(rng, B, Z), 0.4
    y = torch.tensor([0, 2, 1, 1, 0, 2])
    terms = classifier_terms(log_q_y, m, y, z, scale)
    assert_close(terms["log_q_of_generated"], torch.stack([row[k] for row, k in zip(log_q_y, y, strict=True)]), **TIGHT)
    assert_close(log_q_of(log_q_y, y), terms["log_q_of_generated"], **TIGHT)
    ones = torch.full((B, Z), scale, dtype=torch.float64)
    expected = (log_normal(z, m, ones) - log_normal(z, z, ones)) / Z
    assert_close(terms["minus_code_error"], expected, **TIGHT)


# ---- images ----------------------------------------------------------------------------------------------------------


def test_rows_are_images_in_the_order_of_height_width_channel(rng):
    height, width, channels = 2, 3, 2
    x = normal(rng, B, height * width * channels)
    images = Layout(height, width, channels, back=True)(x)
    for h in range(height):
        for w in range(width):
            for c in range(channels):
                assert torch.equal(images[:, c, h, w], x[:, (h * width + w) * channels + c])
    assert torch.equal(Layout(height, width, channels, back=False)(images), x)


def test_a_convolution_knows_who_is_beside_whom(rng):
    """Cyclic shifts by a whole stride, away from the border, leave a convolutional sum as it is; a shuffle does not."""
    network = Network(hidden=(3, 4), latent_dim=Z)
    critic = build(lambda: Discriminator(24 * 24, network, (24, 24)), rng)
    with torch.no_grad():
        critic.logit.weight.copy_(critic.logit.weight[:, :36].mean().expand_as(critic.logit.weight))
    image = torch.zeros(24, 24, dtype=torch.float64)
    image[8:12, 12:16] = normal(rng, 4, 4)
    moved = image.roll((4, -4), (0, 1))
    shuffled = image.flatten()[torch.randperm(576, generator=rng)]
    same, other, broken = critic(torch.stack([image.flatten(), moved.flatten(), shuffled]))
    assert_close(same, other, **TIGHT)
    assert (same - broken).abs() > 1e-3


@pytest.mark.parametrize(
    ("shape", "n_features"), [((8, 8), 65), ((8, 6), 48), ((64,), 64), ((8, 8, 2), 64), ((2, 2, 4, 4), 64)]
)
def test_images_of_another_shape_are_refused(shape, n_features):
    model = GMGAN(2, image_shape=shape, network=Network(hidden=(4, 4)))
    with pytest.raises(ValueError, match=f"of {n_features} numbers with sides divisible by 4"):
        model.fit(np.eye(n_features, dtype=np.float32))


# ---- fits ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def triangle():
    X, y = make_blobs(300, 2, centers=[[0, 7], [6, -4], [-6, -4]], random_state=0)
    return X.astype(np.float32), y


SMALL = {
    "penalty": 0.3,
    "network": Network(hidden=(64, 64), latent_dim=4, batch_norm=False),
    "training": Training(epochs=100, batch_size=64),
    "classifier_training": Training(epochs=30, batch_size=64),
    "random_state": 0,
}


@pytest.fixture(scope="module", params=["static", "dynamic"])
def fitted(request, triangle):
    """The paper's objective with a static mixture; a dynamic one with the information term, which keeps it apart."""
    return GMGAN(3, latent=request.param, information=float(request.param == "dynamic"), **SMALL).fit(triangle[0])


def test_planted_modes_are_recovered(triangle, fitted):
    X, y = triangle
    assert accuracy(y, fitted.labels_) > 0.95


def test_the_label_of_a_made_row_is_the_gaussian_that_made_it(triangle, fitted):
    x, y = fitted.sample(1000, random_state=1)
    assert set(y) == set(range(3))
    assert (fitted.predict(x) == y).mean() > 0.9  # static Gaussians overlap a little: two of them may start close
    distance = np.linalg.norm(x[:, None] - triangle[0][None], axis=2).min(1)
    assert np.median(distance) < 0.5  # what it makes looks like the data, whose blobs have deviation 1


def test_transform_finds_the_latent_vector_that_made_a_row(fitted):
    generator = fitted.module_.generator
    with torch.no_grad():
        _, z, made = generator.draw(1000, torch.Generator().manual_seed(2))
        x = fitted.module_.rescale.inverse(made).numpy()
    error = np.square(z.numpy() - fitted.transform(x)).sum(1).mean()
    assert error < 0.5 * np.square(z.numpy() - z.numpy().mean(0)).sum(1).mean()


def test_a_static_mixture_stays_and_a_dynamic_one_moves(fitted):
    model = fitted
    start = FactorPrior(3, 4, dynamic=False)
    start.start(model.separation, model.scale, torch.Generator())
    moved = (model.module_.generator.latent.factor - start.factor).abs().max() > 0
    assert bool(moved) is (model.latent == "dynamic")


def images(n=48):
    """Dots in one of two corners of 8 x 8 images."""
    rng = np.random.RandomState(0)
    X, y = 0.1 * rng.rand(n, 8, 8), np.arange(n) % 2
    X[y == 0, 1:4, 1:4] += 0.9
    X[y == 1, 4:7, 4:7] += 0.9
    return X.reshape(n, 64).astype(np.float32), y


@pytest.fixture(scope="module")
def drawn():
    network = Network(hidden=(4,), latent_dim=3)
    training = Training(epochs=40, batch_size=24)
    return GMGAN(2, image_shape=(8, 8), network=network, training=training, random_state=0).fit(images()[0])


def test_images_are_clustered_made_saved_and_read(drawn, tmp_path):
    X, y = images()
    assert accuracy(y, drawn.labels_) > 0.95
    x, made = drawn.sample(40, random_state=3)
    assert X.min() - 1e-6 <= x.min()  # the range of the tanh is that of the data
    assert x.max() <= X.max() + 1e-6
    drawn.save(tmp_path / "model")
    again = load(tmp_path / "model")
    assert again.get_params() == drawn.get_params()
    np.testing.assert_array_equal(again.predict_proba(X), drawn.predict_proba(X))
    np.testing.assert_array_equal(again.sample(40, random_state=3)[0], x)
    np.testing.assert_array_equal(again.sample(40, random_state=3)[1], made)


def test_who_watches_changes_nothing(drawn):
    """A callback puts the networks into evaluation mode and back; the generator's batch norm must not notice."""
    seen = []
    watched = GMGAN(**drawn.get_params()).on_epoch(lambda model, record: seen.append(record["stage"]))
    watched.fit(images()[0])
    assert {"game", "recognition"} == set(seen)
    assert not watched.module_.generator.training
    for name, value in watched.module_.state_dict().items():
        assert torch.equal(value, drawn.module_.state_dict()[name]), name


def test_a_discriminator_that_diverges_leaves_the_epochs_before(triangle, monkeypatch):
    model, objective = (
        GMGAN(3, **SMALL | {"training": Training(epochs=4, batch_size=64)}),
        gm_gan.Game.discriminator_objective,
    )

    def breaks_later(game, real, made):
        step = objective(game, real, made)
        return StepOutput(step.value * math.nan, step.terms) if len(seen) == 2 else step

    seen = []
    monkeypatch.setattr(gm_gan.Game, "discriminator_objective", breaks_later)
    with pytest.raises(DivergedError, match="objective is not finite after 2 whole epochs") as caught:
        model.on_epoch(lambda clusterer, record: seen.append(record)).fit(triangle[0])
    assert caught.value.history == seen


@pytest.mark.filterwarnings("ignore:Only . of . clusters are in use")  # after four epochs
def test_a_game_that_is_killed_goes_on_with_the_same_discriminator(triangle, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)
    model = GMGAN(
        3, **SMALL | {"training": Training(epochs=4, batch_size=64), "classifier_training": Training(epochs=1)}
    )
    whole = GMGAN(**model.get_params()).fit(triangle[0])

    def kill(clusterer, record):
        if record["epoch"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.on_epoch(kill).fit(triangle[0], checkpoint=tmp_path)
    resumed = model.on_epoch(None).fit(triangle[0], checkpoint=tmp_path)
    assert [record["epoch"] for record in resumed.history_] == [1, 2, 3, 4, 1]
    for name, value in whole.module_.state_dict().items():
        assert torch.equal(value, resumed.module_.state_dict()[name]), name
