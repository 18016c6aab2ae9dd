"""Rows that are images as thumbnails, many in one picture (a sprite), as the page shows them."""

import io
from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvisa.report.encoding import Encoded
from nvisa.report.pictures import as_images

__all__ = ["Thumbnails", "gallery_sprite", "map_sprites"]

Array = NDArray[np.floating[Any]]
SPRITE = 64  # thumbnails in a line of a sprite, and lines
SIDE = 64  # longest side of a thumbnail, in pixels
FORMS = ((1.0, None), (1.0, 20), (0.75, 20), (0.6, 20), (0.5, 20))  # (share of the side, quality) of the map's images


class Thumbnails:
    """How rows become small images: of ``feature_shape``, all on one scale of brightness.

    Parameters
    ----------
    feature_shape
        (H, W) or (H, W, 3).
    limits
        Values of black and white, as :func:`nvisa.report.pictures.brightness` finds them.
    """

    def __init__(self, feature_shape: Sequence[int], limits: tuple[float, float]) -> None:
        self.shape, self.limits = tuple(feature_shape), limits

    def size(self, share: float = 1.0) -> tuple[int, int]:
        """(height, width) in the page: at most ``SIDE``, then times ``share``."""
        height, width = self.shape[:2]
        share *= min(1.0, SIDE / max(height, width))
        return max(4, round(height * share)), max(4, round(width * share))

    def __call__(self, X: Array, size: tuple[int, int] | None = None, columns: int = SPRITE) -> Any:
        """Rows [n D] as one Pillow image, ``columns`` in a line."""
        from PIL import Image  # noqa: PLC0415  of the extra

        height, width = size or self.size()
        small = [
            Image.fromarray((255 * image).round().astype(np.uint8)).resize((width, height), Image.Resampling.BOX)
            for image in as_images(X, self.shape, limits=self.limits)
        ]
        lines = -(-len(small) // columns)
        whole = Image.new(small[0].mode, (columns * width, lines * height))
        for i, image in enumerate(small):
            whole.paste(image, (i % columns * width, i // columns * height))
        return whole


def _url(image: Any, quality: int | None) -> str:
    """A WebP image as a URL; ``quality=None`` loses nothing."""
    file = io.BytesIO()
    image.save(file, "webp", method=2, **({"lossless": True} if quality is None else {"quality": quality}))
    return f"data:image/webp;base64,{b64encode(file.getvalue()).decode()}"


def gallery_sprite(X: Array, draw: Thumbnails, columns: int = 32) -> Encoded:
    """The images of a gallery in one, in good quality; small ones as they are."""
    height, width = draw.size()
    url = _url(draw(X, columns=columns), None if height * width <= 1024 else 80) if len(X) else ""
    return {"url": url, "columns": columns, "lines": -(-len(X) // columns), "height": height, "width": width}


def map_sprites(take: Callable[[slice], Array], n_rows: int, draw: Thumbnails, budget: int) -> Encoded:
    """Images of n_rows rows for the map's hover, within a budget of bytes.

    Their form is the first of ``FORMS`` at which the first thousand promise to keep the budget; if none does,
    as many rows as fit have an image. ``take`` gives the rows [n D] of a slice.
    """
    first = take(slice(0, 1024))
    for share, quality in FORMS:
        size = draw.size(share)
        per_image = len(_url(draw(first, size), quality)) / len(first)
        if per_image * n_rows <= budget:
            break
    n_shown = min(n_rows, int(budget / per_image))
    parts = [slice(start, min(start + SPRITE * SPRITE, n_shown)) for start in range(0, n_shown, SPRITE * SPRITE)]
    urls = [_url(draw(take(part), size), quality) for part in parts]
    return {"urls": urls, "columns": SPRITE, "n": n_shown, "height": size[0], "width": size[1]}
