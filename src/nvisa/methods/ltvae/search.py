"""Structure search of a pouch latent tree: operators scored by BIC, in phases that grow, move and prune.

    EXPAND {SI, NI, PO}, ADJUST {NR}, then SIMPLIFY {UP}, {ND}, {SD}: each climbs by BIC, and again until none helps.

A few EM steps screen all candidates, and the best of each operator are trained on before one is chosen. A latent is
a *facet*, a clustering of its own; the one that tells most about z is made the root.

Source: Li et al., ICLR 2019 (arXiv:1803.05206), section 3.3. Deviations: docs/methods/ltvae.md.
"""

import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from nvisa.maths.distributions import information
from nvisa.maths.shapes import Float, Tensor
from nvisa.methods.ltvae.latent_tree import LatentTree
from nvisa.methods.ltvae.moves import OPERATORS, Model, Move, fit_from_posteriors, moves, same_shape, trained

__all__ = ["Search"]

PHASES = (("SI", "NI", "PO"), ("NR",), ("UP",), ("ND",), ("SD",))


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
        # Refined, a node introduction may give back what there was: no move.
        new = [pair for pair in shortlist if not same_shape(pair[1].structure, model.structure)]
        made, found = max(new, key=lambda pair: pair[1].score, default=([], model))
        return made, self._trained(found, self.final) if made else model

    def _refined(self, made: list[Move], model: Model) -> tuple[list[Move], Model]:
        """After NI, move more neighbors to the new latent; after PO, merge more pouches into the new one.

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
        return fit_from_posteriors(
            move.structure, self.z, move.start(model, self.z), self.screening, self.least_variance
        )

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
        told = [float(information(posterior.log())) for posterior in model.posteriors]
        root = max(range(len(told)), key=told.__getitem__)
        return trained(model.tree.rerooted(root), self.z, 0, self.least_variance)
