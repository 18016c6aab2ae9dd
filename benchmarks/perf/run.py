"""Measure the speed and the memory of nvisa, section by section, into benchmarks/records/performance.

    python benchmarks/perf/run.py                       every section that has no record yet
    python benchmarks/perf/run.py --sections step plain --again
    python benchmarks/perf/run.py --sections time_to_0 time_to_1 time_to_2 time_to_3 time_to_4    on a quiet machine
    .perfenv/bin/python benchmarks/perf/run.py --sections whole_0 whole_1          an hour

`make perf` runs it in two environments: the sections of PEERS need packages that the project does not depend on. A
section takes minutes; one that is killed is made again by the next call. Numbers of different sections are made
minutes apart: compare only what stands in one table.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import FOLDER, clock, flops, mnist, noise, objective_of, paired, peak_memory, ratios, steps, write
from page import maps, page
from plain import Plain

import nvisa.methods.nvisa
from nvisa import NVISA, Training
from nvisa import data as datasets
from nvisa.benchmark import RECORDS
from nvisa.benchmark.records import read_record, record_path, write_record
from nvisa.benchmark.run import run
from nvisa.fitting.consistency import VAT
from nvisa.fitting.training import flush_denormals
from nvisa.maths.metrics import accuracy
from nvisa.maths.mixtures import MAX_STEPS, RIDGE, TOL, fit_mixture
from nvisa.nets.layers import Network

BATCH = 256
PER_EPOCH = 60_000 / BATCH  # batches of MNIST
Rows = list[dict[str, Any]]


def ms(seconds: list[float], n_steps: int) -> list[float]:
    return [1e3 * s / n_steps for s in seconds]


def gigaflops(program: Callable[[], Any], n_steps: int) -> float:
    """Of the matrix products of a step."""
    return flops(program) / n_steps / 1e9


def step() -> None:
    """(a) A training step beside one large matrix product; every epoch starts from the same weights."""
    X, n_steps, rows = mnist(BATCH * 4), 4, []
    settings = {
        "bound, M = 15, sigma_x 0.7 + 1": {"floor_x": 1.0},
        "bound, M = 15, sigma_x 0.7 + 0.1": {"floor_x": 0.1},
        "EnumY, sigma_x 0.7 + 0.5": {"inference": "enum_y", "floor_x": 0.5},
        "default: bound, M = 3, and consistency": {"n_samples": 3, "batch_norm": True, "consistency": (VAT(),)},
    }
    a, b = torch.rand(2048, 2048), torch.rand(2048, 2048)
    for name, options in settings.items():
        epoch = steps(objective_of(X, **options), X, again=True)
        work = gigaflops(epoch, n_steps)
        seconds = paired({"epoch": epoch, "product": partial(torch.mm, a, b)}, 12)
        took = ms(seconds["epoch"], n_steps)
        rows.append({
            "step": name, "GFLOP": work, "ms": took, "GFLOP/s": [1e3 * work / t for t in took],
            "torch.mm 2048, GFLOP/s": 2 * 2048**3 / min(seconds["product"]) / 1e9,
        })  # fmt: skip
    write("step", rows, "MLP 784-500-500, Z = 10, K = 10, batch 256, MNIST rows, random weights; "
          "torch.mm of 2048 x 2048, alone, at its fastest.")  # fmt: skip


def plain() -> None:
    """(b) Against the common form: shared weights, sizes, batches; both with denormals flushed."""
    X, n_steps, rows = mnist(BATCH * 2), 2, []
    for floor in (1.0, 0.1):  # wide: all samples have weight; narrow, as late in training: few have
        objective = objective_of(X, floor_x=floor)
        theirs = Plain(784, 10, (500, 500), 10)
        theirs.load(objective.network)
        rescaled = objective.network.rescale(torch.from_numpy(X))
        adam = torch.optim.Adam(theirs.parameters(), 1e-4)

        def epoch(*, tiled: bool, theirs=theirs, rescaled=rescaled, adam=adam, floor=floor) -> None:
            for x in rescaled.split(BATCH):
                adam.zero_grad()
                (-theirs.vimco(x, 15, floor, 0.2, tiled=tiled).mean() / x.shape[1]).backward()
                adam.step()

        programs = {"nvisa": steps(objective, X)}
        programs["plain, x repeated for q(z|y,x)"] = partial(epoch, tiled=False)
        programs["plain, x repeated for all"] = partial(epoch, tiled=True)
        with flush_denormals():
            seconds = paired(programs, 3)
        rows += [
            {"epsilon_x": floor, "program": name, "GFLOP": gigaflops(programs[name], n_steps),
             "ms a step": ms(s, n_steps), "s an epoch": [PER_EPOCH * t / n_steps for t in s],
             "times as long as nvisa": ratios(s, seconds["nvisa"])}
            for name, s in seconds.items()
        ]  # fmt: skip
    write("plain", rows, "VIMCO, M = 15, MLP 784-500-500, Z = 10, K = 10, batch 256, MNIST rows (an epoch has 60,000).")


def pyro() -> None:
    """(c) Against the same model in Pyro, y enumerated."""
    from bayes import Model, pyro_step

    X, n_steps = mnist(BATCH * 2), 2
    enumerated, sampled = objective_of(X, inference="enum_y", floor_x=0.5), objective_of(X, floor_x=0.5)
    rescaled = sampled.network.rescale(torch.from_numpy(X))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Model(784, 10, (500, 500), 10)
    train = pyro_step(model, 0.5, 0.2)
    with flush_denormals():
        programs: dict[str, Callable[[], Any]] = {
            "nvisa, EnumY": steps(enumerated, X), "nvisa, VIMCO, M = 15": steps(sampled, X),
            "Pyro, TraceEnum_ELBO": lambda: [train(x) for x in rescaled.split(BATCH)],
        }  # fmt: skip
        seconds = paired(programs, 5)
    rows = [
        {"program": name, "GFLOP": gigaflops(programs[name], n_steps), "ms a step": ms(s, n_steps)}
        for name, s in seconds.items()
    ]
    for row, name in zip(rows, seconds, strict=True):
        row["Pyro takes times as long"] = ratios(seconds["Pyro, TraceEnum_ELBO"], seconds[name])
    write("pyro", rows, "MLP 784-500-500, Z = 10, K = 10, batch 256, MNIST rows.")


def clustpy() -> None:
    """(c) Seconds per epoch of ClustPy's VaDE and DEC, and of ours: the difference of runs of six epochs and of one."""
    from clustpy.deep import DEC, VaDE
    from clustpy.deep.neural_networks import FeedforwardAutoencoder, VariationalAutoencoder

    X, layers = mnist(BATCH * 10), [784, 500, 500, 10]
    n_steps, network = len(X) // BATCH, Network(batch_norm=False)

    def theirs(method: Any, net: Any, epochs: int) -> Callable[[], Any]:
        return lambda: method(
            10, batch_size=BATCH, pretrain_epochs=1, clustering_epochs=epochs, random_state=0,
            neural_network=(net, {"layers": layers}), device=torch.device("cpu"),
        ).fit(X)  # fmt: skip

    def ours(method: Any, epochs: int) -> Callable[[], Any]:
        once = Training(epochs=1, batch_size=BATCH)
        return lambda: method(
            10, network=network, pretraining=once, training=replace(once, epochs=epochs), n_init=1, random_state=0
        ).fit(X)

    runs = {
        "ClustPy VaDE": partial(theirs, VaDE, VariationalAutoencoder), "nvisa VaDE": partial(ours, nvisa.VaDE),
        "ClustPy DEC": partial(theirs, DEC, FeedforwardAutoencoder),
    }  # fmt: skip
    programs: dict[str, Callable[[], Any]] = {
        "nvisa NVISA, M = 1": steps(objective_of(X, n_samples=1, inference="nvil"), X),
        "nvisa NVISA, default": steps(objective_of(X, n_samples=3, batch_norm=True, consistency=(VAT(),)), X),
    }
    by_epoch = tuple(programs)
    programs |= {f"{name} {n}": make(n) for name, make in runs.items() for n in (1, 6)}
    with flush_denormals():
        seconds = paired(programs, 3)
        work = {name: gigaflops(program, n_steps) for name, program in programs.items()}
    for name in runs:
        seconds[name] = [(six - one) / 5 for one, six in zip(seconds[f"{name} 1"], seconds[f"{name} 6"], strict=True)]
        work[name] = (work[f"{name} 6"] - work[f"{name} 1"]) / 5
    rows = [
        {"program": name, "GFLOP a step": work[name], "seconds an epoch of MNIST": [60_000 / len(X) * t for t in s],
         "ClustPy's VaDE takes times as long": ratios(seconds["ClustPy VaDE"], s)}
        for name, s in seconds.items() if name in runs or name in by_epoch
    ]  # fmt: skip
    note = f"MLP 784-500-500-10, batch 256; {len(X)} rows, scaled to 60,000; denormals flushed."
    write("clustpy", rows, note)


def whole(number: int, name: str) -> None:
    """ClustPy's VaDE or DEC at its default lengths on MNIST: how long, and how accurate on test."""
    import clustpy.deep as peers
    from clustpy.deep.neural_networks import FeedforwardAutoencoder, VariationalAutoencoder

    nets = {"VaDE": VariationalAutoencoder, "DEC": FeedforwardAutoencoder}
    data = datasets.load("mnist")
    peer = getattr(peers, name)(
        10, neural_network=(nets[name], {"layers": [784, 500, 500, 10]}), device=torch.device("cpu"), random_state=0
    )
    began, wall = clock(), time.perf_counter()
    peer.fit(mnist())
    row = {
        "program": f"ClustPy {name}", "epochs": f"{peer.pretrain_epochs} + {peer.clustering_epochs}",
        "s of the processor": clock() - began, "s of the wall": time.perf_counter() - wall,
        "accuracy on train, %": 100 * accuracy(np.asarray(data.y_train), peer.labels_),
        "accuracy on test, %": 100 * accuracy(np.asarray(data.y_test), peer.predict(data.X_test.astype(np.float32))),
    }  # fmt: skip
    write(f"whole_{number}", [row], "ClustPy's defaults but for the network, MLP 784-500-500-10; "
          "MNIST, 60,000 rows, seed 0.")  # fmt: skip


def em() -> None:
    """(e) A full mixture of codes, by EM to its end from one k-means start: nvisa.maths.mixtures and scikit-learn."""
    from sklearn.mixture import GaussianMixture

    rows = []
    for n_clusters in (10, 100):
        rng = np.random.RandomState(0)
        codes = rng.randn(n_clusters, 10)[rng.randint(n_clusters, size=40_000)] + 0.4 * rng.randn(40_000, 10)
        its = GaussianMixture(n_clusters, tol=TOL, max_iter=MAX_STEPS, reg_covar=RIDGE, random_state=0)
        programs = {
            "nvisa": lambda codes=codes, k=n_clusters: fit_mixture(codes, k, np.random.RandomState(0), n_init=1),
            "scikit-learn": lambda codes=codes, its=its: its.fit(codes),
        }
        seconds = paired(programs, 3)
        rows += [
            {"K": n_clusters, "steps of EM": its.n_iter_, "program": name, "s": s,
             "times as long as nvisa": ratios(s, seconds["nvisa"])}
            for name, s in seconds.items()
        ]  # fmt: skip
    write("em", rows, "40,000 codes of 10 numbers, float64, k-means included.")


def predict() -> None:
    """(d) Rows per second of predict, on one array."""
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.mixture import GaussianMixture

    X = mnist(20_000)
    few = Training(epochs=1, steps=1)
    clusterers = {
        "NVISA, 784-500-500": NVISA(init="random", consistency=None, random_state=0, training=few),
        "GaussianMixture, full": GaussianMixture(10, max_iter=1, reg_covar=1e-2, random_state=0, init_params="random"),
        "GaussianMixture, diag": GaussianMixture(10, covariance_type="diag", max_iter=1, random_state=0),
        "MiniBatchKMeans": MiniBatchKMeans(10, n_init=1, max_iter=1, random_state=0),
    }
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one iteration does not converge, constant pixels
        fitted = {name: clusterer.fit(X[:2000]) for name, clusterer in clusterers.items()}
    seconds = paired({name: partial(clusterer.predict, X) for name, clusterer in fitted.items()}, 5)
    rows = [
        {"predict of": name, "thousand rows a second": [len(X) / t / 1e3 for t in s],
         "times as long as NVISA": ratios(s, seconds["NVISA, 784-500-500"])}
        for name, s in seconds.items()
    ]  # fmt: skip
    write("predict", rows, "20,000 x 784 float32, K = 10.")


def fit_and_predict(n: int) -> None:
    """(e) One epoch and a full predict of n memory-mapped rows; peak memory beyond what an untrained fit leaves."""
    import warnings

    warnings.simplefilter("ignore")
    settings = {"init": "random", "random_state": 0, "training": Training(epochs=1)}
    NVISA(**settings).fit(noise(600, 784))  # imports, the allocator's pools
    seconds: dict[str, float] = {}
    train = nvisa.methods.nvisa.maximize

    def timed(*arguments: Any, **keywords: Any) -> Any:
        started = clock()
        history = train(*arguments, **keywords)
        seconds["epoch"] = clock() - started
        return history

    nvisa.methods.nvisa.maximize = timed
    with tempfile.TemporaryDirectory(dir=os.environ.get("PERF_SCRATCH")) as folder:
        path = Path(folder) / "rows.npy"
        written = np.lib.format.open_memmap(path, "w+", np.float32, (n, 784))
        for start in range(0, n, 10_000):
            written[start : start + 10_000] = noise(min(10_000, n - start), 784)
        written.flush()
        del written
        X, model = np.load(path, mmap_mode="r"), NVISA(**settings)

        def run() -> None:
            started = clock()
            model.fit(X)
            seconds["fit"] = clock() - started
            model.predict(X)
            seconds["predict"] = clock() - started - seconds["fit"]

        memory = peak_memory(run)
    nvisa.methods.nvisa.maximize, epoch = train, seconds["epoch"]
    write(f"rows_{n}", [{
        "rows": n, "the file, MB": n * 784 * 4 / 1e6, "peak memory, MB": memory, "fit, s": seconds["fit"],
        "of it the epoch, s": epoch, "us a row: epoch": 1e6 * epoch / n,
        "us a row: the rest of fit": 1e6 * (seconds["fit"] - epoch) / n,
        "us a row: predict": 1e6 * seconds["predict"] / n,
    }], "NVISA(init='random'), consistency, M = 3, 784-500-500: one epoch, one predict; a memory map.")  # fmt: skip


def growth(section: str, name: str, values: tuple[int, ...], make: Callable[[int], tuple[np.ndarray, dict]]) -> None:
    """(e) Time and memory of a step as one size grows."""
    rows = []
    for value in values:
        X, options = make(value)
        epoch = steps(objective_of(X, **options), X)
        memory, seconds = peak_memory(epoch), paired({"": epoch}, 3)[""]
        rows.append({name: value, "ms a step": ms(seconds, len(X) // BATCH), "peak memory, MB": memory})
    write(section, rows, "VIMCO, MLP D-500-500, Z = 10, batch 256; M = 15, K = 10, D = 784 where not said otherwise.")


def time_to(seed: int, goal: float = 0.98) -> None:
    """Seconds until the default recipe's accuracy on test is 98 %, from the curve of its benchmark record on MNIST.

    The record is made where it is missing, by this many threads.
    """
    path = record_path(RECORDS, "mnist", "default", seed)
    if not path.exists():
        write_record(path, run("default", "mnist", seed))
    record = read_record(path)
    joint = [point for point in record["curve"] if point["stage"] == "training"]
    row = {
        "seed": seed, "epochs": len(joint), f"s to {100 * goal:g} % on test":
        next((point["elapsed"] for point in joint if point["accuracy"] >= goal), "not reached"),
        "s before joint training": joint[0]["elapsed"] - joint[0]["seconds"],
        "s of the fit": record["seconds"],
        "accuracy on test at the end, %": 100 * record["metrics"]["test"]["accuracy"],
    }  # fmt: skip
    note = "NVISA() on the 60,000 rows of MNIST, from nothing: importing counts, computing the accuracy does not."
    write(f"time_to_{seed}", [row], note, clock_of="perf_counter", median=True)


SECTIONS: dict[str, Callable[[], None]] = {
    "step": step,
    "plain": plain,
    "em": em,
    "predict": predict,
    "page": page,
    "maps": maps,
    "features": partial(growth, "features", "D", (64, 256, 784, 4096), lambda d: (noise(2 * BATCH, d), {})),
    "clusters": partial(
        growth, "clusters", "K", (2, 10, 100, 500), lambda k: (noise(2 * BATCH, 784), {"n_clusters": k})
    ),
    "samples": partial(
        growth, "samples", "M", (2, 5, 15, 100, 1000), lambda m: (noise(BATCH, 784), {"n_samples": m})
    ),
    "sigma_of_z": partial(
        growth, "sigma_of_z", "M", (2, 15, 100),
        lambda m: (noise(BATCH, 784), {"n_samples": m, "likelihood": "gaussian"}),
    ),
    **{f"rows_{n}": partial(fit_and_predict, n) for n in (10_000, 100_000, 1_000_000)},
}  # fmt: skip
LONG: dict[str, Callable[[], None]] = {f"time_to_{seed}": partial(time_to, seed) for seed in range(5)}
PEERS: dict[str, Callable[[], None]] = {"pyro": pyro, "clustpy": clustpy}
WHOLE: dict[str, Callable[[], None]] = {f"whole_{i}": partial(whole, i, name) for i, name in enumerate(("VaDE", "DEC"))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sections", nargs="+", default=list(SECTIONS), choices=[*SECTIONS, *LONG, *PEERS, *WHOLE])
    parser.add_argument("--again", action="store_true", help="also the sections that have a record")
    asked = parser.parse_args()
    for name in asked.sections:
        if asked.again or not (FOLDER / f"{name}.json").exists():
            print(name, file=sys.stderr, flush=True)
            (SECTIONS | LONG | PEERS | WHOLE)[name]()


if __name__ == "__main__":
    main()
