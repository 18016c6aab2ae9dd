"""Latent trees of several shapes, with random parameters, and their densities by enumeration of every joint state."""

from itertools import product

import torch
from torch.distributions import MultivariateNormal

from nvisa.methods.ltvae.latent_tree import LatentTree
from nvisa.methods.ltvae.structure import Structure
from oracles import normal

CHAIN = Structure((3, 2, 4), ((0, 1), (1, 2)), ((0, 2), (1,), (3,)), (0, 2, 2))  # the middle one has no pouch
STAR = Structure((2, 3, 2, 2), ((0, 1), (0, 2), (2, 3)), ((0,), (1, 3, 4), (2,), (5,)), (0, 1, 2, 3))
ONE = Structure((3,), (), ((0, 1), (2,)), (0, 0))
STRUCTURES = {"one": ONE, "chain": CHAIN, "star": STAR}


def structure_of(states, edges, homes):
    return Structure.joined(states, edges, homes)[0]


def shape(structure):
    """A structure up to the numbers of its latents."""
    at = [(n, frozenset(structure.pouches_of(j))) for j, n in enumerate(structure.states)]
    return sorted(map(str, at)), sorted(str(sorted((str(at[i]), str(at[j])))) for i, j in structure.edges)


def some_tree(structure, rng):
    """Random parameters; covariances full inside a pouch."""
    tree = LatentTree(structure).double()
    tree.log_prior.copy_(normal(rng, structure.states[0]).log_softmax(0))
    for table in tree.log_tables:
        table.copy_(normal(rng, *table.shape).log_softmax(1))
    for j, n in enumerate(structure.states):
        loc, tril = tree.gaussian(j)
        loc.copy_(2 * normal(rng, *loc.shape))
        for k in range(n):
            blocks = [normal(rng, len(b), len(b)) for b in structure.pouches_of(j)]
            if blocks:
                tril[k] = torch.block_diag(*[torch.linalg.cholesky(a @ a.T + 0.3 * torch.eye(len(a))) for a in blocks])
    return tree


def enumerated(tree, z):
    """log p(y, z) of every joint state: {states: [B]}, one product of factors at a time."""
    found, structure = {}, tree.structure
    for states in product(*map(range, structure.states)):
        total = tree.log_prior[states[0]].expand(len(z)).clone()
        for (i, j), table in zip(structure.edges, tree.log_tables, strict=True):
            total += table[states[i], states[j]]
        for pouch, home in zip(structure.pouches, structure.homes, strict=True):
            dims = structure.dims(home)
            at = [dims.index(d) for d in pouch]
            loc, tril = (table[states[home]] for table in tree.gaussian(home))
            covariance = (tril @ tril.T)[at][:, at]
            total += MultivariateNormal(loc[at], covariance).log_prob(z[:, list(pouch)])
        found[states] = total
    return found
