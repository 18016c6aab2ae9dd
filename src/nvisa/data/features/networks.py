"""A backbone by its name, or a network of the user's own: an ONNX file, a TorchScript file, a torch module by import.

A TorchScript file may run code as it is read: it is opened only if it is trusted. No pickle is opened. What is imported
is what the user named.
"""

import hashlib
import importlib
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nvisa.data.errors import DataError
from nvisa.data.features.backbones import BACKBONES, Backbone, needed, sha256

__all__ = ["importable_from_here", "load_backbone"]

TORCHSCRIPT = (".pt", ".pth", ".ts")
KINDS = f"an .onnx file, a TorchScript file ({', '.join(TORCHSCRIPT)}) or package.module:factory"


def load_backbone(
    name: str,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    size: int | None = None,
    trust: bool = False,
) -> Backbone:
    """A backbone by its name, or from a network of the user's own.

    Parameters
    ----------
    name
        "efficientnet_lite2", "resnet50"; an .onnx file; a TorchScript file (.pt, .pth, .ts); or
        ``package.module:factory``: a torch module, or a callable that returns one, importable from the current folder.
    mean, std
        What the user's network expects to be subtracted from R, G and B and to divide them, of pixels in 0..1
        (torchvision's convention). By default 127/255 and 128/255: pixels come to lie in [-1, 1].
    size
        Side of the images that the user's network expects. By default the one that its file fixes, else 224.
    trust
        Open a TorchScript file, which can run any code while it is read: say so of files of your own only.

    Raises
    ------
    ValueError
        If it is unknown, not trusted, its packages are not installed, or the preprocessing does not suit it.
    """
    chosen = {key: value for key, value in {"mean": mean, "std": std, "size": size}.items() if value is not None}
    if name not in BACKBONES:
        return _preprocessed(_own(name, size, trust=trust), mean, std)
    if chosen:
        raise ValueError(f"{name}: expected its own preprocessing, got {', '.join(chosen)} too. Try without.")
    return BACKBONES[name]()


def _own(name: str, size: int | None, *, trust: bool) -> Backbone:
    suffix = Path(name).suffix.lower()
    if size is not None and size < 1:
        raise ValueError(f"size: expected a side of at least one pixel, got {size}. Try 224.")
    if suffix != ".onnx" and suffix not in TORCHSCRIPT:
        if ":" in name:
            return _factory(name, size)
        raise ValueError(f"expected a backbone among {', '.join(BACKBONES)}, {KINDS}, got {name!r}.")
    if not Path(name).is_file():
        raise ValueError(f"{name}: expected a file, got nothing there. Check the path.")
    if suffix == ".onnx":
        return _onnx(name, size)
    if not trust:
        raise DataError(
            f"{name}: expected a file that runs no code when it is opened, got TorchScript, which can.",
            "If it is your own, or of somebody whose programs you would run, try {trust}; else ask for an .onnx.",
            trust=True,
        )
    return _torchscript(name, size)


def _preprocessed(backbone: Backbone, mean: Sequence[float] | None, std: Sequence[float] | None) -> Backbone:
    """With a mean and a standard deviation of pixels in 0..1, where they are given."""
    shift = backbone.shift if mean is None else _in_bytes("mean", mean, 0.0)
    scale = backbone.scale if std is None else _in_bytes("std", std, 1e-6)
    return replace(backbone, shift=shift, scale=scale)


def _in_bytes(what: str, values: Sequence[float], low: float) -> tuple[float, float, float]:
    """Numbers of R, G and B for pixels in 0..1 as those for pixels in 0..255."""
    if len(values) != 3 or not all(low <= value <= 1 for value in values):
        raise ValueError(
            f"{what}: expected three numbers, for pixels in 0..1 and so at most 1, got {list(values)}. "
            "Try dividing by 255; torchvision's are 0.485 0.456 0.406 (mean) and 0.229 0.224 0.225 (std)."
        )
    red, green, blue = values
    return 255 * red, 255 * green, 255 * blue


# ---- files ------------------------------------------------------------------------------------------------------


def _onnx(path: str, size: int | None) -> Backbone:
    """The first output of an ONNX file, of its first input [B 3 H W]; a B or H that the file fixes is kept to."""
    with needed(path, "onnx"):
        import onnxruntime  # noqa: PLC0415
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no class of their own
        raise ValueError(f"{path}: expected an ONNX model, got: {error}. Try exporting it again.") from error
    given = session.get_inputs()[0]
    fixed = [n if isinstance(n, int) else None for n in given.shape]  # what is free has a name or None
    sides = {n for n in (*fixed[2:], size) if n is not None}
    if len(fixed) != 4 or fixed[1] not in (3, None) or len(sides) > 1:
        asked = "H = W" if size is None else f"H = W = {size}"
        raise ValueError(
            f"{path}: expected an input [B 3 H W] with {asked}, got {given.shape}. "
            "Try another size, or exporting it channels first."
        )

    def run(x: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {given.name: x.numpy()})[0])

    function = run if fixed[0] is None else _in_batches(run, fixed[0])
    return Backbone(Path(path).name, function, sha256(path), size=sides.pop() if sides else 224)


def _in_batches(function: Callable[[Tensor], Tensor], n: int) -> Callable[[Tensor], Tensor]:
    """A function of batches of n as one of any batch: the last is filled up with zeros."""

    def run(x: Tensor) -> Tensor:
        filled = torch.cat([x, x.new_zeros(-len(x) % n, *x.shape[1:])])
        return torch.cat([function(batch) for batch in filled.split(n)])[: len(x)]

    return run


def _torchscript(path: str, size: int | None) -> Backbone:
    try:
        with warnings.catch_warnings():
            # torch prefers torch.export, whose files are not opened without pickle.
            warnings.filterwarnings("ignore", ".*torch.jit.load", DeprecationWarning)
            module = torch.jit.load(path, map_location="cpu")
    except RuntimeError as error:
        raise ValueError(
            f"{path}: expected a TorchScript file, got another kind. What torch.save writes is not opened, because it "
            "may run code, and weights alone are no network. Try torch.jit.script(module).save(path), or "
            "package.module:factory, a function of yours that returns the module with its weights."
        ) from error
    return Backbone(Path(path).name, module, sha256(path), size=size or 224)


# ---- modules by import --------------------------------------------------------------------------------------------


def _factory(name: str, size: int | None) -> Backbone:
    """A module, or what a callable returns; its random weights, if any, are drawn from a generator of its own."""
    package, _, attribute = name.partition(":")
    try:
        with importable_from_here(), torch.random.fork_rng(devices=[]):
            found = getattr(importlib.import_module(package), attribute)
            module = found if isinstance(found, nn.Module) else found()
    except Exception as error:  # whatever the user's code raises
        raise ValueError(
            f"{name}: expected package.module:factory, a torch module or a callable without arguments that returns "
            f"one, got {type(error).__name__}: {error}. Try `from {package} import {attribute}` in Python."
        ) from error
    if not isinstance(module, nn.Module):
        raise ValueError(f"{name}: expected a torch.nn.Module, got {type(module).__name__}. Try returning the module.")
    return Backbone(name, module.cpu(), _state_digest(module), size=size or 224)


@contextmanager
def importable_from_here() -> Iterator[None]:
    """The current folder first on the path, as for ``python -m``; the program ``nvisa`` has its own folder there."""
    sys.path.insert(0, "")
    try:
        yield
    finally:
        sys.path.remove("")


def _state_digest(module: nn.Module) -> str:
    """SHA-256 of parameters and buffers, names and shapes included."""
    digest = hashlib.sha256()
    state: dict[str, Any] = module.state_dict()
    for name, value in sorted(state.items()):
        if isinstance(value, Tensor):  # not what a module's get_extra_state returned
            digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
