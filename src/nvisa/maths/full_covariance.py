"""Normal densities and draws of full covariance ``L L^T``, L lower triangular; diagonal ones: ``distributions.py``."""

import torch

from nvisa.maths.distributions import HALF_LOG_2PI, noise_like
from nvisa.maths.shapes import Float, Tensor

__all__ = ["draw_normal_tril", "inverse_tril", "log_normal_tril"]


def log_normal_tril(
    x: Float[Tensor, "B D"], loc: Float[Tensor, "K D"], tril: Float[Tensor, "K D D"]
) -> Float[Tensor, "B K"]:
    """``log N(x; loc_k, L_k L_k^T)`` of each row in each component, ``L_k`` lower triangular.

    The inverse of every ``L_k`` is made once, so that all rows and components are one matrix product.
    """
    inverse = inverse_tril(tril)
    white = (inverse.flatten(0, 1) @ x.T).unflatten(0, loc.shape) - inverse @ loc[..., None]  # [K D B]
    log_det = tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return -(0.5 * white.square().sum(1).T + log_det + x.shape[-1] * HALF_LOG_2PI)


def inverse_tril(tril: Float[Tensor, "K D D"]) -> Float[Tensor, "K D D"]:
    """The inverse of lower triangular matrices; for an export, whose formats lack it, row by row by substitution."""
    identity = torch.eye(tril.shape[-1]).to(tril)
    if not torch.compiler.is_compiling():
        return torch.linalg.solve_triangular(tril, identity.expand_as(tril), upper=False)
    rows: list[Tensor] = []
    for i in range(tril.shape[-1]):
        known = sum((tril[:, i, j, None] * row for j, row in enumerate(rows)), torch.zeros_like(tril[:, i]))
        rows.append((identity[i] - known) / tril[:, i, i, None])
    return torch.stack(rows, 1)


def draw_normal_tril(
    loc: Float[Tensor, "B D"], tril: Float[Tensor, "B D D"], generator: torch.Generator
) -> Float[Tensor, "B D"]:
    """One ``x ~ N(loc, L L^T)`` a row."""
    return loc + (tril @ noise_like(loc, generator)[..., None])[..., 0]
