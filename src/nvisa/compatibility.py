"""What version 0.1's first drafts called things, put into today's names: models, checkpoints and records still load.

A leaf. Everything that is read from a file written before the names changed (schema 1) goes through here once.
"""

from typing import Any

__all__ = ["upgrade_fit", "upgrade_manifest", "upgrade_names", "upgrade_tensors"]

Json = dict[str, Any]
Tensors = dict[str, Any]  # this leaf knows no torch

NAMES = {  # of settings, of fitted attributes, of an epoch's record
    "reparameterise": "reparameterize",
    "pull": "bound_gradient",
    "recognition": "classifier_training",
    "neighbour_information": "neighbor_information",
    "neighbour_information_": "neighbor_information_",
    "neighbour_distance_": "neighbor_distance_",
    "log_q_of_maker": "log_q_of_generated",
}
NVISA_NAMES = {"n_init": "n_restarts", "std_floor": "std_annealing"}  # other methods keep theirs
IMSAT_SETTINGS = ("n_clusters", "consistency", "n_restarts", "network", "training", "random_state", "verbose")
NO_IMSAT = ("start_score_", "std_floor_x_", "std_floor_z_")
IMSAT_NETWORKS = ("module.rescale.", "module.trunk.", "module.y_logits.")
BEFORE: dict[str, Json] = {"Training": {"min_steps": 1, "until_settled": False}, "Network": {"category_weight": 1.0}}
MASKED = 0.3  # what a settled start hid of its autoencoder's inputs


def upgrade_names(value: Any) -> Any:
    """The same JSON with today's names as keys; settings have the fields that they lacked, at what they did without."""
    if isinstance(value, dict):
        new = {NAMES.get(key, key): upgrade_names(item) for key, item in value.items()}
        kind = new.get("$type")
        return BEFORE.get(kind, {}) | new if isinstance(kind, str) else new
    return [upgrade_names(item) for item in value] if isinstance(value, list) else value


def upgrade_fit(fit: Json) -> Json:
    """A fit's ``class`` and ``params``, as manifests of models and checkpoints hold them, in today's names."""
    params = upgrade_names(fit["params"])
    if fit["class"] != "NVISA":
        return fit | {"params": params}
    params = {NVISA_NAMES.get(name, name): value for name, value in params.items()}
    if params.get("inference", "") is None:
        return fit | {"class": "IMSAT", "params": {name: params[name] for name in IMSAT_SETTINGS if name in params}}
    floor = params.get("std_annealing")
    if isinstance(floor, dict):
        floor = floor | {"$type": "StdAnnealing"}
        if floor.pop("settled", False):
            params["init"] = _kept(params["init"])
        params["std_annealing"] = floor
    return fit | {"params": params}


def _kept(init: Any) -> Any:
    """A start that is kept; random weights are none."""
    if isinstance(init, list):
        return [_kept(item) for item in init]
    return init if init == "random" else {"$type": "WarmStart", "init": init, "masked": MASKED}


def upgrade_tensors(tensors: Tensors, kind: str) -> Tensors:
    """The tensors of a model or of a checkpoint's stage in the names of today's networks, of the class ``kind``."""
    named = {_tensor_name(name): tensor for name, tensor in tensors.items()}
    if kind != "IMSAT":
        return named
    # It was NVISA without a bound: what the bound alone needs is left behind.
    ours = (name for name in named if name.startswith(IMSAT_NETWORKS) or not name.startswith(("module.", "objective.")))
    return {name: named[name] for name in ours}


def _tensor_name(name: str) -> str:
    for old, new in (("module.maker.", "module.generator."), ("module.recogniser.", "module.classifier.")):
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def upgrade_manifest(manifest: Json, tensors: Tensors) -> tuple[Json, Tensors]:
    """A model of schema 1, its manifest and its tensors, as this version writes them."""
    fitted = {"precision_": "float32"} | upgrade_names(manifest["fitted"])
    manifest = upgrade_fit(manifest) | {"fitted": fitted, "schema": 2}
    if manifest["class"] == "IMSAT":
        manifest["fitted"] = {n: v for n, v in manifest["fitted"].items() if n not in NO_IMSAT}
    return manifest, upgrade_tensors(tensors, manifest["class"])
