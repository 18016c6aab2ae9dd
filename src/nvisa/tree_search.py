"""Structure search of a pouch latent tree: seven operators, scored by BIC, in phases that grow, move and prune.

    SI, SD   state introduction, deletion: a latent gets a state more, or less
    NI, ND   node introduction: a new latent between a latent and two of its neighbours; deletion: the inverse
    NR       node relocation: a pouch or a latent moves to another latent
    PO, UP   pouching: two pouches of a latent become one; unpouching: a dimension leaves its pouch

    EXPAND {SI, NI, PO}, ADJUST {NR}, then SIMPLIFY {UP}, {ND}, {SD}: each climbs by BIC, and again until none helps.

An operator changes the structure and says what p(y_j|z) of its latents starts from; an M step then makes every
parameter, a few EM steps screen all candidates, and the best are trained on before one is chosen. A latent is a
*facet*, a clustering of its own; the one that tells most about z is made the root.

Source: Li et al., ICLR 2019 (arXiv:1803.05206), section 3.3; Poon, Zhang, Liu, Liu, "Model-based clustering of
high-dimensional data: variable selection versus facet determination", IJAR 2013. Deviations: docs/methods/ltvae.md.
"""

import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import torch

from nvisa.latent_tree import LatentTree, Pouch, Statistics, Structure, bic, em
from nvisa.shapes import Float, Tensor

__all__ = ["OPERATORS", "STATE_OPERATORS", "Model", "Move", "Search", "information", "moves", "regular", "settle"]

OPERATORS = ("SI", "NI", "PO", "NR", "UP", "ND", "SD")
STATE_OPERATORS = ("SI", "SD")
PHASES = (("SI", "NI", "PO"), ("NR",), ("UP",), ("ND",), ("SD",))
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


def information(posterior: Float[Tensor, "B K"]) -> float:
    """``I(Y; Z) = H[E p(y|z)] - E H[p(y|z)]`` in nats: how much a facet tells about a row, without a label."""
    return float(torch.special.entr(posterior.mean(0)).sum() - torch.special.entr(posterior).sum(1).mean())


def regular(structure: Structure) -> bool:
    """Whether no latent has more states than its neighbours can tell apart (recipes 8.4).

    A latent without a pouch may have at most the product of its neighbours' states over the largest of them.
    """
    for latent, n in enumerate(structure.states):
        if structure.pouches_of(latent):
            continue
        around = [structure.states[j] for j in structure.neighbours(latent)]
        if n * max(around) > torch.tensor(around).prod():
            return False
    return True


def settle(
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


def _shape(structure: Structure) -> frozenset:
    """The structure without its numbers: refined, a node introduction may give back what there was."""
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
                posteriors = list(model.posteriors)
                posteriors[latent] = _cut(posteriors[latent], state, z[:, dims])
                return posteriors

            yield Move("SI", f"{_names(latent)} state {state}", replace(structure, states=tuple(states)), start)


def _cut(posterior: Float[Tensor, "B K"], state: int, z: Float[Tensor, "B D"]) -> Float[Tensor, "B _"]:
    """Share one state's rows between it and a new last one, by their side along the state's longest axis."""
    weight = posterior[:, state] / posterior[:, state].sum().clamp_min(1e-10)
    centred = z - weight @ z
    values, vectors = torch.linalg.eigh(centred.T @ (weight[:, None] * centred))
    axis = vectors[:, -1] * vectors[:, -1].abs().argmax().sub(-1).sign()  # eigh leaves the sign open
    side = (2.0 * centred @ axis / values[-1].clamp_min(1e-10).sqrt()).sigmoid()
    found = torch.cat([posterior, (posterior[:, state] * side)[:, None]], 1)
    found[:, state] *= 1 - side
    return found


def deleted_states(structure: Structure) -> Iterator[Move]:
    """Merge each pair of states of each latent that has more than two."""
    for latent, n in enumerate(structure.states):
        states = [*structure.states[:latent], n - 1, *structure.states[latent + 1 :]]
        for a, b in combinations(range(n), 2) if n > 2 else []:

            def start(model: Model, z: Tensor, latent: int = latent, a: int = a, b: int = b) -> Posteriors:
                posteriors = list(model.posteriors)
                merged = posteriors[latent].clone()
                merged[:, a] += merged[:, b]
                posteriors[latent] = torch.cat([merged[:, :b], merged[:, b + 1 :]], 1)
                return posteriors

            yield Move("SD", f"{_names(latent)} states {a} {b}", replace(structure, states=tuple(states)), start)


def introduced_nodes(structure: Structure) -> Iterator[Move]:
    """Put a new latent between a latent with more than two neighbours and two of them."""
    for latent, n in enumerate(structure.states):
        around: list[Item] = [*structure.neighbours(latent), *structure.pouches_of(latent)]
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
                return [*model.posteriors, _seen_from(model, z, latent, pair)]

            yield Move("NI", f"{_names(latent)} from {_names(*pair)}", joined, start, pair, new)


def _seen_from(model: Model, z: Float[Tensor, "B Z"], latent: int, items: tuple[Item, ...]) -> Float[Tensor, "B K"]:
    """What these neighbours alone say about a latent: where a new one between them starts."""
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
    """Remove a latent and hang its neighbours on one of the latents beside it."""
    for latent in range(len(structure.states)):
        for dock in structure.neighbours(latent):
            states, edges, homes = _parts(structure)
            moved = [(dock, j) for j in structure.neighbours(latent) if j != dock]
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
        for there in set(range(n)) - {latent, *structure.neighbours(latent)}:
            states, edges, homes = _parts(structure)
            edges = [edge for edge in edges if set(edge) != {latent, _step(structure, latent, there)}]
            joined = Structure.joined(states, [*edges, (latent, there)], homes)
            yield _keeping("NR", f"{_names(latent)} to {_names(there)}", joined, (there,), there)


def _step(structure: Structure, start: int, goal: int) -> int:
    """The neighbour of ``start`` on the way to ``goal``."""
    reached = {j: j for j in structure.neighbours(start)}
    front = list(reached)
    for latent in front:
        for j in structure.neighbours(latent):
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


# ---- search ----------------------------------------------------------------------------------------------------


@dataclass
class Search:
    """Hill climbing over structures on a bounded number of rows.

    Parameters
    ----------
    z
        The rows [N Z]; float64.
    operators
        Which of :data:`OPERATORS` may be used. Without SI and SD every latent keeps the number of states given.
    least_variance
        Least eigenvalue of a covariance.
    threshold
        Least gain in BIC of a move.
    max_moves
        Moves accepted at most.
    screening, selection, final
        EM steps of every candidate, of the ``n_selected`` best of each operator, and of the one that is taken.
    on_move
        Called with a record before the first and after every accepted move. ``seconds_a_move`` in it is what a
        round of all candidates takes, measured on one of them; at most ``n_epochs - epoch`` are left.

    Attributes
    ----------
    path : list of dict
        The accepted moves: operator, what it did, structure, BIC.
    """

    z: Float[Tensor, "B Z"]
    operators: tuple[str, ...] = OPERATORS
    least_variance: float = 0.01
    threshold: float = 0.01
    max_moves: int = 30
    screening: int = 2
    selection: int = 12
    final: int = 60
    n_selected: int = 2
    on_move: Callable[[dict[str, Any]], None] | None = None
    path: list[dict[str, Any]] = field(default_factory=list)

    def run(self, tree: LatentTree) -> Model:
        """The best model found from this tree, which stays as it is; its most telling facet is the root."""
        model = trained(deepcopy(tree).to(self.z), self.z, self.final, self.least_variance)
        self._started, self._expected = time.perf_counter(), self.expected_seconds(model)
        self._report(model)
        while True:
            before = model.score
            for phase in PHASES:
                model = self._climb(model, tuple(name for name in phase if name in self.operators))
            if model.score <= before + self.threshold or len(self.path) >= self.max_moves:
                return self._rooted(model)

    def expected_seconds(self, model: Model) -> float:
        """Time of one round of all candidates, measured on one of them: a move costs about as much."""
        candidates = list(moves(model.structure, self.operators))
        if not candidates:
            return 0.0
        started = time.perf_counter()
        self._model(candidates[-1], model)
        step = (time.perf_counter() - started) / (self.screening + 2)  # the last EM step's likelihood, the posteriors
        n_trained = self.n_selected * len(self.operators) * self.selection + self.final
        return step * (len(candidates) * (self.screening + 2) + n_trained)

    def _climb(self, model: Model, operators: tuple[str, ...]) -> Model:
        """Take the best move for as long as it gains more than the threshold."""
        while len(self.path) < self.max_moves:
            made, found = self._best(model, list(moves(model.structure, operators)))
            if not made or found.score <= model.score + self.threshold:
                return model
            model = found
            self.path.append({"move": "; ".join(map(str, made)), "structure": str(model.structure), "bic": model.score})
            self._report(model)
        return model

    def _best(self, model: Model, candidates: list[Move]) -> tuple[list[Move], Model]:
        """The candidate with the highest BIC, trained, of the best few of each operator; with what refined it."""
        shortlist: list[tuple[list[Move], Model]] = []
        for operator in dict.fromkeys(move.operator for move in candidates):
            screened = [(move, self._model(move, model)) for move in candidates if move.operator == operator]
            for move, found in sorted(screened, key=lambda pair: -pair[1].score)[: self.n_selected]:
                shortlist.append(self._refined([move], self._trained(found, self.selection)))
        new = [pair for pair in shortlist if _shape(pair[1].structure) != _shape(model.structure)]
        made, found = max(new, key=lambda pair: pair[1].score, default=([], model))
        return made, self._trained(found, self.final) if made else model

    def _refined(self, made: list[Move], model: Model) -> tuple[list[Move], Model]:
        """After NI, move more neighbours to the new latent; after PO, merge more pouches into the new one.

        It comes before the choice: one facet of three dimensions may pay where two of them do not.
        """
        again = {"NI": "NR", "PO": "PO"}.get(made[0].operator)
        while again in self.operators:
            options = [move for move in moves(model.structure, (again,)) if made[-1].made in move.at]
            screened = [(move, self._model(move, model)) for move in options]
            move, found = max(screened, key=lambda pair: pair[1].score, default=(made[-1], model))
            found = self._trained(found, self.selection) if screened else model
            if found.score <= model.score + self.threshold:
                break
            made, model = [*made, move], found
        return made, model

    def _model(self, move: Move, model: Model) -> Model:
        """A candidate after the few EM steps of the screening."""
        return settle(move.structure, self.z, move.start(model, self.z), self.screening, self.least_variance)

    def _trained(self, model: Model, n_steps: int) -> Model:
        return trained(model.tree, self.z, n_steps, self.least_variance)

    def _report(self, model: Model) -> None:
        if self.on_move is not None:
            self.on_move(
                {
                    "epoch": len(self.path) + 1,
                    "n_epochs": self.max_moves + 1,
                    "seconds": time.perf_counter() - self._started,
                    "seconds_a_move": self._expected,
                    "bic": model.score,
                    "n_latents": len(model.structure.states),
                    "n_parameters": model.structure.n_parameters,
                }
            )

    def _rooted(self, model: Model) -> Model:
        """The same with the facet of the largest information I(Y; Z) as the root."""
        told = [information(posterior) for posterior in model.posteriors]
        root = max(range(len(told)), key=told.__getitem__)
        return trained(model.tree.rerooted(root), self.z, 0, self.least_variance)
