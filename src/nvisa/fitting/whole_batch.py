"""A rank's part of a batch, computed as the part of the whole batch that it is.

What is random is drawn for the whole batch on every rank, from equal generators, and each keeps its rows: one process
draws the same. What is no mean over rows is gathered first: batch norm's mean and variance, and whatever asks for
:func:`nvisa.maths.distributions.whole_batch`. Torch asks an active mode before each of its functions
(``torch.overrides``), so no network and no objective knows of ranks.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from nvisa.maths.distributions import whole_batch

__all__ = ["WholeBatch"]

DRAWN, DRAWN_BY_ALL = (torch.rand, torch.randn), (torch.randint, torch.randperm)


class WholeBatch(TorchFunctionMode):
    """Inside, a rank's part of a batch draws and is normalized as the part of the whole batch that it is.

    Parameters
    ----------
    rank
        Of this process.
    bounds
        Where each rank's rows begin, and the end.
    """

    def __init__(self, rank: int, bounds: Sequence[int]) -> None:
        super().__init__()
        self.rank, self.sizes = rank, np.diff(bounds)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """What torch asks before each of its functions."""
        kwargs = kwargs or {}
        if func in DRAWN and kwargs.get("generator") is not None:
            shape = args[0] if isinstance(args[0], (tuple, list)) else args
            return self._drawn(func, tuple(shape), kwargs)
        if func is whole_batch:
            return self.gathered(args[0]) if args[0].dim() else args[0]
        if func is F.batch_norm:
            return self._normalized(*args, **kwargs)
        if kwargs.get("generator") is not None and func not in DRAWN_BY_ALL:
            raise NotImplementedError(f"{getattr(func, '__name__', func)} of a part of a batch, on several ranks")
        return func(*args, **kwargs)

    def _sizes(self, n: int) -> NDArray[np.integer]:
        """Rows of each rank, of a batch of which this one has n: all, or every second one."""
        for sizes in (self.sizes, -(-self.sizes // 2)):
            if sizes[self.rank] == n:
                return sizes
        raise NotImplementedError(f"{n} rows where a rank has {self.sizes[self.rank]} of the batch, on several ranks")

    def _drawn(self, func: Any, shape: tuple[int, ...], kwargs: dict[str, Any]) -> Tensor:
        """The rows of this rank, the last axis but one, of what one process would draw."""
        sizes = self._sizes(shape[-2])
        whole = func((*shape[:-2], int(sizes.sum()), shape[-1]), **kwargs)
        return whole.narrow(-2, int(sizes[: self.rank].sum()), shape[-2]).contiguous()

    def gathered(self, x: Tensor) -> Tensor:
        """The rows of all ranks, in their order; a gradient in them comes back to the rank that they are from."""
        sizes = self._sizes(len(x))
        return _Gathered.apply(x, int(sizes[: self.rank].sum()), int(sizes.sum()))

    def _normalized(
        self, x: Tensor, running_mean: Tensor, running_var: Tensor, weight: Tensor, bias: Tensor,
        training: bool = False, momentum: float = 0.1, eps: float = 1e-5,  # noqa: FBT001, FBT002  torch's own
    ) -> Tensor:  # fmt: skip
        """Batch norm by mean and variance of the whole batch, from those of the parts (Chan, Golub and LeVeque 1983).

        ``N var = sum_r ( n_r var_r + n_r (mean_r - mean)^2 )``
        """
        if not training:
            return F.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
        own, n = x.mean(0), x.new_full((1,), len(x))
        stats = torch.cat([own, (x - own).square().sum(0), n])[None]
        means, squares, n = _Gathered.apply(stats, self.rank, len(self.sizes)).split([x.shape[1], x.shape[1], 1], 1)
        mean = (n * means).sum(0) / n.sum()
        variance = (squares + n * (means - mean).square()).sum(0) / n.sum()
        with torch.no_grad():
            running_mean.lerp_(mean, momentum)
            running_var.lerp_(variance * n.sum() / (n.sum() - 1), momentum)
        return (x - mean) * (variance + eps).rsqrt() * weight + bias


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, start: int, n_rows: int) -> Tensor:
        """Rows of all ranks: zeros elsewhere, and a sum."""
        ctx.place = slice(start, start + len(x))
        whole = x.new_zeros(n_rows, *x.shape[1:])
        whole[ctx.place] = x
        distributed.all_reduce(whole)
        return whole

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """What all ranks' losses have in these rows."""
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(gradient)
        return gradient[ctx.place], None, None
