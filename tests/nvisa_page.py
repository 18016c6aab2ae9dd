"""NVISA's networks with random weights, and the densities of its first page written a pair (y, z) at a time."""

import math

import torch
from torch import nn
from torch.distributions import Categorical
from torch.nn import functional as F

from nvisa.nets.layers import Network
from nvisa.nets.mixture_vae import MixtureVAE, draw
from nvisa.nets.units import Rescale
from oracles import build, normal
from oracles import log_normal as log_normal_oracle

B, D, Z, K, M = 5, 4, 2, 3, 3


def networks(
    rng, *, n_features=D, n_clusters=K, latent_dim=Z, hidden=(6, 7), likelihood="gaussian", posterior="joint", **options
):
    """A MixtureVAE with random weights; the rescaling is the identity unless given."""
    rescale = options.pop("rescale", None) or Rescale(torch.zeros(n_features), torch.ones(n_features))
    network = Network(hidden=hidden, latent_dim=latent_dim, batch_norm=False)
    make = lambda: MixtureVAE(rescale, n_clusters, network, likelihood=likelihood, posterior=posterior, **options)  # noqa: E731
    return build(make, rng, spread=0.5)


def some_x(rng, likelihood="gaussian", n=B):
    x = normal(rng, n, D)
    return x.sigmoid() if likelihood == "bernoulli" else x


def drawn_pairs(net, x, rng, floor_z=0.2, **options):
    options = {"n_samples": M, "reparameterize": True, "generator": rng, **options}
    h = net.trunk(x)
    return draw(net, h, net.log_q_y_from(h), floor_z, **options)


class Page:
    """The model's densities as its first page states them, one pair (y, z) and one x at a time."""

    def __init__(self, net, likelihood, posterior, floor_x, floor_z):
        self.net, self.likelihood, self.posterior = net, likelihood, posterior
        self.floor_x, self.floor_z = floor_x, floor_z

    @staticmethod
    def perceptron(layers, a, leak=0.2):
        for layer in layers:
            if isinstance(layer, nn.Linear):
                a = layer.weight @ a + layer.bias
                a = torch.where(a > 0, a, leak * a)
        return a

    def trunk(self, x):
        return self.perceptron(self.net.trunk, x, leak=0.0)

    def log_q_y(self, x, y):
        logits = self.net.y_logits(self.trunk(x))
        return Categorical(logits=logits).log_prob(y)

    def q_z(self, x, y):
        """A hidden layer on h(x) beside a one-hot y, written as the slides draw it."""
        net, h = self.net, self.trunk(x)
        weight, inputs = net.z_base.weight, h
        if self.posterior == "joint":
            weight = torch.cat([net.z_base.weight, net.y_embedding.weight.T], 1)
            inputs = torch.cat([h, F.one_hot(y, len(net.prior.loc)).to(h)])
        a = weight @ inputs + net.z_base.bias
        a = torch.where(a > 0, a, 0.2 * a)
        raw = net.z_head.raw_scale.weight @ a + net.z_head.raw_scale.bias
        return net.z_head.loc.weight @ a + net.z_head.loc.bias, torch.log1p(raw.exp()) + self.floor_z

    def log_p_z(self, z, y):
        return log_normal_oracle(z, self.net.prior.loc[y], self.net.prior.log_scale[y].exp())

    def log_p_x_given_z(self, x, z):
        h, head = self.perceptron(self.net.decoder, z), self.net.x_head
        if self.likelihood == "bernoulli":
            return -F.binary_cross_entropy((head.logits.weight @ h + head.logits.bias).sigmoid(), x, reduction="sum")
        raw = head.raw_scale if self.likelihood == "gaussian_shared" else head.raw_scale(h)
        return log_normal_oracle(x, head.loc.weight @ h + head.loc.bias, torch.log1p(raw.exp()) + self.floor_x)

    def over(self, function, x, y, z):
        """``function(x, y, z)`` of every pair [M B]."""
        return torch.stack(
            [torch.stack([function(x[b], y[m, b], z[m, b]) for b in range(len(x))]) for m in range(len(y))]
        )

    def log_q(self, x, y, z):
        return self.log_q_y(x, y) + log_normal_oracle(z, *self.q_z(x, y))

    def log_joint(self, x, y, z):
        return self.log_p_x_given_z(x, z) + self.log_p_z(z, y) - math.log(len(self.net.prior.loc))
