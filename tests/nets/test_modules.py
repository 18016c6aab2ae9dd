"""Convolutions and modules of the user's: against torch's own functions, with the weights that they came with."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, Normal
from torch.nn import functional as F
from torch.testing import assert_close

from nvisa.nets import layers
from nvisa.nets.layers import Network
from nvisa.nets.mixture_vae import MixtureVAE
from nvisa.nets.modules import Conv, Modules, direct_head, make_decoder, make_encoder, with_shape
from nvisa.nets.units import Rescale
from nvisa.settings import SettingError, check_settings
from oracles import TIGHT, build, normal

B, M, Z, K = 5, 3, 2, 3
SMALL = Conv(channels=(2, 3), hidden=(6,), latent_dim=Z, batch_norm=False)


def rows_of(images, *, first):
    """[B C H W] as rows, the channels first or last."""
    return (images if first else images.permute(0, 2, 3, 1)).flatten(1)


@pytest.mark.parametrize("first", [False, True])
def test_the_encoder_is_torchs_convolutions_of_the_image(rng, first):
    shape = (3, 8, 12) if first else (8, 12, 3)
    network = Conv(channels=(2, 3), image_shape=shape, hidden=(6,), batch_norm=False)
    encoder = build(lambda: make_encoder(network, 288)[0], rng)
    images, h = normal(rng, B, 3, 8, 12), None
    for layer in (layer for layer in encoder if isinstance(layer, nn.Conv2d)):
        h = F.relu(F.conv2d(images if h is None else h, layer.weight, layer.bias, stride=2, padding=1))
    last = next(layer for layer in encoder if isinstance(layer, nn.Linear))
    assert h.shape == (B, 3, 2, 3)
    assert_close(encoder(rows_of(images, first=first)), F.relu(h.flatten(1) @ last.weight.T + last.bias), **TIGHT)


@pytest.mark.parametrize("first", [False, True])
def test_the_decoder_is_torchs_transposed_convolutions_and_takes_leading_axes(rng, first):
    network = Conv(
        channels=(2, 3), image_shape=(3, 8, 12) if first else (8, 12, 3), hidden=(6,), latent_dim=Z, batch_norm=False
    )
    decoder = build(lambda: make_decoder(network, 288), rng)
    z = normal(rng, M, B, Z)
    h = z.flatten(0, 1)
    for layer in (layer for layer in decoder if isinstance(layer, nn.Linear)):
        h = F.leaky_relu(h @ layer.weight.T + layer.bias, layers.LEAK)
    h, (one, two) = h.unflatten(1, (3, 2, 3)), [layer for layer in decoder if isinstance(layer, nn.ConvTranspose2d)]
    h = F.leaky_relu(F.conv_transpose2d(h, one.weight, one.bias, stride=2, padding=1), layers.LEAK)
    h = F.conv_transpose2d(h, two.weight, two.bias, stride=2, padding=1)
    assert_close(decoder(z), rows_of(h, first=first).view(M, B, 288), **TIGHT)


def test_p_of_x_given_z_adds_no_layer(rng):
    x, h = normal(rng, B, 4).sigmoid(), normal(rng, M, B, 4)
    shared = build(lambda: direct_head("gaussian_shared", 4), rng)
    scale = F.softplus(shared.raw_scale) + 0.3
    assert_close(shared.log_prob(x, h, 0.3), Normal(h, scale).log_prob(x).sum(-1), **TIGHT)
    unit = build(lambda: direct_head("gaussian_unit", 4), rng)
    assert_close(unit.log_prob(x, h, 0.3), Normal(h, 1.0).log_prob(x).sum(-1), **TIGHT)
    bernoulli, ones = build(lambda: direct_head("bernoulli", 4), rng), (x > 0.5).double()
    assert_close(bernoulli.log_prob(ones, h, 0.3), Bernoulli(logits=h).log_prob(ones).sum(-1), **TIGHT)
    assert_close(bernoulli.mean(h), h.sigmoid(), **TIGHT)
    assert_close(shared.mean(h), h, **TIGHT)
    with pytest.raises(SettingError, match="likelihood must be one of .* beside network=Conv"):
        direct_head("gaussian", 4)


def test_modules_of_the_users_are_copied_with_their_weights_and_seen_in_their_shape(rng):
    encoder = build(lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), rng).float()
    decoder = build(lambda: nn.Sequential(nn.Linear(Z, 16), nn.Unflatten(1, (1, 4, 4))), rng).float()
    theirs = deepcopy(encoder.state_dict())
    network = Modules(encoder=encoder, decoder=decoder, shape=(1, 4, 4), latent_dim=Z)
    units = Rescale(torch.zeros(16), torch.ones(16))
    net = layers.build(
        lambda: MixtureVAE(units, K, network, likelihood="gaussian_shared", posterior="joint"),
        torch.Generator().manual_seed(0),
    ).eval()
    x, z = normal(rng, B, 16).float(), normal(rng, B, Z).float()
    h = encoder(x.view(B, 1, 4, 4)).flatten(1)
    assert h.shape == (B, 8)
    assert_close(net.trunk(x), h)
    assert_close(net.log_q_y(x), (h @ net.y_logits.weight.T + net.y_logits.bias).log_softmax(1))
    assert_close(net.reconstruct(z), decoder(z).flatten(1))
    with torch.no_grad():
        net.trunk.module[0].weight.zero_()
    assert_close(encoder.state_dict(), theirs)


@pytest.mark.parametrize("is_own", [False, True])
def test_codes_can_be_given_mean_zero_and_deviation_one_in_front_of_any_decoder(rng, is_own):
    own = build(lambda: nn.Linear(Z, 64), rng).float()
    network = Modules(decoder=own, latent_dim=Z, hidden=(7,)) if is_own else SMALL
    units = Rescale(torch.zeros(64), torch.ones(64))
    net = build(lambda: MixtureVAE(units, K, network, likelihood="gaussian_shared", posterior="joint"), rng)
    x = normal(rng, 40, 64)
    codes, before = net.code(x), net.reconstruct(net.code(x))
    net.load_codes(codes.detach().numpy(), torch.eye(K).double()[torch.arange(40) % K].numpy())
    after = net.code(x)
    assert_close(after.mean(0), torch.zeros(Z).double(), atol=1e-6, rtol=0.0)
    assert_close(after.std(0, correction=0), torch.ones(Z).double(), atol=1e-6, rtol=0.0)
    assert_close(net.reconstruct(after), before, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (Modules(encoder=nn.Linear(5, 2)), r"network.encoder must be a module from rows \[n, 16\].*Linear.*shapes"),
        (Modules(encoder=nn.Linear(16, 2), shape=(4, 5)), "network.shape must be the shape of a row of 16 numbers"),
        (Modules(decoder=nn.Linear(Z, 15), latent_dim=Z), r"to rows \[n, 16\], got '\[2, 15\] of \[2, 2\]'"),
        (Conv(image_shape=(4, 4), channels=(1, 1, 1)), "sides divisible by 8.*Try fewer channels"),
        (Conv(image_shape=(5, 4)), r"\(C, H, W\) of 16 numbers"),
    ],
)
def test_what_does_not_fit_the_rows_is_refused(network, said):
    units = Rescale(torch.zeros(16), torch.ones(16))
    with torch.random.fork_rng(devices=[]), pytest.raises(SettingError, match=said):
        MixtureVAE(units, K, network, likelihood="gaussian_shared", posterior="joint")


def test_the_shape_of_the_fits_arrays_is_taken_unless_another_is_said():
    assert with_shape(Conv(), (28, 28)).image_shape == (28, 28)
    assert with_shape(Conv(image_shape=(4, 7)), (28, 28)).image_shape == (4, 7)
    assert with_shape(Modules(), (3, 8, 8)).shape == (3, 8, 8)
    assert with_shape(Network(), (3, 8, 8)) == Network()
    assert Conv().layout(49 * 16) == ((28, 28, 1), False)
    with pytest.raises(SettingError, match="network.channels"):
        check_settings(Conv(channels=()), "network.")
