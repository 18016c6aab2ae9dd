"""Images and texts to feature files by a pretrained backbone; several embeddings side by side.

backbone = load_backbone("efficientnet_lite2")
extract({"x_train": images}, backbone, "features.npz")
"""

from nvisa.data.features.backbones import Backbone
from nvisa.data.features.blocks import join, side_by_side
from nvisa.data.features.files import extract
from nvisa.data.features.images import folder_images
from nvisa.data.features.networks import load_backbone
from nvisa.data.features.texts import TextBackbone, load_text_backbone, read_texts

__all__ = [
    "Backbone",
    "TextBackbone",
    "extract",
    "folder_images",
    "join",
    "load_backbone",
    "load_text_backbone",
    "read_texts",
    "side_by_side",
]
