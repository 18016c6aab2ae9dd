"""Feature files: vectors of every split, block by block, resumable; an .npz in the end.

<out>.part/job.json                 backbone, digest and rows of each split: a part of another job is thrown away
<out>.part/x_train.0.<sha256>.npy   one block of vectors each; a changed one is computed again
<out>.part/.lock                    who is at it
"""

import glob
import hashlib
import io
import json
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvisa.data.features.backbones import Backbone
from nvisa.data.features.texts import TextBackbone
from nvisa.durable_files import locked, replacing_file, write_file
from nvisa.json_values import parse
from nvisa.reading import read_file

__all__ = ["extract", "part_of"]

Images = NDArray[np.uint8] | Sequence[NDArray[np.uint8]] | Sequence[str]  # or texts
Progress = Callable[[str, int, int], None]
BLOCK = 512  # images between two saves
LOCK = ".lock"


def extract(
    images: Mapping[str, Images],
    backbone: Backbone | TextBackbone,
    out: str | Path,
    *,
    labels: Mapping[str, Any] | None = None,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> Path:
    """Write the feature file; a run that was cut goes on at the block where it stopped. One process at a time.

    Parameters
    ----------
    images
        Split to its uint8 images, such as ``{"x_train": [N H W 3], "x_test": ...}``; or to its texts, for a backbone of
        texts. Sequences are sliced.
    labels
        Further arrays of the file, such as ``y_train``.
    progress
        Called as ``progress(split, images done, images in all)`` after every batch.

    Raises
    ------
    ValueError
        If ``out`` is not an .npz, or a split is empty.
    LockedError
        If another process makes the same file.
    """
    out = Path(out)
    if out.suffix != ".npz" or not out.parent.is_dir():
        raise ValueError(f"{out}: expected an .npz in a folder that exists. Try mkdir, or another name.")
    if empty := [split for split, rows in images.items() if not len(rows)]:
        raise ValueError(f"{', '.join(empty)}: expected images, got none.")
    part = part_of(out)
    part.mkdir(exist_ok=True)
    with locked(part / LOCK):
        _start(part, images, backbone)
        arrays = {split: _vectors(split, rows, backbone, part, batch_size, progress) for split, rows in images.items()}
        about = {name: np.array(getattr(backbone, name)) for name in ("weights_digest", "preprocessing")}
        contents = {**arrays, **(labels or {}), **about, "backbone": np.array(backbone.name)}
        with replacing_file(out) as whole, whole.open("wb") as file:
            np.savez(file, **contents)
        try:
            shutil.rmtree(part)
        except OSError as error:
            warnings.warn(f"{part} is not needed any more, and cannot be removed: {error}.", stacklevel=2)
    return out


def part_of(out: Path) -> Path:
    """The folder of the finished blocks of a file that is not finished."""
    return out.with_name(f"{out.name}.part")


def _start(part: Path, images: Mapping[str, Images], backbone: Backbone | TextBackbone) -> None:
    """Keep the finished blocks of an earlier run if it was the same job, else remove them."""
    job = {
        "backbone": [backbone.name, backbone.weights_digest, backbone.preprocessing],
        "splits": {split: [len(rows), _fingerprint(rows)] for split, rows in images.items()},
        "block": BLOCK,
    }
    notes = part / "job.json"
    try:
        if parse(read_file(notes)) == job:
            return
    except (FileNotFoundError, ValueError):  # damaged notes are nobody's
        pass
    for old in part.iterdir():
        if old.name != LOCK:
            old.unlink()
    write_file(notes, json.dumps(job).encode())


def _fingerprint(rows: Images) -> str:
    """SHA-256 of a hundred images spread over the split."""
    digest = hashlib.sha256()
    for i in np.linspace(0, len(rows) - 1, min(len(rows), 100)).astype(int):
        digest.update(np.ascontiguousarray(rows[int(i)]).tobytes())
    return digest.hexdigest()


def _vectors(
    split: str,
    rows: Images,
    backbone: Backbone | TextBackbone,
    part: Path,
    batch_size: int,
    progress: Progress | None,
) -> NDArray[np.float32]:
    """Every block of a split, computed or found."""
    tell = progress or (lambda *_: None)
    blocks = []
    for start in range(0, len(rows), BLOCK):
        stop = min(start + BLOCK, len(rows))
        block = _found(part, f"{split}.{start}")
        if block is not None:
            tell(split, stop, len(rows))
        else:
            batches = []
            for first in range(start, stop, batch_size):
                last = min(first + batch_size, stop)
                batches.append(backbone(rows[first:last]))
                tell(split, last, len(rows))
            block = np.concatenate(batches)
            _keep(part, f"{split}.{start}", block)
        blocks.append(block)
    return np.concatenate(blocks)


def _keep(part: Path, name: str, block: NDArray[np.float32]) -> None:
    file = io.BytesIO()
    np.save(file, block, allow_pickle=False)
    content = file.getvalue()
    write_file(part / f"{name}.{hashlib.sha256(content).hexdigest()}.npy", content)


def _found(part: Path, name: str) -> NDArray[np.float32] | None:
    """A finished block, if its bytes are those that were written; others are removed."""
    for path in part.glob(f"{glob.escape(name)}.*.npy"):
        content = read_file(path)
        if path.name == f"{name}.{hashlib.sha256(content).hexdigest()}.npy":
            found: NDArray[np.float32] = np.load(io.BytesIO(content), allow_pickle=False)
            return found
        path.unlink()
    return None
