"""Axes in which several clusters are diagonal at once, against the basis in which they were planted."""

import torch
from torch.testing import assert_close

from nvisa.maths.mixtures import common_axes
from oracles import normal

Z, K = 2, 3


def test_common_axes_recover_the_basis_in_which_clusters_were_drawn(rng):
    basis, variances, weights = normal(rng, Z, Z) + 2 * torch.eye(Z), normal(rng, K, Z).exp(), normal(rng, K).softmax(0)
    within = torch.einsum("ij,kj,lj->kil", basis, variances, basis)
    axes = torch.from_numpy(common_axes(weights.numpy(), within.numpy()))
    found = axes @ basis  # one number a row: the axes, in some order and scale
    assert_close(
        (found.abs() / found.abs().amax(1, keepdim=True)).sum(), torch.tensor(float(Z)).double(), atol=1e-4, rtol=0
    )
    turned = torch.einsum("ij,kjl,ml->kim", axes, within, axes)
    gap = turned.diagonal(dim1=1, dim2=2).log().sum(1) - torch.logdet(turned)
    assert_close(gap, torch.zeros(K).double(), atol=1e-6, rtol=0)
