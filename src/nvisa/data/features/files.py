"""Feature files: vectors of every split, block by block, resumable; an .npz in the end.

<out>.part/job.json        backbone, digest and rows of each split: a part of another job is thrown away
<out>.part/x_train.0.npy   one block of vectors each
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvisa.data.features.backbones import Backbone

__all__ = ["extract"]

Images = NDArray[np.uint8] | Sequence[NDArray[np.uint8]]
Progress = Callable[[str, int, int], None]
BLOCK = 512  # images between two saves


def extract(
    images: Mapping[str, Images],
    backbone: Backbone,
    out: str | Path,
    *,
    labels: Mapping[str, Any] | None = None,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> Path:
    """Write the feature file; a run that was cut goes on at the block where it stopped.

    Parameters
    ----------
    images
        Split to its uint8 images, such as ``{"x_train": [N H W 3], "x_test": ...}``. Sequences of images are sliced.
    labels
        Further arrays of the file, such as ``y_train``.
    progress
        Called as ``progress(split, images done, images in all)`` after every batch.

    Raises
    ------
    ValueError
        If ``out`` is not an .npz, or a split is empty.
    """
    out = Path(out)
    if out.suffix != ".npz" or not out.parent.is_dir():
        raise ValueError(f"{out}: expected an .npz in a folder that exists. Try mkdir, or another name.")
    if empty := [split for split, rows in images.items() if not len(rows)]:
        raise ValueError(f"{', '.join(empty)}: expected images, got none.")
    part = _part(out, images, backbone)
    arrays = {split: _vectors(split, rows, backbone, part, batch_size, progress) for split, rows in images.items()}
    about = {name: np.array(getattr(backbone, name)) for name in ("weights_digest", "preprocessing")}
    whole = part / "whole.npz"
    contents = {**arrays, **(labels or {}), **about, "backbone": np.array(backbone.name)}
    np.savez(whole, **contents)
    os.replace(whole, out)
    shutil.rmtree(part)
    return out


def _part(out: Path, images: Mapping[str, Images], backbone: Backbone) -> Path:
    """The folder of finished blocks: an earlier run's if it was the same job, else an empty one."""
    job = {
        "backbone": [backbone.name, backbone.weights_digest, backbone.preprocessing],
        "splits": {split: [len(rows), _fingerprint(rows)] for split, rows in images.items()},
        "block": BLOCK,
    }
    part = out.with_name(f"{out.name}.part")
    notes = part / "job.json"
    if notes.is_file() and json.loads(notes.read_text()) == job:
        return part
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    notes.write_text(json.dumps(job))
    return part


def _fingerprint(rows: Images) -> str:
    """SHA-256 of a hundred images spread over the split."""
    digest = hashlib.sha256()
    for i in np.linspace(0, len(rows) - 1, min(len(rows), 100)).astype(int):
        digest.update(np.ascontiguousarray(rows[int(i)]).tobytes())
    return digest.hexdigest()


def _vectors(
    split: str,
    rows: Images,
    backbone: Backbone,
    part: Path,
    batch_size: int,
    progress: Progress | None,
) -> NDArray[np.float32]:
    """Every block of a split, computed or found."""
    tell = progress or (lambda *_: None)
    blocks = []
    for start in range(0, len(rows), BLOCK):
        path, stop = part / f"{split}.{start}.npy", min(start + BLOCK, len(rows))
        if path.is_file():
            tell(split, stop, len(rows))
        else:
            batches = []
            for first in range(start, stop, batch_size):
                last = min(first + batch_size, stop)
                batches.append(backbone(rows[first:last]))
                tell(split, last, len(rows))
            unfinished = path.with_suffix(".unfinished.npy")
            np.save(unfinished, np.concatenate(batches))
            os.replace(unfinished, path)
        blocks.append(np.load(path, allow_pickle=False))
    return np.concatenate(blocks)
