"""Change bytes and values of files that are read: each reader gives what is right, or an error of nvisa's own.

    python benchmarks/faults/mutations.py --n 10000

Two kinds of change, half of each: bytes (a bit, a cut, a piece twice, zeros, a number at its limit), which digests
catch where there are any; and values inside JSON, whose digests are computed anew, so that what follows is tried.
"""

import argparse
import copy
import hashlib
import json
import random
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
from faults_common import RECORDS, cpu, keep_record, rows, say

from nvisa import NVISA, DivergedError, ModelError, Network, Training, load
from nvisa import data as datasets
from nvisa.benchmark.page import write_records_report
from nvisa.benchmark.records import read_record, write_record
from nvisa.benchmark.run import unfinished
from nvisa.data import DataError
from nvisa.fitting import checkpoint
from nvisa.json_values import with_digest

X = rows()
JUNK: list[Any] = [
    None, True, -1, 0, 1e999, -1e308, 2**63, 2**200, "", "x", "\x1b[2J", "<script>", [], {}, [{}], [[]], "__class__",
    {"$type": "VAT"}, {"$float": "nan"}, {"$strings": 3}, [None] * 5, {"a": {"b": {"c": []}}},
]  # fmt: skip


# ---- changes ---------------------------------------------------------------------------------------------------------


def mutated_bytes(content: bytes, rng: random.Random) -> bytes:
    """One change, or a few."""
    out = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        if not out:
            break
        i, n = rng.randrange(len(out)), rng.randrange(1, 64)
        what = rng.randrange(6)
        if what == 0:
            out[i] ^= 1 << rng.randrange(8)
        elif what == 1:
            del out[i:]
        elif what == 2:
            out[i:i] = out[i : i + n]
        elif what == 3:
            out[i : i + n] = bytes(min(n, len(out) - i))
        elif what == 4:
            out[i : i + 8] = rng.choice((b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\0" * 7 + b"\x80"))[: len(out) - i]
        else:
            del out[i : i + n]
    return bytes(out)


def mutated_value(document: Any, rng: random.Random) -> Any:
    """The document with one of its parts gone, or something else."""
    document = copy.deepcopy(document)
    places = list(_places(document))
    for _ in range(rng.choice((1, 1, 2))):
        holder, key = rng.choice(places)
        if isinstance(holder, dict) and key not in holder or isinstance(holder, list) and key >= len(holder):
            continue
        what = rng.randrange(4)
        if what == 0:
            del holder[key]
        elif what == 1 and isinstance(holder[key], (int, float)) and not isinstance(holder[key], bool):
            holder[key] = holder[key] + rng.choice((1, -1, 0.5, 1e6))
        elif what == 2 and isinstance(holder, dict):
            holder[rng.choice(("x", "stage_", key + "_"))] = rng.choice(JUNK)
        else:
            holder[key] = rng.choice(JUNK)
    return document


def _places(value: Any) -> Any:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield value, key
            yield from _places(inner)
    elif isinstance(value, list):
        for i, inner in enumerate(value[:8]):  # of a long list the first are as good as all
            yield value, i
            yield from _places(inner)


def sealed(document: Any) -> bytes:
    """As JSON, with a digest of its own if it is an object."""
    if isinstance(document, dict) and "digest" in document:
        document = with_digest({key: value for key, value in document.items() if key != "digest"})
    return json.dumps(document).encode()


# ---- readers ---------------------------------------------------------------------------------------------------------


def small(epochs: int = 2) -> NVISA:
    """A fit of a tenth of a second."""
    small = {"network": Network(hidden=(8,), latent_dim=2), "training": Training(epochs=epochs), "init": "random"}
    return NVISA(3, consistency=None, n_samples=2, random_state=0, **small)


class Reader:
    """A file of a whole that is changed, and how it is read; ``right`` is what an unchanged one gives."""

    errors: tuple[type[Exception], ...] = (ModelError, DivergedError)

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir()
        self.path = self.prepare()
        self.content = self.path.read_bytes()

    def prepare(self) -> Path:
        """Write a whole; the file to change."""
        raise NotImplementedError

    def read(self) -> None:
        """Read it as a user does."""
        raise NotImplementedError

    def change(self, rng: random.Random) -> bytes:
        """Bytes, or values."""
        if rng.random() < 0.5 and self.path.suffix == ".json":
            return sealed(mutated_value(json.loads(self.content), rng))
        return mutated_bytes(self.content, rng)

    def write(self, content: bytes) -> None:
        """Put the changed file in its place."""
        self.path.write_bytes(content)


class ModelManifest(Reader):
    """manifest.json of a model."""

    def prepare(self) -> Path:
        small().fit(X).calibrate(X).merge(0, 1).save(self.home / "m")
        return self.home / "m" / "manifest.json"

    def read(self) -> None:
        model = load(self.home / "m")
        model.predict(X[:5], reject=0.01 if hasattr(model, "reject_quantiles_") else None)
        model.predict_proba(X[:5])
        model.score_samples(X[:5])


class ModelArrays(ModelManifest):
    """model.safetensors, with a digest that fits in half of the cases."""

    def prepare(self) -> Path:
        super().prepare()
        self.manifest = json.loads((self.home / "m" / "manifest.json").read_bytes())
        return self.home / "m" / "model.safetensors"

    def write(self, content: bytes) -> None:
        self.path.write_bytes(content)
        manifest = self.manifest | {"sha256": hashlib.sha256(content).hexdigest()}
        (self.home / "m" / "manifest.json").write_bytes(sealed(manifest if len(content) % 2 else self.manifest))


class CheckpointManifest(Reader):
    """checkpoint.json."""

    def prepare(self) -> Path:
        checkpoint.EVERY = 0.0
        small().fit(X, checkpoint=self.home / "whole")
        (self.home / "c").mkdir()
        return self.home / "whole" / checkpoint.MANIFEST

    def read(self) -> None:
        small().fit(X, checkpoint=self.home / "c")

    def write(self, content: bytes) -> None:
        shutil.rmtree(self.home / "c")
        shutil.copytree(self.home / "whole", self.home / "c")
        (self.home / "c" / self.path.name).write_bytes(content)


class CheckpointState(CheckpointManifest):
    """The tensors of a stage, with a digest that fits: of other shapes, types and names."""

    def prepare(self) -> Path:
        manifest = super().prepare()
        self.manifest = json.loads(manifest.read_bytes())
        return next((self.home / "whole").glob("*.safetensors"))

    def change(self, rng: random.Random) -> bytes:
        if rng.random() < 0.5:
            return mutated_bytes(self.content, rng)
        tensors = safetensors.torch.load(self.content)
        name = rng.choice(sorted(tensors))
        value = tensors.pop(name)
        what = rng.randrange(4)
        if what == 0:
            tensors[rng.choice((name + "x", "module.x", "tally.labels", "optimizer.99.step", "x"))] = value
        elif what == 1:
            tensors[name] = value.reshape(-1)[: max(value.numel() // 2, 1)].clone()
        elif what == 2:
            tensors[name] = value.double()
        return safetensors.torch.save(tensors)

    def write(self, content: bytes) -> None:
        super().write(b"")
        (self.home / "c" / self.path.name).unlink()
        sha256, manifest = hashlib.sha256(content).hexdigest(), copy.deepcopy(self.manifest)
        for stage in manifest["stages"]:
            stage["sha256"] = sha256
            stage["finished"] = False
            stage["history"] = stage["history"][:1]
        (self.home / "c" / checkpoint.MANIFEST).write_bytes(sealed(manifest))
        (self.home / "c" / f"{sha256}.safetensors").write_bytes(content)


class RecordFile(Reader):
    """A benchmark's record, and every fifth time its page."""

    errors = (ValueError,)

    def prepare(self) -> Path:
        fitted = small().fit(X)
        metrics = {"accuracy": 0.5, "purity": 0.5, "nmi": 0.2, "ari": 0.1}
        record = unfinished("default", "digits", 0) | {"status": "ok", "history": fitted.history_, "seconds": 1.0}
        record |= {"metrics": {"train": metrics}, "n_train": 60, "params": {"n_clusters": 3}}
        write_record(self.home / "r" / "r.json", record)
        self.n = 0
        return self.home / "r" / "r.json"

    def read(self) -> None:
        self.n += 1
        read_record(self.path)
        if self.n % 5 == 0:
            write_records_report([self.path.parent], out=self.home / "page.html")


class Archive(Reader):
    """An .npz of rows and labels."""

    errors = (DataError,)

    def prepare(self) -> Path:
        np.savez_compressed(self.home / "x.npz", X=X, y=np.repeat([0, 1, 2], 20))
        return self.home / "x.npz"

    def read(self) -> None:
        datasets.read_table(self.path)


class Array(Archive):
    """An .npy of rows."""

    def prepare(self) -> Path:
        np.save(self.home / "x.npy", X)
        return self.home / "x.npy"


class Png(Archive):
    """A picture in a folder."""

    def prepare(self) -> Path:
        from PIL import Image

        folder = self.home / "p"
        folder.mkdir()
        Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(folder / "a.png")
        return folder / "a.png"

    def read(self) -> None:
        datasets.read_table(self.path.parent)


READERS: dict[str, Callable[[Path], Reader]] = {
    "model, manifest.json": ModelManifest,
    "model, model.safetensors": ModelArrays,
    "checkpoint, checkpoint.json": CheckpointManifest,
    "checkpoint, a state": CheckpointState,
    "record and its page": RecordFile,
    ".npz": Archive,
    ".npy": Array,
    ".png": Png,
}


def mutate(name: str, n: int, seed: int, home: Path) -> dict[str, Any]:
    """Change a file n times and read it."""
    started, ends, shown = cpu(), Counter[str](), set()
    reader, rng = READERS[name](home), random.Random(seed)
    for _ in range(n):
        content = reader.change(rng)
        reader.write(content)
        try:
            reader.read()
            ends["read"] += 1
        except reader.errors:
            ends["own error"] += 1
        except Exception as error:
            ends["other error"] += 1
            what = f"{type(error).__name__}: {str(error)[:150]}"
            if what not in shown and len(shown) < 20:
                shown.add(what)
                say(f"{name}: {what}")
    say(f"{name}: {dict(ends)}")
    about = {"reader": name, "mutations": n, "seed": seed, "cpu_seconds": round(cpu() - started)}
    return about | {"read": 0, "own error": 0, "other error": 0} | dict(ends)


def keep(result: dict[str, Any]) -> None:
    """Put a reader into the record, beside those that are in it."""
    path = RECORDS / "mutations.json"
    before = json.loads(path.read_text())["readers"] if path.exists() else []
    readers = [each for each in before if each["reader"] != result["reader"]] + [result]
    keep_record("mutations", {"readers": readers}, sum(each["cpu_seconds"] for each in readers))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=READERS, default=list(READERS))
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    results = []
    with tempfile.TemporaryDirectory(prefix="nvisa_mutations_") as home:
        for i, name in enumerate(asked.only):
            results.append(mutate(name, asked.n, asked.seed, Path(home) / str(i)))
            keep(results[-1])
    sys.exit(any(result["other error"] for result in results))


if __name__ == "__main__":
    main()
