"""Independent judges: naive loops, `decimal`, torch.distributions, and the enumeration of every draw.

Nothing here imports nvisa, so no formula can be judged by itself.
"""

import math
from collections.abc import Callable, Sequence
from decimal import Decimal, localcontext
from itertools import product

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence
from torch.testing import assert_close

TIGHT = {"rtol": 1e-10, "atol": 1e-10}


def normal(rng: torch.Generator, *shape: int) -> Tensor:
    """Standard normal draws in float64."""
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def build(make: Callable[[], nn.Module], rng: torch.Generator, *, spread: float = 0.7) -> nn.Module:
    """A module in float64 and evaluation mode whose every parameter is random: no zero hides a missing term."""
    with torch.random.fork_rng(devices=[]):  # torch's layers draw from the global generator when built
        module = make().double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(spread * normal(rng, *parameter.shape))
    return module


def gradients(scalar: Tensor, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Gradient in every input; zero where the graph does not reach."""
    found = torch.autograd.grad(scalar, inputs, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(i) if g is None else g for i, g in zip(inputs, found, strict=True)]


def upstream(rng: torch.Generator, shape: tuple[int, ...], kind: str) -> Tensor:
    """Gradients that arrive: uneven; falling on a few rows; on few beside which the others are below rounding."""
    weight = normal(rng, *shape)
    if kind == "all":
        return weight
    few = torch.zeros(weight.shape, dtype=torch.float64)
    few.view(-1)[torch.tensor([1, 5, 6])] = 1.0
    return weight * few if kind == "few" else weight * (few + 1e-18)


def assert_same_function(mine: Tensor, theirs: Tensor, weight: Tensor, inputs: Sequence[Tensor]) -> None:
    """The same value, and under the same upstream gradient the same gradient in every input."""
    assert_close(mine, theirs, **TIGHT)
    ours, expected = (gradients((weight * value).sum(), inputs) for value in (mine, theirs))
    for a, b in zip(ours, expected, strict=True):
        assert_close(a, b, rtol=1e-9, atol=1e-9)


# ---- densities -------------------------------------------------------------------------------------------------------


def log_normal(x: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    return Independent(Normal(loc, scale, validate_args=False), 1).log_prob(x)


def log_bernoulli(x: Tensor, logits: Tensor) -> Tensor:
    return Independent(Bernoulli(logits=logits, validate_args=False), 1).log_prob(x)


def grid(low: float, high: float, n: int, dims: int = 1) -> tuple[Tensor, float]:
    """Points of a uniform grid [n^dims dims] and the volume of a cell: the sum converges faster than any power."""
    axis = torch.linspace(low, high, n, dtype=torch.float64)
    return torch.cartesian_prod(*[axis] * dims).reshape(-1, dims), float(axis[1] - axis[0]) ** dims


def binary_vectors(dims: int) -> Tensor:
    """All 2^dims vectors of zeros and ones."""
    return torch.tensor(list(product([0.0, 1.0], repeat=dims)), dtype=torch.float64)


def hermite(n: int, dims: int) -> tuple[Tensor, Tensor]:
    """Nodes [n^dims dims] and weights of N(0, I): exact for polynomials of degree 2n - 1 in each coordinate."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(n)
    pairs = list(product(zip(nodes, weights / weights.sum(), strict=True), repeat=dims))
    points = torch.tensor([[node for node, _ in pair] for pair in pairs], dtype=torch.float64)
    return points, torch.tensor([[weight for _, weight in pair] for pair in pairs], dtype=torch.float64).prod(1)


# ---- bounds ----------------------------------------------------------------------------------------------------------


def log_mean_exp_decimal(column: Sequence[float], *, digits: int = 60) -> float:
    """log 1/M sum_m exp(a_m) as written, in 60 digits and with an exponent that nothing overflows."""
    with localcontext() as context:
        context.prec = digits
        return float((sum(Decimal(float(a)).exp() for a in column) / len(column)).ln())


def swap_one_out_decimal(column: Sequence[float]) -> list[float]:
    """log 1/M [ exp(mean_{i != m} a_i) + sum_{i != m} exp(a_i) ], by its definition."""
    swapped = []
    for m in range(len(column)):
        others = [Decimal(float(a)) for i, a in enumerate(column) if i != m]
        swapped.append(log_mean_exp_decimal([*others, sum(others) / len(others)]))
    return swapped


def swap_one_out_matrix(log_w: Tensor) -> Tensor:
    """The same from an [M M B] tensor: row m is log_w with its m-th entry replaced."""
    m, b = log_w.shape
    left_out = torch.eye(m, dtype=torch.bool)[:, :, None].expand(m, m, b)
    matrix = log_w[None].expand(m, m, b)
    geometric_mean = matrix.masked_fill(left_out, 0.0).sum(1) / (m - 1)
    matrix = torch.where(left_out, geometric_mean[:, None], matrix)
    return matrix.logsumexp(1) - torch.tensor(float(m), dtype=log_w.dtype).log()


def all_draws(n_values: int, n_samples: int) -> Tensor:
    """Every sequence of draws [M, n_values^M], one a column."""
    return torch.tensor(list(product(range(n_values), repeat=n_samples))).T


# ---- graphs ----------------------------------------------------------------------------------------------------------


def information(joint: np.ndarray) -> float:
    """sum_ab P[a,b] log( P[a,b] / (P[a] P[b]) ), term by term."""
    rows, columns = joint.sum(1), joint.sum(0)
    return sum(
        joint[a, b] * np.log(joint[a, b] / (rows[a] * columns[b]))
        for a in range(joint.shape[0])
        for b in range(joint.shape[1])
        if joint[a, b] > 0
    )


def sorted_distances(X: np.ndarray) -> np.ndarray:
    """Distances to all other rows, nearest first [N, N - 1], from all pairs."""
    distances = np.sqrt(((X[:, None] - X[None]) ** 2).sum(-1))
    np.fill_diagonal(distances, np.inf)
    return np.sort(distances, axis=1)[:, :-1]


# ---- other methods ---------------------------------------------------------------------------------------------------


def vae_elbo(log_p_x_given_z: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    """E_q log p(x|z) - KL( q(z|x) || N(0, I) ), the divergence by torch.distributions [B]."""
    prior = Independent(Normal(torch.zeros_like(loc), torch.ones_like(scale)), 1)
    return log_p_x_given_z - kl_divergence(Independent(Normal(loc, scale), 1), prior)


def vade_elbo(log_p_x_given_z: float, z: Tensor, m: Tensor, var: Tensor, pi: Tensor, mu: Tensor, s2: Tensor) -> float:
    """VaDE's equation 9 for one x as it is printed, a number at a time; m, var [Z] are of q(z|x), mu, s2 [K Z]."""
    joint = [float(pi[c] * (Normal(mu[c], s2[c].sqrt()).log_prob(z)).sum().exp()) for c in range(len(pi))]
    gamma = [p / sum(joint) for p in joint]
    total = float(log_p_x_given_z)
    for c, g in enumerate(gamma):
        for d in range(len(z)):
            v = float(s2[c, d])
            squares = float(var[d]) / v + float(m[d] - mu[c, d]) ** 2 / v
            total -= 0.5 * g * (math.log(2 * math.pi) + math.log(v) + squares)
        total += g * math.log(float(pi[c]) / g)
    return total + sum(0.5 * (1 + math.log(2 * math.pi) + math.log(float(v))) for v in var)


def gmvae_terms(samples: list, z_loc: Tensor, z_scale: Tensor, w_loc: Tensor, w_scale: Tensor) -> tuple:
    """The KL of z, of w, of y and the mean p(y|z,w) for one x, from M pairs (z, (mu [K Z], sigma [K Z])), in loops."""
    kl_z, kl_y, mean_gamma = 0.0, 0.0, 0.0
    for z, (mu, sigma) in samples:
        joint = [float(Normal(m, s).log_prob(z).sum().exp()) for m, s in zip(mu, sigma, strict=True)]
        gamma = [p / sum(joint) for p in joint]
        for k, g in enumerate(gamma):
            kl_z += g * float(kl_divergence(Normal(z_loc, z_scale), Normal(mu[k], sigma[k])).sum()) / len(samples)
            kl_y += (g * math.log(g * len(gamma)) if g > 0 else 0.0) / len(samples)
        mean_gamma += np.array(gamma) / len(samples)
    kl_w = sum(0.5 * (m**2 + s**2 - 1 - 2 * math.log(s)) for m, s in zip(w_loc.tolist(), w_scale.tolist(), strict=True))
    return kl_z, kl_w, kl_y, mean_gamma.tolist()


def dec_assignments(z: Tensor, mu: Tensor) -> Tensor:
    """q_ij by its definition, one pair at a time."""
    similar = torch.tensor([[1 / (1 + float(((a - b) ** 2).sum())) for b in mu] for a in z], dtype=z.dtype)
    return similar / similar.sum(1, keepdim=True)


def dec_target(q: Tensor) -> Tensor:
    """p_ij of DEC's equation 3, one pair at a time."""
    n, k = q.shape
    f = [sum(float(q[i, j]) for i in range(n)) for j in range(k)]
    p = torch.tensor([[float(q[i, j]) ** 2 / f[j] for j in range(k)] for i in range(n)], dtype=q.dtype)
    return p / p.sum(1, keepdim=True)


def dec_gradients(z: Tensor, mu: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """dL/dz and dL/dmu of L = KL(P||Q), DEC's equations 4 and 5 with alpha = 1, one pair at a time."""
    q, dz, dmu = dec_assignments(z, mu), torch.zeros_like(z), torch.zeros_like(mu)
    for i in range(len(z)):
        for j in range(len(mu)):
            pull = 2 * (p[i, j] - q[i, j]) * (z[i] - mu[j]) / (1 + ((z[i] - mu[j]) ** 2).sum())
            dz[i] += pull
            dmu[j] -= pull
    return dz, dmu
