"""``nvisa choose-k``: how many clusters? From the neighbor graph alone; no network, no label."""
# ruff: noqa: PLC0415  what needs torch is imported when the command runs: --help should not wait for it

import argparse
from typing import Any

from nvisa.commands.options import DATA_HELP, ReadOptions, add_command, add_read_options
from nvisa.commands.printing import Result, command_line, next_text, notes_lines, print_result

__all__ = ["add", "choose_k"]

MAX_ROWS, N_CUTS, N_NEIGHBORS = 10_000, 5, 10
CLEAR = 1.5  # rows without clusters (Gaussian, uniform) reach 1.4


def add(commands: Any) -> None:
    """Options of the command."""
    parser = add_command(commands, "choose-k", run, "say which numbers of clusters DATA suggest, without labels")
    parser.add_argument("data", metavar="DATA", help=DATA_HELP)
    parser.add_argument("--max-k", type=int, default=20, metavar="K", help="largest K to consider (default 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the fine cuts (default 0)")
    add_read_options(parser)


def run(args: argparse.Namespace) -> None:
    """Print the curve and the candidates."""
    print_result(args, choose_k(args.data, ReadOptions.of(args), max_k=args.max_k, seed=args.seed), choose_k_text)


def choose_k_text(result: Result) -> str:
    """The curve as a table with bars, then what to type."""
    best, top = result["candidates"], max(result["separation"])
    lines = notes_lines(result["notes"]) + [f"{'K':>4} {'information':>12} {'separation':>11} {'border':>7}"]
    columns = (result[name] for name in ("k", "information", "separation", "border"))
    for k, information, drop, border in zip(*columns, strict=True):
        bar = "#" * max(1, round(24 * drop / max(top, 1e-9)))
        cost = "" if border is None else f"{border:.3f}"
        lines.append(f"{k:>4} {information:>12.3f} {drop:>11.2f} {cost:>7}  {bar}" + ("  <" if k == best[0] else ""))
    others = " or ".join(map(str, best[1:]))
    verdict = (
        f"K = {best[0]} stands out; then {others}."
        if result["is_clear"]
        else f"No K stands out: {best[0]} a little, then {others}. Rows without clusters look like this too."
    )
    return "\n".join([*lines, "", verdict, "", next_text(result)])


def choose_k(data: str, options: ReadOptions, *, max_k: int = 20, seed: int = 0) -> Result:
    """Candidates for K, best first, and the curve that they come from.

    The first counts the cheap borders (:mod:`nvisa.fitting.levels`), the others are where the information curve bends:
    the rows (at most 10,000) are cut finely by k-means five times; each cut is merged pair by pair, and the mean
    of the five curves of I(K) is judged by :func:`nvisa.fitting.graph.separation`.
    """
    import numpy as np

    from nvisa.commands.data_profile import profile
    from nvisa.commands.rows import read_rows
    from nvisa.fitting.graph import separation
    from nvisa.fitting.levels import select_n_clusters

    rows = read_rows(data, options, to_fit=True)
    n_rows = min(len(rows.X), MAX_ROWS)
    n_micro = min(3 * max_k, n_rows // 5)
    if n_micro < 5 or max_k < 2:
        raise ValueError(
            f"{rows.source}: expected at least 25 rows and --max-k of at least 2, got {len(rows.X)} and {max_k}. "
            f"Try {'a larger --max-k' if max_k < 2 else 'more rows'}."
        )
    max_k = min(max_k, n_micro - 1)
    found = profile(rows)["scaling"]
    curve = _mean_curve(rows.X, found, n_micro, seed)
    drop = separation(curve)[: max_k - 1]
    levels = select_n_clusters(rows.X, max_clusters=max_k, scaling=found, random_state=seed) if n_rows >= 30 else None
    counted = [] if levels is None else [levels.n_clusters]
    best = [*counted, *(k for k in (np.argsort(-drop, kind="stable") + 2)[:3].tolist() if k not in counted)][:3]
    return {
        "source": rows.source,
        "n_rows": len(rows.X),
        "notes": list(rows.notes),
        "candidates": best,
        "is_clear": bool(drop.max() >= CLEAR) if levels is None else levels.is_clear,
        "k": list(range(2, max_k + 1)),
        "information": curve[1:max_k].tolist(),
        "separation": drop.tolist(),
        "border": [None] * len(drop) if levels is None else levels.border[1:max_k].tolist(),
        "next": [command_line("fit", data, *options.words(), "--n-clusters", best[0], "--out", "model")],
    }


def _mean_curve(X: Any, scaling: str, n_micro: int, seed: int) -> Any:
    """Mean over the cuts of I(1) .. I(n_micro)."""
    import numpy as np
    import torch
    from sklearn.cluster import KMeans
    from sklearn.utils import check_random_state

    from nvisa.fitting.graph import information_curve, joint_of_labels, neighbors, principal_components
    from nvisa.methods.input import centered, origin_of
    from nvisa.nets.rows import make_rescale, subset, take

    rng = check_random_state(seed)
    X = centered(X, origin_of(X))
    rescale = make_rescale(X, scaling)
    x = rescale(torch.from_numpy(take(X, subset(len(X), rng, MAX_ROWS), np.float32))).numpy()
    points = principal_components(x, rng)
    graph = neighbors(points, N_NEIGHBORS)
    cuts = (KMeans(n_micro, n_init=1, random_state=rng).fit(points).labels_ for _ in range(N_CUTS))
    return np.mean([information_curve(joint_of_labels(cut, graph, n_micro)) for cut in cuts], axis=0)
