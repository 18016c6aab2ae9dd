"""Structures of latent trees: what is one, its free parameters, its plain form."""

import pytest

from nvisa.methods.ltvae.structure import Structure
from trees import STRUCTURES

each_structure = pytest.mark.parametrize("structure", STRUCTURES.values(), ids=STRUCTURES)


@each_structure
def test_free_parameters_are_counted_without_a_root(structure):
    """sum over edges (K_i K_j - 1) - sum over latents (degree - 1) (K - 1), and the Gaussians' own."""
    degree = [len(structure.neighbors(j)) for j in range(len(structure.states))]
    discrete = sum(structure.states[i] * structure.states[j] - 1 for i, j in structure.edges)
    discrete -= sum((d - 1) * (n - 1) for d, n in zip(degree, structure.states, strict=True))
    gaussians = 0
    for pouch, home in zip(structure.pouches, structure.homes, strict=True):
        covariance = [(a, b) for a in pouch for b in pouch if a <= b]
        gaussians += structure.states[home] * (len(pouch) + len(covariance))
    assert structure.n_parameters == discrete + gaussians


@each_structure
def test_a_structure_comes_back_from_plain_lists(structure):
    assert Structure.read(structure.plain()) == structure
    assert len(str(structure).split(";")) == len(structure.states)


@pytest.mark.parametrize(
    "parts",
    [
        ((2, 2), (), ((0,),), (0,)),  # not joined
        ((2, 2), ((0, 1), (1, 0)), ((0,),), (1,)),  # a circle
        ((2,), (), ((0,), (0,)), (0, 0)),  # a dimension twice
        ((2,), (), ((0,),), (1,)),  # hangs on nothing
        ((0,), (), ((0,),), (0,)),  # no state
    ],
)
def test_what_is_no_tree_is_refused(parts):
    with pytest.raises(ValueError, match="tree of latents"):
        Structure(*parts)


def test_emptied_leaves_go():
    structure, kept = Structure.joined((2, 3, 4, 5), [(0, 1), (1, 2), (0, 3)], {(0,): 0, (1,): 3})
    assert kept == (0, 3)
    assert structure == Structure((2, 5), ((0, 1),), ((0,), (1,)), (0, 1))
