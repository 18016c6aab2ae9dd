"""Images to feature files by a pretrained backbone. A leaf: imports nothing else of nvisa.

backbone = load_backbone("efficientnet_lite2")
extract({"x_train": images}, backbone, "features.npz")
"""

from nvisa.features.backbones import Backbone, load_backbone
from nvisa.features.files import extract
from nvisa.features.images import folder_images

__all__ = ["Backbone", "extract", "folder_images", "load_backbone"]
