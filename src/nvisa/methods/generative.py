"""What methods that make rows or have a density add: sample, score_samples, reconstruct, prototypes."""

from abc import abstractmethod
from typing import Annotated, Any

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted

from nvisa.fitting.edits import n_before, sources
from nvisa.maths.bounds import importance_sampled
from nvisa.maths.shapes import Data, Float, PerExample, PerSample, Tensor
from nvisa.methods.base import DeepClusterer
from nvisa.methods.fitted import Array
from nvisa.methods.input import Rows
from nvisa.methods.lazily import lazy_of_dask
from nvisa.nets.layers import LIKELIHOODS, generator_from
from nvisa.nets.rows import Source, map_blocks
from nvisa.settings import AtLeast, NotNegative, OneOf, SettingError

__all__ = ["CodingClusterer", "GenerativeClusterer", "SamplingClusterer"]


class SamplingClusterer(DeepClusterer):
    """sample, for methods that make rows of a given cluster."""

    @abstractmethod
    def _draw(self, y: Tensor, generator: torch.Generator, *, noise: bool) -> Data:
        """x of the given clusters in the user's units; ``noise=False``: the mean of p(x|z)."""

    def _draw_y(self, n: int, rng: RandomState) -> NDArray[np.int64]:
        """n clusters ``y ~ p(y)``: uniform, unless the method says otherwise."""
        return rng.randint(n_before(self._n_found, getattr(self, "edits_", [])), size=n)

    def sample(
        self,
        n_samples: int = 1,
        *,
        cluster: int | None = None,
        noise: bool = True,
        random_state: object = None,
    ) -> tuple[Rows, NDArray[np.int64]]:
        """Draw ``y ~ p(y)``, ``z ~ p(z|y)``, ``x ~ p(x|z)`` (slides, "Sample Generation").

        Parameters
        ----------
        n_samples
            Number of rows.
        cluster
            Draw from this cluster only.
        noise
            False returns the mean of p(x|z) in place of a draw: what pictures show.
        random_state
            Seed; by default the clusterer's own.

        Returns
        -------
        X : ndarray of shape (n_samples, D)
            A data frame, where the fit's had categories; so of ``reconstruct``, ``impute`` and ``prototypes``.
        y : ndarray of shape (n_samples,)
        """
        check_is_fitted(self)
        if n_samples < 1:
            raise ValueError(f"n_samples must be at least 1, got {n_samples}.")
        if cluster is not None and not 0 <= cluster < self._n_found:
            raise ValueError(f"cluster must be in 0..{self._n_found - 1}, got {cluster}.")
        rng = check_random_state(self.random_state if random_state is None else random_state)
        drawn = self._draw_y(n_samples, rng) if cluster is None else np.full(n_samples, cluster)
        y, drawn = self._edited_y(drawn, rng, asked=cluster is not None)
        with torch.inference_mode():
            x = self._draw(torch.from_numpy(drawn), generator_from(rng), noise=noise)
        return self._as_given(x.cpu().numpy()), y

    def _edited_y(
        self, y: NDArray[np.int64], rng: RandomState, *, asked: bool
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(clusters as they are now, clusters of the fit), of which ``y`` is the former if ``asked``, else the latter.

        A merged cluster is drawn as each of its parts equally often, a part of a split one as the whole.
        """
        if not (edits := getattr(self, "edits_", [])):
            return y, y
        made_of = sources(n_before(self.n_clusters_, edits), edits)
        if asked:
            return y, np.array([made_of[k][rng.randint(len(made_of[k]))] for k in y])
        while (gone := ~np.isin(y, np.concatenate(made_of))).any():  # p(y) of those that were not dropped
            y = np.where(gone, self._draw_y(len(y), rng), y)
        holders = [[k for k, parts in enumerate(made_of) if c in parts] for c in range(max(map(max, made_of)) + 1)]
        return np.array([holders[c][rng.randint(len(holders[c]))] for c in y]), y


class GenerativeClusterer(SamplingClusterer):
    """score_samples, score and reconstruct, for methods with a density p(x).

    Parameters
    ----------
    likelihood
        p(x|z). "gaussian_shared": a learned deviation per feature, which all z share; "gaussian": sigma_x(z);
        "gaussian_unit": deviation 1 (squared error); "bernoulli": for x in [0, 1].
    """

    likelihood: Annotated[Any, OneOf(*LIKELIHOODS)] = "gaussian_shared"

    @abstractmethod
    def _log_p_x(self, x: Data) -> PerExample:
        """``log p(x)`` in the units of x, deterministic."""

    @abstractmethod
    def _reconstruct(self, x: Data) -> Data:
        """The mean of p(x|z) at the latent vector of each row."""

    def _decode(self, z: Float[Tensor, "B Z"]) -> Data:
        """``E[p(x|z)]`` in the user's units."""
        return self.module_.draw(z, None, self.std_floor)

    def _prototypes(self) -> Float[Tensor, "K D"] | None:
        """The mean of p(x|z) at ``z = mu_y``; None for a prior whose clusters have no middle."""
        return None

    def _log_density(self, x: Data) -> PerExample:
        """What ``predict(reject=...)`` goes by: ``log p(x)``, or what puts rows in nearly the same order for less."""
        return self._log_p_x(x)

    @lazy_of_dask
    def score_samples(self, X: Rows) -> Array:
        """``log p(x)`` of each row [N], in nats: low for what the model finds unlikely."""
        return self._stream(self._log_p_x, X)

    def score(self, X: Rows, y: object = None) -> float:
        """Mean of :meth:`score_samples`."""
        return float(self.score_samples(X).mean())

    def reconstruct(self, X: Rows) -> Rows:
        """``E[p(x|z)]`` at ``z = transform(X)`` [N D]."""
        return self._as_given(self._stream(self._reconstruct, X))

    def impute(self, X: Rows) -> Rows:
        """X with its gaps (NaN) filled by ``E[p(x|z)]`` at ``z = transform(X)``; what is observed stays [N D].

        Examples
        --------
        >>> import numpy as np
        >>> from nvisa import NVISA, Training
        >>> X = np.repeat([[0.0, 0.0], [9.0, 9.0]], 20, 0) + np.random.default_rng(0).normal(size=(40, 2))
        >>> X[0, 1] = np.nan
        >>> model = NVISA(2, init="random", training=Training(epochs=5), random_state=0).fit(X)
        >>> bool(np.isnan(model.impute(X)).any())
        False
        """
        filled = self._stream(lambda x: torch.where(x.isnan(), self._reconstruct(x), x), X)
        return self._as_given(filled)

    def decode(self, z: Rows) -> Rows:
        """``E[p(x|z)]`` of latent vectors [n Z], in the user's units [n D]: what :meth:`transform` gives goes back."""
        check_is_fitted(self)
        z = check_array(z, dtype=[np.float64, np.float32])
        if z.shape[1] != self.module_.latent_dim:
            raise ValueError(
                f"z: expected {self.module_.latent_dim} columns, as transform gives them, got {z.shape[1]}."
            )
        found = map_blocks(self._decode, Source(z, self.module_.rescale.shift.device))
        return self._as_given(found.astype(z.dtype, copy=False))

    def interpolate(self, a: Rows, b: Rows, *, n_steps: int = 8) -> Rows:
        """Rows on the straight way from row ``a`` to row ``b`` [D] in latent space [n_steps D], with both ends."""
        if not AtLeast(2).allows(n_steps):
            raise SettingError("n_steps", AtLeast(2).expected, n_steps)
        ends = self.transform(np.stack([np.asarray(a), np.asarray(b)]))
        return self.decode(np.linspace(ends[0], ends[1], n_steps))

    def prototypes(self) -> Rows | None:
        """``E[p(x|z)]`` at ``z = mu_y``, the middle of each cluster [K D]; None for a prior without middles."""
        check_is_fitted(self)
        with torch.inference_mode():
            x = self._prototypes()
        if x is None:
            return None
        middles, edits = x.cpu().numpy(), getattr(self, "edits_", [])
        return self._as_given(middles[[parts[0] for parts in sources(len(x), edits)]] if edits else middles)


class CodingClusterer(GenerativeClusterer):
    """Methods with one q(z|x), whatever the cluster: an ``Autoencoder`` as ``module_``, and p(z) in closed form.

    Parameters
    ----------
    std_floor
        Least deviation of p(x|z), in the networks' units. Constant features would drive it to zero.
    """

    std_floor: Annotated[float, NotNegative] = 0.1

    @abstractmethod
    def _log_p_z(self, z: Float[Tensor, "M B Z"]) -> PerSample:
        """``log p(z)``, the clusters summed exactly."""

    def _reconstruct(self, x: Data) -> Data:
        return self.module_.draw(self.module_.code(x), None, self.std_floor)

    def _log_p_x(self, x: Data) -> PerExample:
        """``log 1/S sum_s p(x|z_s) p(z_s) / q(z_s|x)``, ``z_s ~ q(z|x)``."""
        loc, scale = self.module_.encoder.q_z(x)

        def log_joint(z: Float[Tensor, "M B Z"]) -> PerSample:
            return self.module_.log_p_x_given_z(x, z, self.std_floor) + self._log_p_z(z)

        return importance_sampled(log_joint, loc[None], scale[None])[0] + self.module_.rescale.log_det(x)
