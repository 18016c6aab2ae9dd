"""``nvisa features``: images or texts to a feature file; feature files of the same rows side by side."""
# ruff: noqa: PLC0415  what needs torch is imported when the command runs: --help should not wait for it

import argparse
from pathlib import Path
from typing import Any

from nvisa.commands.options import SUBFOLDERS_HELP, add_command, add_data_home
from nvisa.commands.printing import SAME_COMMAND, Result, print_result
from nvisa.commands.progress import DownloadProgress, ImageProgress

__all__ = ["add", "features", "joined", "texts"]

TEXT_FILES = (".txt", ".csv", ".tsv", ".parquet", ".pq")
INPUT_HELP = (
    "a data set of images (nvisa data list), a folder of images, texts (.txt, .csv, .parquet), or a feature file"
)
SHORT = {"efficientnet_lite2": "effnet_lite2", "resnet50": "resnet50"}  # in the names of feature files


def add(commands: Any) -> None:
    """Options of the command."""
    parser = add_command(commands, "features", run, "turn images or texts into a feature file by a pretrained backbone")
    parser.add_argument("input", metavar="INPUT", help=INPUT_HELP)
    names = "efficientnet_lite2, resnet50; your own: an .onnx, TorchScript (.pt) or package.module:factory"
    of_texts = "texts: all_minilm_l6_v2, a folder of sentence-transformers or package.module:factory"
    parser.add_argument("--backbone", metavar="NAME", help=f"{names}; {of_texts}")
    parser.add_argument("--text-column", metavar="NAME", help="of a .csv or .parquet (default: the longest texts)")
    more = "feature files of the same rows, to stand beside INPUT, one: each counts alike"
    parser.add_argument("--join", nargs="+", metavar="FILE", help=more)
    for name in ("mean", "std"):
        text = f"your own: {name} of R G B, of pixels in 0..1 as torchvision counts (default: pixels to -1..1)"
        parser.add_argument(f"--{name}", nargs=3, type=float, metavar=("R", "G", "B"), help=text)
    parser.add_argument("--size", type=int, metavar="N", help="your own: side of its images (default: the file's, 224)")
    parser.add_argument("--out", metavar="FILE", help="an .npz; a run that was cut continues (data set: has a default)")
    parser.add_argument("--trust", action="store_true", help="your own: open a TorchScript file, which can run code")
    parser.add_argument("--batch-size", type=int, default=64, help="images at a time (default 64)")
    parser.add_argument("--labels-from-folders", action="store_true", help=SUBFOLDERS_HELP)
    add_data_home(parser)


def run(args: argparse.Namespace) -> None:
    """Write the file and print what it holds."""
    what = "rows" if args.join else "texts" if _is_texts(args.input) else "images"
    if (args.backbone is None) == (args.join is None):
        args.parser.error("expected --backbone NAME, or --join FILE ... for files that are made already")
    if args.join or what == "texts":
        if args.out is None:
            args.parser.error("expected --out FILE.npz")
        result = (
            joined([args.input, *args.join], args.out)
            if args.join
            else texts(args.input, args.backbone, args.out, column=args.text_column, quiet=args.quiet)
        )
    else:
        names = ("out", "data_home", "labels_from_folders", "batch_size", "mean", "std", "size", "trust", "quiet")
        result = features(args.input, args.backbone, **{name: getattr(args, name) for name in names})
    print_result(args, result, lambda r: f"{r['n_rows']:,} {what}, {r['n_features']:,} features each: wrote {r['out']}")


def _is_texts(source: str) -> bool:
    return Path(source).suffix.lower() in TEXT_FILES


def texts(source: str, backbone: str, out: str, *, column: str | None = None, quiet: bool = False) -> Result:
    """Write ``X``, a vector for each text of a .txt, .csv or .parquet."""
    from nvisa.data.features import extract, load_text_backbone, read_texts

    loaded, rows = load_text_backbone(backbone), read_texts(source, column)
    progress = None if quiet else ImageProgress()
    extract({"X": rows}, loaded, out, progress=progress)
    return _described(out, loaded.name)


def joined(files: list[str], out: str) -> Result:
    """Write feature files of the same rows as one."""
    from nvisa.data.features import join

    return _described(str(join(files, out)), "")


def _described(out: str, backbone: str) -> Result:
    import numpy as np

    with np.load(out, allow_pickle=False) as archive:
        parts = [archive[name].shape for name in ("X", "x_train", "x_test") if name in archive.files]
    return {"out": out, "n_rows": sum(shape[0] for shape in parts), "n_features": parts[0][1], "backbone": backbone}


def features(
    source: str,
    backbone: str,
    out: str | None,
    data_home: str | None,
    *,
    labels_from_folders: bool = False,
    batch_size: int = 64,
    quiet: bool = False,
    **how: Any,
) -> Result:
    """Write ``x_train, y_train, x_test, y_test`` of a data set, or ``X`` and ``names`` (and ``y``) of a folder.

    ``out`` is by default the file in the data home that :func:`nvisa.data.load` finds by its name;
    ``how`` is :func:`nvisa.data.features.load_backbone`'s mean, std, size and trust.
    """
    import numpy as np

    from nvisa.data.features import extract, load_backbone
    from nvisa.data.features.sources import fine_name, of_data_set, of_folder

    loaded = load_backbone(backbone, **how)
    is_folder = Path(source).is_dir()
    source = source if is_folder else fine_name(source)
    path = Path(out) if out is not None else _default_out(source, backbone, data_home, is_folder=is_folder)
    progress = None if quiet else ImageProgress()
    if is_folder:
        splits, labels = of_folder(source, with_labels=labels_from_folders)
    else:
        splits, labels = of_data_set(source, data_home, progress=DownloadProgress())
    if out is None:
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        extract(splits, loaded, path, labels=labels, batch_size=batch_size, progress=progress)
    except KeyboardInterrupt as error:
        raise type(error)(f"{SAME_COMMAND} goes on after the last block of images that is done") from error
    with np.load(path, allow_pickle=False) as archive:
        shape = archive[next(iter(splits))].shape
    return {"out": str(path), "n_rows": sum(map(len, splits.values())), "n_features": shape[1], "backbone": loaded.name}


def _default_out(source: str, backbone: str, data_home: str | None, *, is_folder: bool) -> Path:
    """``<data home>/features/<data set>_<backbone>.npz``, where nothing is yet: others' records may name its digest."""
    from nvisa import data
    from nvisa.data.features.files import part_of

    if is_folder or backbone not in SHORT:
        what = "a folder of images" if is_folder else "a network of your own"
        raise ValueError(f"{source}: expected an .npz to write, as for {what}, got none. Try --out FILE.npz.")
    path = data.data_home(data_home) / "features" / f"{source}_{SHORT[backbone]}.npz"
    if path.exists() and not part_of(path).exists():  # else it was killed between its last two steps
        raise ValueError(f"{path}: expected no file there yet, got one. Try removing it, or --out FILE.npz.")
    return path
