"""The same model in Pyro, y enumerated exactly by ``TraceEnum_ELBO``; nets and sizes of :class:`plain.Plain`."""

import math
from collections.abc import Callable

import pyro
import torch
from plain import Plain
from pyro import distributions as dist
from pyro.infer import SVI, TraceEnum_ELBO, config_enumerate
from torch.nn import functional as F


class Model(Plain):
    """Model and guide; ``y`` stands left of the batch axis when Pyro enumerates it."""

    def model(self, x: torch.Tensor, floor_x: float, floor_z: float) -> None:
        pyro.module("nvisa", self)
        with pyro.plate("rows", len(x)):
            y = pyro.sample("y", dist.Categorical(logits=torch.full((self.n_clusters,), -math.log(self.n_clusters))))
            loc, scale = self.prior_loc[y], self.prior_log_scale[y].exp()
            z = pyro.sample("z", dist.Normal(loc, scale).to_event(1))
            loc = self.x_loc(self.decoder(z))
            pyro.sample("x", dist.Normal(loc, F.softplus(self.x_raw_scale) + floor_x).to_event(1), obs=x)

    def guide(self, x: torch.Tensor, floor_x: float, floor_z: float) -> None:
        pyro.module("nvisa", self)
        with pyro.plate("rows", len(x)):
            h = self.trunk(x)
            y = pyro.sample("y", dist.Categorical(logits=self.y_logits(h)))
            one_hot = F.one_hot(y, self.n_clusters).to(x.dtype)
            h = h.expand(*one_hot.shape[:-2], *h.shape) if one_hot.dim() > h.dim() else h
            one_hot = one_hot.expand(*h.shape[:-1], self.n_clusters)
            h = F.leaky_relu(self.z_hidden(torch.cat([h, one_hot], -1)), 0.2)
            pyro.sample("z", dist.Normal(self.z_loc(h), F.softplus(self.z_raw_scale(h)) + floor_z).to_event(1))


def pyro_step(model: Model, floor_x: float, floor_z: float) -> Callable[[torch.Tensor], object]:
    """One step of Adam on a batch."""
    pyro.enable_validation(False)
    elbo = TraceEnum_ELBO(max_plate_nesting=1)
    svi = SVI(model.model, config_enumerate(model.guide), pyro.optim.Adam({"lr": 1e-3}), elbo)
    return lambda x: svi.step(x, floor_x, floor_z)
