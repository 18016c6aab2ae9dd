"""A fitted clusterer as one function of its rows, for programs without nvisa: ONNX, torch.export, pickle.

    x [N D]  ->  probabilities [N K], latent [N Z], score [N]

in the user's units; scaling, edits and temperature are inside. The score is what ``predict(reject=...)`` compares: the
density of NVISA, of counts and elsewhere how sure the largest probability is, as a logarithm. x is float32,
or float64 where columns lie far from zero: ``origin_`` is subtracted inside.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nvisa.maths.shapes import Data, Float, Tensor
from nvisa.persistence import ModelError
from nvisa.settings import SettingError

__all__ = ["Predictor", "exported", "write_onnx"]

OUTPUTS = ("probabilities", "latent", "score")


class Predictor(nn.Module):
    """``x -> (probabilities, latent, score)`` of a fitted clusterer, a torch module that pickles.

    Parameters
    ----------
    clusterer
        Fitted; what happens to it later is not seen.
    """

    origin: Tensor | None

    def __init__(self, clusterer: Any) -> None:
        super().__init__()
        own = deepcopy(clusterer)  # on the CPU, without a callback
        own.module_ = own.module_.cpu().eval()
        self.networks: Any = own.module_
        origin = getattr(own, "origin_", None)
        self.register_buffer("origin", None if origin is None else torch.from_numpy(origin))
        self._clusterer = [own]  # in a list: its networks are this module's, once

    def forward(self, x: Data) -> tuple[Float[Tensor, "B K"], Float[Tensor, "B Z"], Float[Tensor, " B"]]:
        """Probabilities, latent vectors and scores of rows in the user's units."""
        own = self._clusterer[0]
        if self.origin is not None:
            x = (x - self.origin).float()
        log_q = own._log_q_y(x)
        proba = (log_q / getattr(own, "temperature_", 1.0)).softmax(-1)
        has_density = own.DENSITY_EXPORTS and not self.networks.rescale.has_counts  # ONNX has no gamma function
        score = own._log_density(x) if has_density else log_q.amax(-1)
        return proba, self.networks.encode(x), score


def _some_rows(clusterer: Any) -> Data:
    """Rows that an export follows through the networks."""
    kind = torch.float64 if hasattr(clusterer, "origin_") else torch.float32
    return torch.zeros(3, clusterer.n_features_in_, dtype=kind)


@contextmanager
def _quietly() -> Iterator[None]:
    """Torch's exporter warns of its own insides, which nobody here can mend."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def exported(clusterer: Any) -> Any:
    """The :class:`Predictor` as a ``torch.export.ExportedProgram`` of any number of rows."""
    predictor = Predictor(clusterer).eval()
    rows = _some_rows(clusterer)
    with torch.inference_mode(), _quietly():
        return torch.export.export(predictor, (rows,), dynamic_shapes=({0: torch.export.Dim("rows")},))


def write_onnx(clusterer: Any, path: str | Path) -> None:
    """Write the :class:`Predictor` as ONNX, with input "x" and outputs "probabilities", "latent" and "score".

    Raises
    ------
    SettingError
        If the package onnxscript, which torch exports by, is not installed, or ``path`` ends in something else.
    ModelError
        If torch cannot export the networks.
    """
    if Path(path).suffix != ".onnx":
        raise SettingError("path", "a name ending in .onnx", str(path))
    try:
        import onnxscript  # noqa: F401, PLC0415  an extra
    except ImportError as error:
        raise SettingError("to_onnx", 'used with onnxscript: pip install "nvisa[onnx]"', str(error)) from error
    rows = {0: torch.export.Dim("rows")}
    try:
        with _quietly():
            program: Any = torch.onnx.export(
                Predictor(clusterer).eval(), (_some_rows(clusterer),), dynamo=True, verbose=False,
                dynamic_shapes=(rows,), input_names=["x"], output_names=list(OUTPUTS),
            )  # fmt: skip
    except Exception as error:  # of many classes, most of them torch's own
        raise ModelError(f"{path}: expected networks that torch can export, got {type(error).__name__}.") from error
    program.save(str(path))
