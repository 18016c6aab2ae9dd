"""``nvisa report``: the page of a model, with rows if there are some, or of a benchmark's records."""
# ruff: noqa: PLC0415  what needs torch is imported when the command runs: --help should not wait for it

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nvisa.commands.options import DATA_HELP, ReadOptions, add_command, add_read_options, add_split
from nvisa.commands.printing import Result, command_line, notes_lines, print_result

__all__ = ["add", "report"]


def add(commands: Any) -> None:
    """Options of the command."""
    parser = add_command(commands, "report", run, "write one HTML page about a model and its rows, or about records")
    parser.add_argument("paths", metavar="PATH", nargs="+", help="a model directory; or records of a benchmark")
    parser.add_argument("--data", metavar="DATA", help="rows to look at: " + DATA_HELP)
    add_split(parser)
    names = ("auto", "pca", "tsne", "umap")
    parser.add_argument("--maps", nargs="+", choices=names, default=["auto", "pca"], help="default: auto pca")
    parser.add_argument("--out", default="report.html", metavar="FILE", help="an .html (default report.html)")
    add_read_options(parser)


def run(args: argparse.Namespace) -> None:
    """Write the page and print where it is."""
    how = {"data": args.data, "split": args.split, "maps": args.maps}
    result = report(args.paths, args.out, ReadOptions.of(args), **how)
    wrote = f"wrote {result['out']} ({result['n_bytes'] / 1e6:.1f} MB): open it in a browser"
    print_result(args, result, lambda r: "\n".join([*notes_lines(r.get("notes", [])), wrote]))


def report(
    paths: Sequence[str],
    out: str,
    options: ReadOptions,
    *,
    data: str | None = None,
    split: str | None = None,
    maps: Sequence[str] = ("auto", "pca"),
) -> Result:
    """Write the page of a model directory, with the rows of DATA if given, or of a benchmark's records."""
    from nvisa.commands.output_files import check_output

    path = check_output(out, (".html",), source=paths[0])
    is_model = len(paths) == 1 and (Path(paths[0]) / "manifest.json").exists()
    if data is not None and not is_model:
        raise ValueError(f"{' '.join(paths)}: expected one model directory with --data, got none. Try nvisa fit.")
    notes: Sequence[str] = ()
    try:
        if is_model:
            notes = _report_model(path, paths[0], out, options, data, split, maps)
        else:
            _report_records(path, paths)
    except ImportError as error:
        raise ValueError(f"{out}: {error}") from error
    return {"out": out, "n_bytes": path.stat().st_size} | ({"notes": list(notes)} if notes else {})


def _report_records(path: Path, paths: Sequence[str]) -> None:
    from nvisa.benchmark.page import write_records_report

    write_records_report(paths, out=path)


def _report_model(
    path: Path, model: str, out: str, options: ReadOptions, data: str | None, split: str | None, maps: Sequence[str]
) -> Sequence[str]:
    """The page of a model: what its manifest knows, and the rows if there are some; how they were read."""
    from nvisa.commands.models import aligned
    from nvisa.commands.rows import Remembered, read_rows
    from nvisa.methods import load
    from nvisa.persistence import read_manifest
    from nvisa.report import write_report

    clusterer, manifest = load(model, device="auto"), read_manifest(model)
    known = manifest["extra"]
    words = ["report", model, "--out", out]
    about = {"model": model, "model_digest": manifest["sha256"], "source": known.get("source")}
    if data is None:
        about |= {"data_digest": known.get("data_digest"), "command": command_line(*words)}
        write_report(clusterer, out=path, feature_shape=known.get("feature_shape"), about=about)
        return ()
    rows = read_rows(data, options, split=split, like=Remembered.of(known))
    words += ["--data", data, *options.words(), *(["--split", split] if split else []), "--maps", *maps]
    about |= {"source": rows.source, "data_digest": rows.digest, "command": command_line(*words)}
    write_report(
        clusterer, aligned(rows, clusterer, known.get("feature_shape")), rows.labels, out=path,
        feature_shape=rows.feature_shape or known.get("feature_shape"), names=rows.names, maps=maps, about=about,
    )  # fmt: skip
    return rows.notes
