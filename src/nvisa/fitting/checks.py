"""What settings and data must be: each check raises an error that names the setting, before anything is trained."""

from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_scalar

from nvisa.fitting.training import Training
from nvisa.maths.schedules import Schedule, StdFloor
from nvisa.nets.layers import LIKELIHOODS, Network
from nvisa.nets.rows import blocks

__all__ = [
    "at_least",
    "check_batches",
    "check_likelihood",
    "check_network",
    "check_plain_prior",
    "check_start",
    "check_starts",
    "check_std_floor",
    "check_training",
    "not_negative",
    "one_of",
    "positive",
]

Array = NDArray[np.floating]


def one_of(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Raise a ValueError unless the setting is one of the choices."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}.")


def at_least(name: str, value: object, least: int) -> None:
    """Raise a ValueError unless the setting is a whole number of at least ``least``."""
    if not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}.")


def positive(name: str, value: object) -> None:
    """Raise an error unless the setting is a number above 0."""
    check_scalar(value, name, Real, min_val=0, include_boundaries="neither")


def not_negative(name: str, value: object) -> None:
    """Raise an error unless the setting is a number of at least 0."""
    check_scalar(value, name, Real, min_val=0)


def check_start(init: object, names: tuple[str, ...]) -> None:
    """Raise a ValueError unless ``init`` is one of the names or a fitted clusterer."""
    if isinstance(init, str):
        one_of("init", init, names)
    elif not hasattr(init, "predict_proba"):
        choices = ", ".join(map(repr, names))
        raise ValueError(f"init must be {choices} or a fitted clusterer with predict_proba, got {init!r}.")


def check_starts(starts: tuple[object, ...], names: tuple[str, ...]) -> None:
    """:func:`check_start` for each of the starts that restarts take in turn, of which there is one at least."""
    if not starts:
        raise ValueError("init=() names no start: try 'umap'.")
    for start in starts:
        check_start(start, names)


def check_network(network: Any) -> None:
    """Raise an error unless these are sizes that networks can have."""
    check_scalar(network, "network", Network)
    check_scalar(network.hidden, "Network.hidden", (tuple, list))
    for width in network.hidden or (0,):
        at_least("Network.hidden", width, 1)
    at_least("Network.latent_dim", network.latent_dim, 1)
    at_least("Network.prior_components", network.prior_components, 1)


def check_plain_prior(method: str, network: Network) -> None:
    """Raise a ValueError if the network asks for another p(z|y) than the method has."""
    for name in ("prior_components", "prior_covariance"):
        value, plain = getattr(network, name), getattr(Network(), name)
        if value != plain:
            raise ValueError(f"Network.{name} is NVISA's: {method} expected {plain!r}, got {value!r}. Leave it out.")


def check_training(name: str, training: Training) -> None:
    """Raise an error unless the setting ``name``, a Training, trains."""
    for field in ("epochs", "steps", "max_epochs", "batch_size"):
        value = getattr(training, field)
        at_least(f"{name}: Training.{field}", 1 if field == "epochs" and value is None else value, 1)
    check_scalar(training.learning_rate, f"{name}: Training.learning_rate", (Real, Schedule))
    if not isinstance(training.learning_rate, Schedule):
        not_negative(f"{name}: Training.learning_rate", training.learning_rate)  # 0 leaves a start as it is
    positive(f"{name}: Training.clip_norm", training.clip_norm)


def check_std_floor(floor: Any) -> None:
    """Raise an error unless both std floors are schedules."""
    check_scalar(floor, "std_floor", StdFloor)
    for name in ("x", "z"):
        check_scalar(getattr(floor, name), f"StdFloor.{name}", Schedule)


def check_batches(training: Training, network: Network) -> None:
    """Raise a ValueError if batch norm would be given a batch of one row, which has no deviation."""
    if network.batch_norm and training.batch_size < 3:  # of two, the last batch of an odd number of rows has one
        raise ValueError(
            f"Training.batch_size must be at least 3 with Network.batch_norm, got {training.batch_size}. Try a larger "
            "one, or Network(batch_norm=False)."
        )


def check_likelihood(likelihood: str, X: Array) -> None:
    """Raise a ValueError unless the likelihood is known and the data are what it describes."""
    one_of("likelihood", likelihood, tuple(LIKELIHOODS))
    if likelihood == "bernoulli":
        low, high = np.array([(rows.min(), -rows.max()) for rows in blocks(X)]).min(0) * (1, -1)
        if low < 0 or high > 1:
            raise ValueError(
                f"likelihood='bernoulli' needs data in [0, 1], got {low:g} .. {high:g}: "
                "rescale them, or use likelihood='gaussian_shared'."
            )
