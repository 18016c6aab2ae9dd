"""torch's optimizers without torch's compiler, which they import to tell it to keep off: longer than a small fit.

``inspect.unwrap`` takes the methods as they were before they were decorated for that; each does what torch's does.
"""

from inspect import unwrap

import torch

__all__ = ["LBFGS", "Adam"]


class Adam(torch.optim.Adam):
    """torch's :class:`torch.optim.Adam`, step by step."""

    add_param_group = unwrap(torch.optim.Adam.add_param_group)
    load_state_dict = unwrap(torch.optim.Adam.load_state_dict)
    state_dict = unwrap(torch.optim.Adam.state_dict)
    step = torch.no_grad()(unwrap(torch.optim.Adam.step))
    zero_grad = unwrap(torch.optim.Adam.zero_grad)


class LBFGS(torch.optim.LBFGS):
    """torch's :class:`torch.optim.LBFGS`, step by step."""

    add_param_group = unwrap(torch.optim.LBFGS.add_param_group)
    zero_grad = unwrap(torch.optim.LBFGS.zero_grad)
