"""Several embeddings of the same rows as one: blocks of columns that count alike."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvisa.data.errors import DataError
from nvisa.durable_files import replacing_file

__all__ = ["join", "side_by_side"]

SPLITS = ("X", "x_train", "x_test")


def side_by_side(
    blocks: Sequence[NDArray[np.floating]], like: Sequence[NDArray[np.floating]] | None = None
) -> NDArray[np.float32]:
    """Embeddings [N D_1], [N D_2], ... as one [N D_1 + D_2 + ...], each with a total variance of one.

    ``(x_b - mean_b) / sqrt( sum_d var_bd )`` side by side: a squared distance of rows is the sum of what each block
    says, and a block of many columns, or of large numbers, says no more than another.

    Parameters
    ----------
    like
        Blocks whose means and variances are taken, such as those of the rows of a fit; None: these.

    Examples
    --------
    >>> import numpy as np
    >>> both = side_by_side([np.array([[0.0], [2.0]]), np.array([[0.0, 0.0], [300.0, 400.0]])])
    >>> both.round(2).tolist()
    [[-1.0, -0.6, -0.8], [1.0, 0.6, 0.8]]
    """
    if len({len(block) for block in blocks}) > 1:
        raise ValueError(f"blocks: expected as many rows in each, got {[len(block) for block in blocks]}.")
    made = []
    for block, own in zip(blocks, like or blocks, strict=True):
        if block.shape[1] != own.shape[1]:
            raise ValueError(f"blocks: expected {own.shape[1]} columns, as those they are like, got {block.shape[1]}.")
        total = np.sqrt(own.var(0, dtype=np.float64).sum()) or 1.0
        made.append((block - own.mean(0, dtype=np.float64)) / total)
    return np.concatenate(made, 1).astype(np.float32)


def join(files: Sequence[str | Path], out: str | Path) -> Path:
    """Write the feature files of the same rows as one; names and labels are those of the first.

    Raises
    ------
    DataError
        If they are not of the same rows.
    """
    contents = [_read(Path(path)) for path in files]
    first = contents[0]
    splits = [split for split in SPLITS if split in first]
    for path, other in zip(files, contents, strict=True):
        if [split for split in SPLITS if split in other] != splits:
            raise DataError(f"{path}: expected the splits {', '.join(splits)}, as {files[0]} has.", "Make both alike.")
        for name in ("names", "y", "y_train", "y_test", *splits):
            known, got = first.get(name), other.get(name)
            same = len(known) == len(got) if name in splits else np.array_equal(known, got)  # type: ignore[arg-type]
            if known is not None and got is not None and not same:
                raise DataError(f"{path}: expected the rows of {files[0]}, in their order; {name} is another.")
    like = [content[splits[0]] for content in contents]
    made = {split: side_by_side([content[split] for content in contents], like) for split in splits}
    about = {
        name: np.array(" + ".join(str(c.get(name, "")) for c in contents)) for name in ("backbone", "preprocessing")
    }
    with replacing_file(Path(out)) as whole, whole.open("wb") as file:
        whole_file: dict[str, Any] = {**first, **made, **about, "weights_digest": np.array("")}
        np.savez(file, **whole_file)
    return Path(out)


def _read(path: Path) -> dict[str, NDArray[Any]]:
    with np.load(path, allow_pickle=False) as archive:
        found = {name: archive[name] for name in archive.files}
    if not any(split in found for split in SPLITS):
        raise DataError(
            f"{path}: expected a feature file, with X or x_train, got {', '.join(found)}.", "Try nvisa features."
        )
    return found
