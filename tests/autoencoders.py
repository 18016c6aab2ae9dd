"""Networks of the methods that start from codes, with random weights, and log p(x|z) by torch.distributions."""

import torch

from nvisa.methods import vade, vae_gmm
from nvisa.nets.autoencoder import LEAST_SCALE
from nvisa.nets.layers import Network
from nvisa.nets.units import Rescale
from oracles import build, grid, log_bernoulli, normal
from oracles import log_normal as log_normal_oracle

B, D, Z, K = 6, 4, 2, 3
NETWORK = Network(hidden=(6, 5), latent_dim=Z, batch_norm=False)
FLOOR = 0.3


def rescale(n_features=D, *, likelihood="gaussian"):
    if likelihood == "bernoulli":
        return Rescale(torch.zeros(n_features), torch.ones(n_features))
    return Rescale(torch.arange(n_features) / 3.0, 0.5 + torch.arange(n_features))


def vade_networks(rng, likelihood="gaussian", n_features=D):
    units = rescale(n_features, likelihood=likelihood)
    return build(lambda: vade.Networks(units, K, NETWORK, likelihood=likelihood), rng, spread=0.5)


def vae_networks(rng, likelihood="gaussian", n_features=D):
    units = rescale(n_features, likelihood=likelihood)
    how = {"likelihood": likelihood, "covariance": "diag", "variational": True}
    net = build(lambda: vae_gmm.Networks(units, K, NETWORK, **how), rng, spread=0.5)
    random_mixture(net.mixture, rng)
    return net


def random_mixture(mixture, rng):
    weights, loc, variance = normal(rng, K).softmax(0), normal(rng, K, Z), normal(rng, K, Z).exp()
    mixture.load(weights.numpy(), loc.numpy(), variance.numpy())


def some_x(rng, likelihood="gaussian", n=B):
    x = normal(rng, n, D)
    return x.sigmoid() if likelihood == "bernoulli" else 2 * x


def log_p_x_given_z(net, x, z, likelihood):
    """log p(x|z) in the networks' units by torch.distributions, from the last layer's own outputs."""
    x, h, head = net.rescale(x), net.decoder(z), net.x_head
    if likelihood == "bernoulli":
        return log_bernoulli(x, head.logits(h))
    if likelihood == "gaussian_unit":
        return log_normal_oracle(x, head.loc(h), torch.ones_like(x))
    raw = head.raw_scale if likelihood == "gaussian_shared" else head.raw_scale(h)
    return log_normal_oracle(x, head.loc(h), (raw.exp() + 1).log() + FLOOR)


def rotated_clusters(rng, n=3000):
    """Clusters that are diagonal in one basis only, and in which they were drawn."""
    basis, which = normal(rng, Z, Z) + 2 * torch.eye(Z), torch.randint(K, (n,), generator=rng)
    u = 3 * normal(rng, K, Z)[which] + normal(rng, K, Z).exp()[which] * normal(rng, n, Z)
    return u @ basis.T, torch.nn.functional.one_hot(which, K).double(), basis


@torch.no_grad()
def mass(fitted, net):
    """Integral of the density over x where q(z|x) = N(0, I), which p(z) is to be: S densities in x are averaged."""
    net.encoder.init_scale(1 - LEAST_SCALE)
    net.encoder.z_loc.weight.zero_()
    net.encoder.z_loc.bias.zero_()
    fitted.module_ = net
    x, cell = grid(-40, 40, 401, 2)
    return float(fitted._log_p_x(x).exp().sum()) * cell
