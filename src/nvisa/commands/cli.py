"""The command line: parse, call, print. What a command does is in ``nvisa.commands``."""

import argparse
import importlib
import json
import os
import re
import sys
import traceback
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

import nvisa

if TYPE_CHECKING:
    from nvisa.commands import Reading

__all__ = ["main"]

SUMMARY = """\
nvisa clusters rows (pixels, embeddings, columns) without labels, by a Gaussian-mixture VAE.

  nvisa demo                                         see it on 1,797 handwritten digits, 1-3 minutes
  nvisa choose-k FILE                                how many clusters? .csv, .parquet, .npy, .npz, folder of images
  nvisa fit FILE --n-clusters 5 --out model          cluster them; "digits" in place of FILE: a data set with a name
  nvisa predict model FILE --out labels.csv --proba  the cluster of each row, and how sure
  nvisa report model --data FILE --out report.html   one page to look at: map, clusters, anomalies
  nvisa sample model -n 100 --out made-up.csv        rows that the model makes up (.png: pictures)
  nvisa evaluate model digits                        agreement with labels, where there are some
  nvisa fit --help                                   every option of a command; nvisa --help: every command
"""
EXIT_CODES = "exit codes: 0 done; 1 a fault of nvisa's; 2 wrong usage or input; 3 training diverged; 130 interrupted"
DATA_HELP = "a .csv, .parquet, .npy, .npz, a folder of images, or a data set's name (nvisa data list)"
DONE, FAULT, WRONG_INPUT, DIVERGED, INTERRUPTED = 0, 1, 2, 3, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    args = _parser().parse_args(argv)
    run = args.run or (lambda _: print(SUMMARY, end=""))
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning  # type: ignore[assignment]
        try:
            code = run(args) or DONE
            sys.stdout.flush()
        except BrokenPipeError:  # whoever reads has seen enough, as `| head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
            return DONE
        except (Exception, KeyboardInterrupt) as error:
            code, message = _failed(error, debug=args.debug)
            print(message, file=sys.stderr)
            if args.json:
                print(json.dumps({"error": message.removeprefix("error: "), "exit_code": code}))
            return code
    return code


def _show_warning(message: Warning | str, *_: Any) -> None:
    print(f"warning: {message}", file=sys.stderr)


def _failed(error: BaseException, *, debug: bool) -> tuple[int, str]:
    """(the exit code, what went wrong); the traceback is shown for ``--debug`` only."""
    if debug:
        traceback.print_exception(error)
    if isinstance(error, KeyboardInterrupt):  # before the imports: one that was cut short cannot be repeated
        return INTERRUPTED, f"interrupted: {str(error) or 'nothing was written, and what was there before still is'}"
    from nvisa.commands.results import in_options  # noqa: PLC0415
    from nvisa.fitting.training import DivergedError  # noqa: PLC0415

    if isinstance(error, (ValueError, OSError)):
        return WRONG_INPUT, f"error: {in_options(str(error))}"
    if isinstance(error, DivergedError):
        return DIVERGED, f"error: {error}"
    return FAULT, f"error: {type(error).__name__}: {error} (a fault of nvisa's; --debug shows where)"


# ---- commands: call and print ---------------------------------------------------------------------------------


def _commands() -> Any:
    """``nvisa.commands``, imported when a command runs: torch takes seconds, ``--help`` should not."""
    return importlib.import_module("nvisa.commands")


def _reading(args: argparse.Namespace) -> "Reading":
    names = ("label_column", "id_column", "drop_text", "drop_missing", "image_size", "labels_from_folders", "data_home")
    return _commands().Reading(drop=tuple(args.drop), **{name: getattr(args, name) for name in names})


def _fit(args: argparse.Namespace) -> None:
    if args.n_clusters is None:
        args.parser.error(f"expected --n-clusters K, the number of clusters. Try nvisa choose-k {args.data}")
    names = ("n_clusters", "likelihood", "inference", "init", "n_samples", "n_init")
    settings = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    settings |= {"random_state": args.seed, "verbose": int(not args.quiet)}
    settings |= {} if args.consistency is None else {"consistency": CONSISTENCY[args.consistency]}
    run = {"epochs": args.epochs, "checkpoint": args.checkpoint, "scaling": args.scaling}

    def understood(found: dict[str, Any]) -> None:
        if not (args.json or args.quiet):
            print(_commands().understanding_text(found), file=sys.stderr, flush=True)

    result = _commands().fit(args.data, args.out, settings, _reading(args), on_read=understood, **run)
    _tell(args, result, _fit_text)


def _fit_text(result: dict[str, Any]) -> str:
    lines = [f"{result['seconds']:.0f} s", _sizes(result), f"saved in {result['model']}"]
    if result["metrics"]:
        lines += ["", "agreement with the labels, which training did not see:", _metrics(result["metrics"])]
    return "\n".join([*lines, "", "next:", *(f"  {line}" for line in result["next"])])


def _choose_k(args: argparse.Namespace) -> None:
    result = _commands().choose_k(args.data, _reading(args), max_k=args.max_k, seed=args.seed)
    _tell(args, result, _commands().choose_k_text)


def _predict(args: argparse.Namespace) -> None:
    result = _commands().predict(args.model, args.data, args.out, _reading(args), split=args.split, proba=args.proba)
    _tell(args, result, lambda r: f"{r['n_rows']:,} rows from {r['source']}\n{_sizes(r)}\nwrote {r['out']}")


def _evaluate(args: argparse.Namespace) -> None:
    result = _commands().evaluate(args.model, args.data, _reading(args), split=args.split)
    _tell(args, result, lambda r: f"{r['n_rows']:,} rows from {r['source']}\n{_metrics(r['metrics'])}")


def _sample(args: argparse.Namespace) -> None:
    result = _commands().sample(args.model, args.out, args.n, cluster=args.cluster, mean=args.mean, seed=args.seed)
    _tell(args, result, lambda r: f"wrote {r['n_rows']} samples to {r['out']}")


def _data_list(args: argparse.Namespace) -> None:
    _tell(args, _commands().list_data(args.data_home), lambda entries: "\n".join(map(_data_line, entries)))


def _data_line(entry: dict[str, Any]) -> str:
    rows = " + ".join(f"{n:,}" for n in (entry["n_train"], entry["n_test"]) if n)
    size = "" if not entry["n_bytes"] else f"{entry['n_bytes'] / 1e6:.0f} MB"
    absent = "nvisa data fetch " + entry["name"] if entry["fetchable"] else "not here, has to be built"
    return f"{entry['name']:<30} {rows:>16} {size:>8}   {'here' if entry['present'] else absent}"


def _data_fetch(args: argparse.Namespace) -> None:
    result = _commands().fetch(args.name, args.data_home)
    _tell(args, result, lambda r: "\n".join(r["files"]) or f"{r['name']} comes with nvisa: nothing to fetch")


CODES = {"crashed": FAULT, "no data": WRONG_INPUT, "interrupted": INTERRUPTED}  # of a bench in which a run ended so


def _bench(args: argparse.Namespace) -> int:
    room = importlib.import_module("nvisa.commands.experiments")
    wanted = {"methods": args.methods, "datasets": args.datasets, "seeds": args.seeds}
    jobs = room.jobs_of(args.table, args.records, args.data_home, **wanted)
    if args.plan:
        _tell(args, room.plan(jobs, args.records, args.workers), room.plan_text)
        return DONE
    how = {"workers": args.workers, "models": args.models, "quiet": args.quiet}
    result = room.bench(jobs, args.records, args.data_home, **how)
    _tell(args, result, lambda r: f"{r['runs']} runs" + "".join(f", {n} {end}" for end, n in r["ends"].items()))
    return max((CODES.get(end, DONE) for end in result["ends"]), default=DONE)


def _table(args: argparse.Namespace) -> None:
    room = importlib.import_module("nvisa.commands.experiments")
    text = room.table(args.table, args.records, args.format)
    _tell(args, {"table": args.table, "format": args.format, "text": text}, lambda r: r["text"])


def _features(args: argparse.Namespace) -> None:
    room = importlib.import_module("nvisa.commands.features")
    names = ("out", "data_home", "labels_from_folders", "batch_size", "mean", "std", "size", "quiet")
    result = room.features(args.input, args.backbone, **{name: getattr(args, name) for name in names})
    _tell(args, result, lambda r: f"{r['n_rows']:,} images, {r['n_features']:,} features each: wrote {r['out']}")


def _demo(args: argparse.Namespace) -> None:
    with redirect_stdout(sys.stderr if args.json else sys.stdout):
        table = importlib.import_module("nvisa.commands.demo").run(
            args.out, quick=args.quick, quiet=args.quiet or args.json
        )
    _tell(args, table, None)


def _completion(args: argparse.Namespace) -> None:
    try:
        import shtab  # noqa: PLC0415  an extra
    except ImportError as error:
        raise ValueError(
            f'expected shtab, which writes completion scripts, got: {error}. Try pip install "nvisa[completion]".'
        ) from error
    script = shtab.complete(_parser(), args.shell)
    _tell(args, {"shell": args.shell, "script": script}, lambda result: result["script"])


def _tell(args: argparse.Namespace, result: Any, text: Any) -> None:
    """The result as one JSON document, or as text (None: what ran has already printed it)."""
    if args.json:
        print(json.dumps(result, allow_nan=False, indent=1))
    elif not args.quiet and text is not None:
        print(text(result))


def _sizes(result: dict[str, Any]) -> str:
    shown = ", ".join(map(str, result["sizes"][:20])) + (", ..." if len(result["sizes"]) > 20 else "")
    return f"{result['clusters_in_use']} of {len(result['sizes'])} clusters in use, of sizes {shown}"


def _metrics(values: dict[str, float]) -> str:
    return "   ".join(f"{name} {value:.4f}" for name, value in values.items())


# ---- options --------------------------------------------------------------------------------------------------

CONSISTENCY = {"vat": "vat", "augment": "augment", "none": None}


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(f"nvisa {nvisa.__version__}")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nvisa", description=SUMMARY, epilog=EXIT_CODES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    parser.set_defaults(run=None, debug=False, json=False)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    of_models = (_add_fit, _add_choose_k, _add_predict, _add_evaluate, _add_sample, _add_report)
    for add in (*of_models, _add_data, _add_features, _add_bench, _add_demo, _add_completion):
        add(commands)
    return parser


def _add(commands: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    """A command with the options that all have."""
    parser = commands.add_parser(name, help=text, description=text + ".", epilog=EXIT_CODES)
    parser.set_defaults(run=run, parser=parser)
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors (and --json's document)")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON document")
    return parser


def _add_fit(commands: Any) -> None:
    parser = _add(commands, "fit", _fit, "cluster the rows of DATA and write a model directory")
    parser.add_argument("data", metavar="DATA", help=DATA_HELP)
    parser.add_argument("--n-clusters", type=int, metavar="K", help="number of clusters (nvisa choose-k DATA helps)")
    parser.add_argument("--out", required=True, metavar="DIR", help="model directory, new or to be replaced")
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default 0)")
    parser.add_argument("--epochs", type=int, help="passes over the data (default: by the number of rows)")
    parser.add_argument("--checkpoint", metavar="DIR", help="keep what the same command needs to go on if it is killed")
    likelihoods = ("gaussian_shared", "gaussian", "bernoulli")
    parser.add_argument("--likelihood", choices=likelihoods, help="p(x|z) (default: by the values)")
    scalings = ("columns", "global", "none")
    parser.add_argument("--scaling", choices=scalings, help="units of the networks (default: by the columns)")
    parser.add_argument("--inference", choices=("vimco", "nvil", "enum_y"), help="gradient estimator")
    parser.add_argument("--init", choices=("umap", "gmm", "random"), help="where training starts")
    parser.add_argument("--n-samples", type=int, metavar="M", help="draws of (y, z) for a row")
    parser.add_argument("--consistency", choices=tuple(CONSISTENCY), help="local consistency of q(y|x)")
    parser.add_argument("--n-init", type=int, metavar="R", help="restarts; the best by a score without labels is kept")
    _add_reading(parser)


def _add_choose_k(commands: Any) -> None:
    parser = _add(commands, "choose-k", _choose_k, "say which numbers of clusters DATA suggest, without labels")
    parser.add_argument("data", metavar="DATA", help=DATA_HELP)
    parser.add_argument("--max-k", type=int, default=20, metavar="K", help="largest K to consider (default 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the fine cuts (default 0)")
    _add_reading(parser)


def _add_predict(commands: Any) -> None:
    parser = _add(commands, "predict", _predict, "write the cluster of each row of DATA")
    _add_model_and_data(parser)
    parser.add_argument("--out", required=True, metavar="FILE", help="a .csv or .parquet")
    parser.add_argument("--proba", action="store_true", help="also q(y|x), in columns p0, p1, ...")


def _add_evaluate(commands: Any) -> None:
    parser = _add(commands, "evaluate", _evaluate, "compare the clusters of DATA with its labels")
    _add_model_and_data(parser)


def _add_sample(commands: Any) -> None:
    parser = _add(commands, "sample", _sample, "write rows that the model makes up")
    parser.add_argument("model", metavar="MODEL", help="model directory")
    parser.add_argument("-n", type=int, default=100, help="how many (default 100)")
    parser.add_argument("--cluster", type=int, metavar="k", help="of this cluster only")
    parser.add_argument("--mean", action="store_true", help="the mean of p(x|z) instead of a draw, as for pictures")
    parser.add_argument("--seed", type=int, help="default: the model's own")
    parser.add_argument("--out", required=True, metavar="FILE", help=".npy, .npz, .csv, .parquet, or .png for images")


def _add_report(commands: Any) -> None:
    def run(args: argparse.Namespace) -> None:
        how = {"data": args.data, "split": args.split, "maps": args.maps}
        result = _commands().report(args.paths, args.out, _reading(args), **how)
        _tell(args, result, lambda r: f"wrote {r['out']} ({r['n_bytes'] / 1e6:.1f} MB): open it in a browser")

    parser = _add(commands, "report", run, "write one HTML page about a model and its rows, or about records")
    parser.add_argument("paths", metavar="PATH", nargs="+", help="a model directory; or records of a benchmark")
    parser.add_argument("--data", metavar="DATA", help="rows to look at: " + DATA_HELP)
    parser.add_argument("--split", choices=("train", "test"), help="of a data set with a name (default test, if any)")
    names = ("auto", "pca", "tsne", "umap")
    parser.add_argument("--maps", nargs="+", choices=names, default=["auto", "pca"], help="default: auto pca")
    parser.add_argument("--out", default="report.html", metavar="FILE", help="an .html (default report.html)")
    _add_reading(parser)


def _add_data(commands: Any) -> None:
    parser = commands.add_parser("data", help="list or fetch the data sets that have names", epilog=EXIT_CODES)
    parser.set_defaults(run=_data_list, debug=False, json=False, quiet=False, data_home=None)
    actions = parser.add_subparsers(title="actions", metavar="ACTION")
    _add_data_home(_add(actions, "list", _data_list, "list the data sets that have names"))
    fetch = _add(actions, "fetch", _data_fetch, "download a data set from its official mirrors")
    fetch.add_argument("name", metavar="NAME", help="such as mnist")
    _add_data_home(fetch)


def _add_features(commands: Any) -> None:
    parser = _add(commands, "features", _features, "turn images into a feature file by a pretrained backbone")
    parser.add_argument("input", metavar="INPUT", help="a data set of images (nvisa data list) or a folder of images")
    names = "efficientnet_lite2, resnet50; your own: an .onnx, TorchScript (.pt) or package.module:factory"
    parser.add_argument("--backbone", required=True, metavar="NAME", help=names)
    for name in ("mean", "std"):
        text = f"your own: {name} of R G B, of pixels in 0..1 as torchvision counts (default: pixels to -1..1)"
        parser.add_argument(f"--{name}", nargs=3, type=float, metavar=("R", "G", "B"), help=text)
    parser.add_argument("--size", type=int, metavar="N", help="your own: side of its images (default: the file's, 224)")
    parser.add_argument("--out", metavar="FILE", help="an .npz; a run that was cut continues (data set: has a default)")
    parser.add_argument("--batch-size", type=int, default=64, help="images at a time (default 64)")
    parser.add_argument("--labels-from-folders", action="store_true", help="folder: labels are the subfolders' names")
    _add_data_home(parser)


def _add_bench(commands: Any) -> None:
    names = "table1, beyond, features, features_beyond, resnet50, ablation, ablation_short, long, digits, selection"
    parser = _add(commands, "bench", _bench, "run what an experiment lacks and what has crashed, one JSON record a run")
    parser.add_argument("table", metavar="TABLE", choices=names.split(", "), help=names)
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="rows: methods, recipes or labels")
    parser.add_argument("--datasets", nargs="+", metavar="NAME", help="in place of the experiment's own")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="S", help="in place of the experiment's own")
    parser.add_argument("--plan", action="store_true", help="run nothing; say what is missing and how long it may take")
    parser.add_argument("--workers", type=int, metavar="N", help="runs side by side, one thread each (default: cores)")
    parser.add_argument("--models", metavar="DIR", help="keep the fitted models here")
    _add_records(parser)
    _add_data_home(parser)
    parser = _add(commands, "table", _table, "print a table made from the records")
    parser.add_argument("table", metavar="TABLE", help="table1, features, ablation, mnist, ... (docs/benchmark.md)")
    parser.add_argument("--format", choices=("markdown", "latex", "csv"), default="markdown", help="default markdown")
    _add_records(parser)


def _add_records(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--records", default="benchmarks/records", metavar="DIR", help="default benchmarks/records")


def _add_demo(commands: Any) -> None:
    parser = _add(commands, "demo", _demo, "cluster 1,797 handwritten digits, draw them, say what to type next")
    parser.add_argument("--out", default="nvisa-demo", metavar="DIR", help="default nvisa-demo")
    parser.add_argument("--quick", action="store_true", help="two epochs, to see that it runs; the clusters are poor")


def _add_completion(commands: Any) -> None:
    parser = _add(commands, "completion", _completion, "print a script that teaches the shell to complete nvisa")
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"), help="which shell")


def _add_model_and_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="model directory")
    parser.add_argument("data", metavar="DATA", help=DATA_HELP)
    parser.add_argument("--split", choices=("train", "test"), help="of a data set with a name (default test, if any)")
    _add_reading(parser)


def _add_reading(parser: argparse.ArgumentParser) -> None:
    _add_data_home(parser)
    parser.add_argument("--label-column", metavar="NAME", help=".csv, .parquet: holds labels, not a feature")
    parser.add_argument("--id-column", metavar="NAME", help=".csv, .parquet: names the rows, not a feature")
    parser.add_argument("--drop", metavar="NAME", action="append", default=[], help=".csv, .parquet: leave it out")
    parser.add_argument("--drop-missing", action="store_true", help="leave out rows with missing values")
    parser.add_argument("--drop-text", action="store_true", help=".csv, .parquet: leave out what is not numeric")
    parser.add_argument("--image-size", type=_size, metavar="HxW", help="folder: resize every image, such as 28x28")
    parser.add_argument("--labels-from-folders", action="store_true", help="folder: labels are the subfolders' names")


def _add_data_home(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-home", metavar="DIR", help="folder of data sets (default $NVISA_DATA_HOME, a cache)")


def _size(text: str) -> tuple[int, int]:
    if not (found := re.fullmatch(r"([1-9]\d*)(?:x([1-9]\d*))?", text.lower())):
        raise argparse.ArgumentTypeError(f"expected pixels such as 28x28, got {text!r}")
    return int(found[1]), int(found[2] or found[1])
