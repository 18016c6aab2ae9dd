"""NVISA written the common way: what `nvisa` is timed against, and a second opinion on its bound.

x repeated for each of the M samples, y one-hot and concatenated to x, the encoder of q(z|y,x) run again for every
sample, torch.distributions for every density, autograd for every gradient. Same densities, same parameters: ``load``
takes the weights of :class:`nvisa.nets.mixture_vae.Densities`, whose embedding of y is the block of a concatenated
layer.
"""

import math

import torch
from torch import nn
from torch.distributions import Categorical, Independent, Normal
from torch.nn import functional as F


class Plain(nn.Module):
    """p(y) p(z|y) p(x|z) and q(y|x) q(z|y,x) with two hidden layers each; one sigma for all z."""

    def __init__(self, n_features: int, n_clusters: int, hidden: tuple[int, int], latent_dim: int) -> None:
        super().__init__()
        first, last = hidden
        self.n_clusters = n_clusters
        self.trunk = nn.Sequential(nn.Linear(n_features, first), nn.ReLU(), nn.Linear(first, last), nn.ReLU())
        self.y_logits = nn.Linear(last, n_clusters)
        self.z_hidden = nn.Linear(last + n_clusters, last)
        self.z_loc, self.z_raw_scale = nn.Linear(last, latent_dim), nn.Linear(last, latent_dim)
        self.prior_loc = nn.Parameter(torch.zeros(n_clusters, latent_dim))
        self.prior_log_scale = nn.Parameter(torch.zeros(n_clusters, latent_dim))
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, last), nn.LeakyReLU(0.2), nn.Linear(last, first), nn.LeakyReLU(0.2)
        )
        self.x_loc = nn.Linear(first, n_features)
        self.x_raw_scale = nn.Parameter(torch.zeros(n_features))

    def load(self, net: nn.Module) -> None:
        """Take over the weights of ``Densities`` (posterior="joint", likelihood="gaussian_shared", no batch norm)."""
        for name in ("trunk", "y_logits", "decoder"):
            getattr(self, name).load_state_dict(getattr(net, name).state_dict())
        self.z_loc.load_state_dict(net.z_head.loc.state_dict())
        self.z_raw_scale.load_state_dict(net.z_head.raw_scale.state_dict())
        self.x_loc.load_state_dict(net.x_head.loc.state_dict())
        with torch.no_grad():
            self.z_hidden.weight.copy_(torch.cat([net.z_base.weight, net.y_embedding.weight.T], 1))
            self.z_hidden.bias.copy_(net.z_base.bias)
            self.x_raw_scale.copy_(net.x_head.raw_scale)
            self.prior_loc.copy_(net.prior.loc)
            self.prior_log_scale.copy_(net.prior.log_scale)

    def q_y(self, x: torch.Tensor) -> Categorical:
        return Categorical(logits=self.y_logits(self.trunk(x)))

    def q_z(self, x: torch.Tensor, y: torch.Tensor, floor: float) -> Independent:
        one_hot = F.one_hot(y, self.n_clusters).to(x.dtype)
        h = F.leaky_relu(self.z_hidden(torch.cat([self.trunk(x), one_hot], -1)), 0.2)
        return Independent(Normal(self.z_loc(h), F.softplus(self.z_raw_scale(h)) + floor), 1)

    def p_z(self, y: torch.Tensor) -> Independent:
        return Independent(Normal(self.prior_loc[y], self.prior_log_scale[y].exp()), 1)

    def p_x(self, z: torch.Tensor, floor: float) -> Independent:
        loc = self.x_loc(self.decoder(z))
        return Independent(Normal(loc, (F.softplus(self.x_raw_scale) + floor).expand_as(loc)), 1)

    def vimco(self, x, n_samples, floor_x, floor_z, *, drawn=None, tiled=False) -> torch.Tensor:
        """The bound of each x, with VIMCO's gradient; ``drawn`` is (y, z), by default drawn here.

        ``tiled`` repeats x before q(y|x) too, as code does that tiles its input first.
        """
        repeated = x.expand(n_samples, *x.shape)
        q_y = self.q_y(repeated if tiled else x)
        y = drawn[0] if drawn else q_y.sample() if tiled else q_y.sample((n_samples,))
        x = repeated
        q_z = self.q_z(x, y, floor_z)
        z = q_z.sample() if drawn is None else drawn[1]
        log_q = q_y.log_prob(y) + q_z.log_prob(z)
        log_w = self.p_x(z, floor_x).log_prob(x) + self.p_z(y).log_prob(z) - math.log(self.n_clusters) - log_q
        bound = torch.logsumexp(log_w, 0) - math.log(n_samples)
        others = []  # the bound with sample m replaced by the geometric mean of the others
        for m in range(n_samples):
            rest = torch.cat([log_w[:m], log_w[m + 1 :]]).detach()
            others.append(torch.logsumexp(torch.cat([rest, rest.mean(0, keepdim=True)]), 0) - math.log(n_samples))
        score = ((bound.detach() - torch.stack(others)) * log_q).sum(0)
        return bound + (score - score.detach())
