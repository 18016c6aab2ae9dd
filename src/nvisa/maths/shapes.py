"""The axis alphabet, and the tensor types built on it.

B batch, M samples, K clusters, D features, H hidden units, Z latent dimensions, N rows of a data set.
The tests execute every annotation (jaxtyping + beartype), so a wrong shape here cannot survive.
"""

from typing import TypeAlias

from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["Bool", "Data", "Float", "Int", "Latent", "LogClusters", "PerExample", "PerSample", "Scalar", "Tensor"]

Data: TypeAlias = Float[Tensor, "B D"]
Latent: TypeAlias = Float[Tensor, "M B Z"]
LogClusters: TypeAlias = Float[Tensor, "B K"]
PerExample: TypeAlias = Float[Tensor, " B"]
PerSample: TypeAlias = Float[Tensor, "M B"]
Scalar: TypeAlias = Float[Tensor, ""]
