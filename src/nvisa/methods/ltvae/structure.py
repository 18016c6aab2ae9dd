"""The structure of a pouch latent tree: which latents there are, how they are joined, what hangs on them; and BIC.

Source: Li et al., ICLR 2019 (arXiv:1803.05206), sections 3.1 and 3.3; the mathematics is in latent_tree.py.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Edge", "Pouch", "Structure", "bic"]

Edge = tuple[int, int]
Pouch = tuple[int, ...]


@dataclass(frozen=True)
class Structure:
    """Which latents there are, how they are joined, and which dimensions of z hang where.

    Parameters
    ----------
    states
        ``|Y_j|`` of every latent; latent 0 is the root.
    edges
        (parent, child), each parent before its children.
    pouches
        The dimensions of z in each pouch; together a partition of them.
    homes
        The latent that each pouch hangs on.
    """

    states: tuple[int, ...]
    edges: tuple[Edge, ...]
    pouches: tuple[Pouch, ...]
    homes: tuple[int, ...]

    def __post_init__(self) -> None:
        """Raise a ValueError unless this is a tree, rooted at 0, over a partition of the dimensions."""
        reached, order = {0}, []
        for parent, child in self.edges:
            order.append(parent in reached and child not in reached)
            reached.add(child)
        dims = sorted(dim for pouch in self.pouches for dim in pouch)
        is_tree = all(order) and reached == set(range(len(self.states)))
        hangs = len(self.homes) == len(self.pouches) and set(self.homes) <= reached
        if not (is_tree and hangs and dims == list(range(len(dims))) and min(self.states) >= 1):
            raise ValueError(f"expected a tree of latents with pouches that partition z, got {self}.")

    @classmethod
    def mixture(cls, n_states: int, latent_dim: int, *, full: bool = False) -> "Structure":
        """One latent: a Gaussian mixture, diagonal (a pouch a dimension) or with full covariances (one pouch)."""
        pouches = (tuple(range(latent_dim)),) if full else tuple((d,) for d in range(latent_dim))
        return cls((n_states,), (), pouches, (0,) * len(pouches))

    @classmethod
    def joined(
        cls, states: Sequence[int], edges: Sequence[Edge], homes: Mapping[Pouch, int], *, without: int | None = None
    ) -> tuple["Structure", tuple[int, ...]]:
        """The structure of undirected edges, without one latent and without leaves that hold no pouch.

        Returns
        -------
        structure
            Latents keep their order; the first is the root.
        kept
            The number that each latent had before.
        """
        alive, links = set(range(len(states))) - {without}, set(edges)
        while len(alive) > 1:
            empty = {j for j in alive - set(homes.values()) if sum(j in link for link in links) < 2}
            if not empty:
                break
            alive.discard(min(empty))
            links = {link for link in links if min(empty) not in link}
        kept = tuple(sorted(alive))
        new = {old: i for i, old in enumerate(kept)}
        pouches = sorted(tuple(sorted(pouch)) for pouch in homes)
        at = {tuple(sorted(pouch)): home for pouch, home in homes.items()}
        outward = _outward([(new[i], new[j]) for i, j in links])
        found = cls(tuple(states[j] for j in kept), outward, tuple(pouches), tuple(new[at[p]] for p in pouches))
        return found, kept

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> "Structure":
        """What :meth:`plain` wrote."""
        edges = tuple((int(i), int(j)) for i, j in plain["edges"])
        pouches = tuple(tuple(map(int, pouch)) for pouch in plain["pouches"])
        return cls(tuple(map(int, plain["states"])), edges, pouches, tuple(map(int, plain["homes"])))

    def plain(self) -> dict[str, list]:
        """As lists in a dictionary, which JSON can hold."""
        nested = {name: [list(group) for group in getattr(self, name)] for name in ("edges", "pouches")}
        return {name: list(value) for name, value in asdict(self).items()} | nested

    def dims(self, latent: int) -> list[int]:
        """The dimensions of z that hang on this latent, pouch by pouch."""
        return [dim for pouch in self.pouches_of(latent) for dim in pouch]

    def pouches_of(self, latent: int) -> list[Pouch]:
        """The pouches of this latent."""
        return [pouch for pouch, home in zip(self.pouches, self.homes, strict=True) if home == latent]

    def neighbors(self, latent: int) -> list[int]:
        """The latents joined to this one."""
        return [j if i == latent else i for i, j in self.edges if latent in (i, j)]

    @property
    def n_parameters(self) -> int:
        """``d(m) = |Y_0| - 1 + sum_(i,j) |Y_i| (|Y_j| - 1) + sum_b |Y_home(b)| |b| (|b| + 3) / 2``."""
        tables = sum(self.states[i] * (self.states[j] - 1) for i, j in self.edges)
        gaussians = sum(
            self.states[j] * len(b) * (len(b) + 3) // 2 for b, j in zip(self.pouches, self.homes, strict=True)
        )
        return self.states[0] - 1 + tables + gaussians

    def __str__(self) -> str:
        """``Y0[10]: z0 (z1 z2); Y1[3] at Y0: z3``."""
        at = {child: f" at Y{parent}" for parent, child in self.edges}
        parts = []
        for j, n in enumerate(self.states):
            groups = [" ".join(f"z{d}" for d in p) for p in self.pouches_of(j)]
            words = [f"({group})" if " " in group else group for group in groups]
            parts.append(f"Y{j}[{n}]{at.get(j, '')}: {' '.join(words) or '-'}")
        return "; ".join(parts)


def _outward(links: Sequence[Edge]) -> tuple[Edge, ...]:
    """The links as (parent, child), from latent 0 outward."""
    rest, found, front = sorted(tuple(sorted(link)) for link in links), [], [0]
    for parent in front:
        for link in [link for link in rest if parent in link]:
            child = link[1] if link[0] == parent else link[0]
            found.append((parent, child))
            front.append(child)
            rest.remove(link)
    return tuple(found)


def bic(log_likelihood: float, structure: Structure, n_rows: int) -> float:
    """``log p(z_1 ... z_N) - d(m) / 2 log N``, higher is better (Schwarz 1978; LTVAE, sec. 3.3)."""
    return log_likelihood - 0.5 * structure.n_parameters * math.log(n_rows)
