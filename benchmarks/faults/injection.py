"""Kill, fill and break the disk at every system call that writes: in fit, save, features, report, predict and bench.

    python benchmarks/faults/injection.py             every call, five faults each; the counts go into a record
    python benchmarks/faults/injection.py --every 9   each ninth point, and no record

A point is one call of one scenario with one fault. Asked of each: is what was there before still there, or what comes
after, whole (else it is *lost*)? Does the same call then run (else it is *refused*), to an equal result (else it is
*unequal*), with nothing left beside it (else there are *leftovers*), and no epoch trained twice but the one that ran
(else *repeated*)?
"""

import argparse
import hashlib
import json
import mmap
import struct
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from faults_common import MODES, cpu, fresh, in_child, keep_record, listing, rows, say, with_faults

FAULTS = with_faults()  # the library comes before all others: this script is started anew

from nvisa import NVISA, Network, Training, load  # noqa: E402
from nvisa.benchmark.records import read_record, write_record  # noqa: E402
from nvisa.commands import cli  # noqa: E402
from nvisa.data.features import Backbone, extract, files  # noqa: E402
from nvisa.fitting import checkpoint  # noqa: E402
from nvisa.report import write_report  # noqa: E402

checkpoint.EVERY = 0.0
files.BLOCK = 3
X = rows()
IMAGES = np.random.RandomState(0).randint(0, 255, (7, 4, 4, 3)).astype(np.uint8)
EPOCHS = mmap.mmap(-1, 8)  # trained so far, seen by all processes


def trained(n: int | None = None) -> int:
    """Epochs trained since it was set."""
    if n is not None:
        EPOCHS[:] = struct.pack("q", n)
    return struct.unpack("q", EPOCHS[:])[0]


def clusterer(seed: int = 0) -> NVISA:
    """Two stages of training, and a start between them."""
    small = {"network": Network(hidden=(8,), latent_dim=2), "training": Training(epochs=3), "consistency": None}
    made = NVISA(3, init="gmm", n_samples=2, random_state=seed, **small)
    return made.on_epoch(lambda *_: trained(trained() + 1))


def bits(model: Any) -> str:
    """A digest of what a model says of the rows."""
    return hashlib.sha256(model.predict_proba(X).tobytes()).hexdigest()


FITTED = clusterer().fit(X)
ALL_EPOCHS = len(FITTED.history_)


@dataclass
class Scenario:
    """What is there first, what is done, and what can be seen of the result by its name: None if it is not there."""

    before: Callable[[Path], None]
    act: Callable[[Path], None]
    seen: Callable[[Path], str | None]


def model_at(path: Path) -> str | None:
    """Bits of the model at this name."""
    return bits(load(path)) if path.exists() else None


def bytes_at(path: Path) -> str | None:
    """Digest of the file at this name."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


def old_model(folder: Path) -> None:
    """A model of another seed, and a file of the user's in its folder."""
    clusterer(seed=1).fit(X).save(folder / "model")
    (folder / "model" / "labels.csv").write_text("mine")


def fit_and_save(folder: Path) -> None:
    """A fit with a checkpoint, then its model."""
    clusterer().fit(X, checkpoint=folder / "run").save(folder / "model")


def save(folder: Path) -> None:
    """A model that is there already, in memory."""
    FITTED.save(folder / "model")


def command(*words: str) -> Callable[[Path], None]:
    """A command of the program; words that begin with @ are in the folder."""

    def act(folder: Path) -> None:
        argv = [str(folder / word[1:]) if word.startswith("@") else word for word in words]
        if code := cli.main(argv):
            raise RuntimeError(f"exit code {code}")

    return act


def with_rows(folder: Path) -> None:
    """Rows as a file, and a model."""
    np.save(folder / "x.npy", X)
    FITTED.save(folder / "model")


def rows_alone(folder: Path) -> None:
    """Rows as a file."""
    np.save(folder / "x.npy", X)


def features(folder: Path) -> None:
    """A feature file of three blocks."""
    mean = Backbone("mean", lambda x: x.mean((2, 3)), weights_digest="none", size=4)
    extract({"X": IMAGES}, mean, folder / "f.npz")


def content(path: Path) -> str | None:
    """Digest of the arrays of an archive, whose file holds times."""
    if not path.exists():
        return None
    with np.load(path) as archive:
        return hashlib.sha256(b"".join(archive[name].tobytes() for name in archive.files)).hexdigest()


def run_record(folder: Path) -> None:
    """A record in place of another."""
    write_record(folder / "digits" / "r.json", {"note": "n" * 5000, "seconds": 2.0})


FIT = ("fit", "@x.npy", "--n-clusters", "3", "--init", "random", "--consistency", "none", "--epochs", "3")
SCENARIOS = {
    "fit with a checkpoint, then save": Scenario(old_model, fit_and_save, lambda f: model_at(f / "model")),
    "nvisa fit --checkpoint": Scenario(
        rows_alone,
        command(*FIT, "--n-samples", "2", "--out", "@model", "--checkpoint", "@run", "--quiet"),
        lambda f: model_at(f / "model"),
    ),
    "save in place of a model": Scenario(
        old_model, lambda f: FITTED.save(f / "model"), lambda f: model_at(f / "model")
    ),
    "save at a new name": Scenario(lambda f: None, lambda f: FITTED.save(f / "model"), lambda f: model_at(f / "model")),
    "features": Scenario(lambda f: None, features, lambda f: content(f / "f.npz")),
    "report": Scenario(
        lambda f: (f / "r.html").write_text("old"),
        lambda f: write_report(FITTED, out=f / "r.html"),
        lambda f: bytes_at(f / "r.html"),
    ),
    "predict to .csv": Scenario(
        with_rows,
        command("predict", "@model", "@x.npy", "--out", "@l.csv", "--proba", "--quiet"),
        lambda f: bytes_at(f / "l.csv"),
    ),
    "predict to .parquet": Scenario(
        with_rows,
        command("predict", "@model", "@x.npy", "--out", "@l.parquet", "--quiet"),
        lambda f: bytes_at(f / "l.parquet"),
    ),
    "sample to .npz": Scenario(
        with_rows, command("sample", "@model", "-n", "9", "--out", "@s.npz", "--quiet"), lambda f: content(f / "s.npz")
    ),
    "bench's record": Scenario(
        lambda f: write_record(f / "digits" / "r.json", {"note": "old", "seconds": 1.0}),
        run_record,
        lambda f: json.dumps(read_record(f / "digits" / "r.json")),
    ),
}


def points(scenario: Scenario, template: Path, folder: Path) -> list[tuple[int, int]]:
    """(number of the call, fault) of every point; only a write can be cut in the middle."""

    def count() -> list[int]:
        FAULTS.faults_arm(str(folder).encode(), 0, 0)
        scenario.act(folder)
        n = FAULTS.faults_count()
        return [FAULTS.faults_is_write(i) for i in range(n + 1)]

    fresh(folder, template)
    end, writes = in_child(count)
    assert end == "done", writes
    return [(i, m) for i in range(1, len(writes)) for m in range(1, len(MODES)) if m != 3 or writes[i]]


def try_point(
    scenario: Scenario, template: Path, folder: Path, reference: dict[str, Any], number: int, mode: int
) -> list[str]:
    """What went wrong at one point."""

    def act() -> None:
        FAULTS.faults_arm(str(folder).encode(), number, mode)
        scenario.act(folder)

    fresh(folder, template)
    trained(0)
    end, _ = in_child(act)
    wrong = ["not killed"] if MODES[mode].startswith("kill") and end != "killed" else []
    end, found = in_child(lambda: after_the_fault(scenario, folder, reference))
    return wrong + (found if end == "done" else [f"crashed ({found})"])


def after_the_fault(scenario: Scenario, folder: Path, reference: dict[str, Any]) -> list[str]:
    """What a new process finds wrong, and what goes wrong when it does the same again."""
    there = seen_or_error(scenario, folder)
    wrong = [] if there in (reference["before"], reference["after"]) else ["lost"]
    try:
        scenario.act(folder)
    except Exception as error:
        say(f"refused: {error}")
        return [*wrong, "refused"]
    checks = {
        "repeated": trained() <= ALL_EPOCHS + 1 or there == reference["after"],  # what had ended is done anew
        "unequal": seen_or_error(scenario, folder) == reference["after"],
        "leftovers": listing(folder) == reference["listing"],
    }
    return wrong + [what for what, is_right in checks.items() if not is_right]


def seen_or_error(scenario: Scenario, folder: Path) -> str | None:
    """What is there by its name; an error if it cannot be read."""
    try:
        return scenario.seen(folder)
    except Exception as error:
        return f"unreadable: {error}"


def inject(name: str, every: int, home: Path) -> dict[str, Any]:
    """All points of a scenario, or each so many-th."""
    scenario, template, folder = SCENARIOS[name], home / "template", home / "work"
    template.mkdir(parents=True)
    end, text = in_child(lambda: scenario.before(template))
    assert end == "done", text
    fresh(folder, template)
    end, before = in_child(lambda: scenario.seen(folder))
    assert end == "done", before
    chosen = points(scenario, template, folder)[::every]
    end, after = in_child(lambda: scenario.seen(folder))
    assert end == "done", after
    reference = {"before": before, "after": after, "listing": listing(folder)}
    found: Counter[str] = Counter()
    for number, mode in chosen:
        for what in (wrong := try_point(scenario, template, folder, reference, number, mode)):
            found[what] += 1
        if wrong:
            say(f"{name}: {MODES[mode]} at call {number}: {', '.join(wrong)}; there: {listing(folder)}")
    modes = Counter(MODES[mode] for _, mode in chosen)
    say(f"{name}: {len(chosen)} points, {dict(found) or 'nothing wrong'}")
    return {"scenario": name, "points": len(chosen), "faults": dict(modes), "wrong": dict(found)}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nvisa_faults_") as home:
        results = [inject(name, asked.every, Path(home).resolve() / str(i)) for i, name in enumerate(asked.only)]
    total = sum(result["points"] for result in results)
    wrong = sum((Counter(result["wrong"]) for result in results), Counter())
    if asked.every == 1 and len(asked.only) == len(SCENARIOS):
        keep_record("injection", {"points": total, "wrong": dict(wrong), "scenarios": results}, cpu())
    say(f"{total} points, {dict(wrong) or 'nothing wrong'}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
