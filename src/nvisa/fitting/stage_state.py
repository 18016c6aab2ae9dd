"""The state of a stage of training as tensors: what a checkpoint keeps after an epoch, and puts back."""

from typing import Any

import torch
from torch import Tensor

from nvisa.fitting.run import StageState

__all__ = ["restore_state", "state_tensors"]

Parts = dict[str, dict[str, Tensor]]


def state_tensors(state: StageState) -> dict[str, Tensor]:
    """Copies of all tensors."""
    tensors = {f"module.{name}": value for name, value in state.module.state_dict().items()}
    for i, values in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{name}": value for name, value in values.items()}
    tensors["generator"] = state.generator.get_state()
    for part, other in _others(state).items():
        if hasattr(other, "state_dict"):
            tensors |= {f"{part}.{name}": value for name, value in other.state_dict().items()}
    return {name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}


def restore_state(state: StageState, tensors: dict[str, Tensor]) -> None:
    """Put back what :func:`state_tensors` has copied.

    Raises
    ------
    ValueError
        If a tensor is not of the shape and type that the stage has; others are torch's errors.
    """
    parts: Parts = {part: {} for part in ("module", "optimizer", "generator", *_others(state))}
    for name, value in tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = value
    moments = _moments(state, parts["optimizer"])
    _check_labels(state, parts["tally"])
    state.module.load_state_dict(parts["module"])
    state.optimizer.load_state_dict(state.optimizer.state_dict() | {"state": moments})
    state.generator.set_state(tensors["generator"])
    for part, other in _others(state).items():
        if parts[part]:
            other.load_state_dict(parts[part])


def _moments(state: StageState, tensors: dict[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """Adam's, parameter by parameter; it steps with whatever shape it is given."""
    shapes = [p.shape for group in state.optimizer.param_groups for p in group["params"]]
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        i, _, key = name.partition(".")
        shape = torch.Size() if key == "step" else shapes[int(i)]
        if key not in ("step", "exp_avg", "exp_avg_sq") or value.shape != shape or value.dtype != torch.float32:
            raise ValueError(f"optimizer.{name} has shape {tuple(value.shape)} and type {value.dtype}")
        moments.setdefault(int(i), {})[key] = value
    if wrong := [i for i, found in moments.items() if len(found) != 3 or i < 0]:
        raise ValueError(f"optimizer.{wrong[0]} is not whole")
    return moments


def _check_labels(state: StageState, tensors: dict[str, Tensor]) -> None:
    for name, value in tensors.items():
        if name != "labels" or value.shape != (state.tally.n_rows,) or value.dtype != torch.int32:
            raise ValueError(f"tally.{name} has shape {tuple(value.shape)} and type {value.dtype}")


def _others(state: StageState) -> dict[str, Any]:
    return {"objective": state.objective, "tally": state.tally}
