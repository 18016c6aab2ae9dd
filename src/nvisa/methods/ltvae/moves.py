"""The seven operators on the structure of a pouch latent tree, and where EM starts after each.

    SI, SD   state introduction, deletion: a latent gets a state more, or less
    NI, ND   node introduction: a new latent between a latent and two of its neighbors; deletion: the inverse
    NR       node relocation: a pouch or a latent moves to another latent
    PO, UP   pouching: two pouches of a latent become one; unpouching: a dimension leaves its pouch

An operator changes the structure and says what p(y_j|z) of its latents starts from; an M step then makes every
parameter.

Source: Li et al., ICLR 2019 (arXiv:1803.05206), section 3.3; Poon, Zhang, Liu, Liu, "Model-based clustering of
high-dimensional data: variable selection versus facet determination", IJAR 2013. Deviations: docs/methods/ltvae.md.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations

import torch

from nvisa.maths.shapes import Float, Tensor
from nvisa.methods.ltvae.latent_tree import LatentTree, Statistics, em
from nvisa.methods.ltvae.structure import Pouch, Structure, bic

__all__ = [
    "OPERATORS",
    "STATE_OPERATORS",
    "Item",
    "Model",
    "Move",
    "moves",
    "regular",
    "same_shape",
    "fit_from_posteriors",
    "trained",
]

OPERATORS = ("SI", "NI", "PO", "NR", "UP", "ND", "SD")
STATE_OPERATORS = ("SI", "SD")
Item = int | Pouch  # what hangs on a latent: another latent, or a pouch
Posteriors = list[Float[Tensor, "B _"]]


@dataclass
class Model:
    """A tree that EM has fitted, with p(y_j|z) of every latent and its BIC on the rows of the search."""

    tree: LatentTree
    posteriors: Posteriors
    score: float

    @property
    def structure(self) -> Structure:
        """Its structure."""
        return self.tree.structure


@dataclass(frozen=True)
class Move:
    """An operator applied: the new structure, and how its latents' posteriors start from the old model's.

    ``at`` is what it acts on, in the old structure's numbers; ``made`` what comes of it, in the new one's: with
    them a refinement goes on where a move was.
    """

    operator: str
    what: str
    structure: Structure
    start: Callable[[Model, Float[Tensor, "B Z"]], Posteriors]
    at: tuple[Item, ...] = ()
    made: Item = -1

    def __str__(self) -> str:
        return f"{self.operator} {self.what}"


# ---- scores ----------------------------------------------------------------------------------------------------


def regular(structure: Structure) -> bool:
    """Whether no latent has more states than its neighbors can tell apart.

    A latent without a pouch may have at most the product of its neighbors' states over the largest of them.
    """
    for latent, n in enumerate(structure.states):
        if structure.pouches_of(latent):
            continue
        around = [structure.states[j] for j in structure.neighbors(latent)]
        if n * max(around) > math.prod(around):
            return False
    return True


def fit_from_posteriors(
    structure: Structure, z: Float[Tensor, "B Z"], posteriors: Posteriors, n_steps: int, least_variance: float
) -> Model:
    """The model that EM reaches from these posteriors; pairs of latents start as independent given z."""
    tables = [posteriors[i].T @ posteriors[j] / len(z) for i, j in structure.edges]
    tree = LatentTree(structure).to(z)
    tree.load(Statistics.of(z, posteriors, posteriors[0].mean(0), tables), least_variance)
    return trained(tree, z, n_steps, least_variance)


def trained(tree: LatentTree, z: Float[Tensor, "B Z"], n_steps: int, least_variance: float) -> Model:
    """The model after EM, in place, with its posteriors and its BIC."""
    em(tree, z, n_steps, least_variance, tol=1e-4)
    found = tree.marginals(z)
    return Model(tree, found.posteriors, bic(float(found.log_p.sum()), tree.structure, len(z)))


# ---- operators -------------------------------------------------------------------------------------------------


def moves(structure: Structure, operators: tuple[str, ...]) -> Iterator[Move]:
    """Every regular application of these operators."""
    makers = {
        "SI": introduced_states,
        "SD": deleted_states,
        "NI": introduced_nodes,
        "ND": deleted_nodes,
        "NR": relocated_nodes,
        "PO": pouched,
        "UP": unpouched,
    }
    for operator in operators:
        yield from (move for move in makers[operator](structure) if regular(move.structure))


def _parts(structure: Structure) -> tuple[list[int], list[tuple[int, int]], dict[Pouch, int]]:
    """What an operator edits: states, undirected edges, and the home of each pouch."""
    return list(structure.states), list(structure.edges), dict(zip(structure.pouches, structure.homes, strict=True))


def _keeping(
    operator: str, what: str, joined: tuple[Structure, tuple[int, ...]], at: tuple[Item, ...] = (), made: Item = -1
) -> Move:
    """A move whose latents keep their posteriors; if ``made`` is a latent it is given by its old number."""
    structure, kept = joined
    made = kept.index(made) if made in kept else made
    return Move(operator, what, structure, lambda model, z: [model.posteriors[j] for j in kept], at, made)


def same_shape(a: Structure, b: Structure) -> bool:
    """Whether two structures are the same but for the numbers of their latents."""
    return _shape(a) == _shape(b)


def _shape(structure: Structure) -> frozenset:
    at = [(n, frozenset(structure.pouches_of(j))) for j, n in enumerate(structure.states)]
    return frozenset([*at, *(frozenset((at[i], at[j])) for i, j in structure.edges)])


def _names(*items: Item) -> str:
    return " ".join(f"Y{i}" if isinstance(i, int) else f"({' '.join(f'z{d}' for d in i)})" for i in items)


def introduced_states(structure: Structure) -> Iterator[Move]:
    """Cut each state of each latent in two, across its rows' longest axis."""
    for latent, n in enumerate(structure.states):
        states = [*structure.states[:latent], n + 1, *structure.states[latent + 1 :]]
        dims = structure.dims(latent) or list(range(sum(map(len, structure.pouches))))
        for state in range(n):

            def start(
                model: Model, z: Tensor, latent: int = latent, state: int = state, dims: list[int] = dims
            ) -> Posteriors:
                """Split the state where its members part."""
                posteriors = list(model.posteriors)
                posteriors[latent] = _cut(posteriors[latent], state, z[:, dims])
                return posteriors

            yield Move("SI", f"{_names(latent)} state {state}", replace(structure, states=tuple(states)), start)


def _cut(posterior: Float[Tensor, "B K"], state: int, z: Float[Tensor, "B D"]) -> Float[Tensor, "B _"]:
    """Share one state's rows between it and a new last one, by their side along the state's longest axis."""
    weight = posterior[:, state] / posterior[:, state].sum().clamp_min(1e-10)
    centered = z - weight @ z
    values, vectors = torch.linalg.eigh(centered.T @ (weight[:, None] * centered))
    longest = vectors[:, -1]
    axis = longest * longest[longest.abs().argmax()].sign()  # eigh leaves the sign open
    side = (2.0 * centered @ axis / values[-1].clamp_min(1e-10).sqrt()).sigmoid()
    found = torch.cat([posterior, (posterior[:, state] * side)[:, None]], 1)
    found[:, state] *= 1 - side
    return found


def deleted_states(structure: Structure) -> Iterator[Move]:
    """Merge each pair of states of each latent that has more than two."""
    for latent, n in enumerate(structure.states):
        states = [*structure.states[:latent], n - 1, *structure.states[latent + 1 :]]
        for a, b in combinations(range(n), 2) if n > 2 else []:

            def start(model: Model, z: Tensor, latent: int = latent, a: int = a, b: int = b) -> Posteriors:
                """Add the two states' posteriors."""
                posteriors = list(model.posteriors)
                merged = posteriors[latent].clone()
                merged[:, a] += merged[:, b]
                posteriors[latent] = torch.cat([merged[:, :b], merged[:, b + 1 :]], 1)
                return posteriors

            yield Move("SD", f"{_names(latent)} states {a} {b}", replace(structure, states=tuple(states)), start)


def introduced_nodes(structure: Structure) -> Iterator[Move]:
    """Put a new latent between a latent with more than two neighbors and two of them."""
    for latent, n in enumerate(structure.states):
        around: list[Item] = [*structure.neighbors(latent), *structure.pouches_of(latent)]
        for pair in combinations(around, 2) if len(around) > 2 else []:
            states, edges, homes = _parts(structure)
            new = len(states)
            for item in pair:
                if isinstance(item, int):
                    edges = [edge for edge in edges if set(edge) != {latent, item}] + [(new, item)]
                else:
                    homes[item] = new
            joined = Structure.joined([*states, n], [*edges, (latent, new)], homes)[0]

            def start(model: Model, z: Tensor, latent: int = latent, pair: tuple[Item, ...] = pair) -> Posteriors:
                """What the new latent's children say of it."""
                return [*model.posteriors, _seen_from(model, z, latent, pair)]

            yield Move("NI", f"{_names(latent)} from {_names(*pair)}", joined, start, pair, new)


def _seen_from(model: Model, z: Float[Tensor, "B Z"], latent: int, items: tuple[Item, ...]) -> Float[Tensor, "B K"]:
    """What these neighbors alone say about a latent: where a new one between them starts."""
    tree, own = model.tree, model.posteriors[latent]
    log_p_y = own.mean(0).clamp_min(1e-10).log()
    total = log_p_y.expand_as(own)
    for item in items:
        if isinstance(item, int):  # p(y | z) ~ sum_y' p(y | y') p(y' | z)
            joint = model.posteriors[item].T @ own
            belief = model.posteriors[item] @ (joint / joint.sum(1, keepdim=True).clamp_min(1e-10))
            total = total + belief.clamp_min(1e-10).log() - log_p_y
        else:
            others = Structure((own.shape[1],), (), (tuple(range(len(item))),), (0,))
            alone, dims = LatentTree(others).to(z), tree.structure.dims(latent)
            places = [dims.index(d) for d in item]
            loc, tril = tree.gaussian(latent)
            alone.loc_0, alone.tril_0 = loc[:, places], tril[:, places][:, :, places]
            total = total + alone.potentials(z[:, list(item)])[0]
    return total.softmax(-1)


def deleted_nodes(structure: Structure) -> Iterator[Move]:
    """Remove a latent and hang its neighbors on one of the latents beside it."""
    for latent in range(len(structure.states)):
        for dock in structure.neighbors(latent):
            states, edges, homes = _parts(structure)
            moved = [(dock, j) for j in structure.neighbors(latent) if j != dock]
            edges = [edge for edge in edges if latent not in edge] + moved
            homes = {pouch: dock if home == latent else home for pouch, home in homes.items()}
            what = f"{_names(latent)} into {_names(dock)}"
            yield _keeping("ND", what, Structure.joined(states, edges, homes, without=latent))


def relocated_nodes(structure: Structure) -> Iterator[Move]:
    """Move each pouch, and each latent with what hangs behind it, to every latent that it is not at."""
    n = len(structure.states)
    for pouch, home in zip(structure.pouches, structure.homes, strict=True):
        for there in set(range(n)) - {home}:
            states, edges, homes = _parts(structure)
            joined = Structure.joined(states, edges, homes | {pouch: there})
            yield _keeping("NR", f"{_names(pouch)} to {_names(there)}", joined, (there,), there)
    for latent in range(n):
        for there in set(range(n)) - {latent, *structure.neighbors(latent)}:
            states, edges, homes = _parts(structure)
            edges = [edge for edge in edges if set(edge) != {latent, _step(structure, latent, there)}]
            joined = Structure.joined(states, [*edges, (latent, there)], homes)
            yield _keeping("NR", f"{_names(latent)} to {_names(there)}", joined, (there,), there)


def _step(structure: Structure, start: int, goal: int) -> int:
    """The neighbor of ``start`` on the way to ``goal``."""
    reached = {j: j for j in structure.neighbors(start)}
    front = list(reached)
    for latent in front:
        for j in structure.neighbors(latent):
            if j != start and j not in reached:
                reached[j] = reached[latent]
                front.append(j)
    return reached[goal]


def pouched(structure: Structure) -> Iterator[Move]:
    """Make one pouch of each two pouches of a latent."""
    for latent in range(len(structure.states)):
        for a, b in combinations(structure.pouches_of(latent), 2):
            states, edges, homes = _parts(structure)
            del homes[a], homes[b]
            whole = tuple(sorted((*a, *b)))
            joined = Structure.joined(states, edges, homes | {whole: latent})
            yield _keeping("PO", _names(a, b), joined, (a, b), whole)


def unpouched(structure: Structure) -> Iterator[Move]:
    """Let each dimension leave its pouch; of a pouch of two, the second would be the first again."""
    for pouch, home in zip(structure.pouches, structure.homes, strict=True):
        for dim in pouch[: len(pouch) if len(pouch) > 2 else 1] if len(pouch) > 1 else ():
            states, edges, homes = _parts(structure)
            del homes[pouch]
            homes |= {(dim,): home, tuple(d for d in pouch if d != dim): home}
            yield _keeping("UP", _names((dim,), pouch), Structure.joined(states, edges, homes))
