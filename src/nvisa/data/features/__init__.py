"""Images to feature files by a pretrained backbone.

backbone = load_backbone("efficientnet_lite2")
extract({"x_train": images}, backbone, "features.npz")
"""

from nvisa.data.features.backbones import Backbone
from nvisa.data.features.files import extract
from nvisa.data.features.images import folder_images
from nvisa.data.features.networks import load_backbone

__all__ = ["Backbone", "extract", "folder_images", "load_backbone"]
