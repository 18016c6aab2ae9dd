"""GM-GAN: a generative adversarial network whose latent vectors come from a mixture of K Gaussians.

    y ~ Uniform{1..K},  e ~ N(0, I),  z = A_y e + mu_y,  x = G(z)
    static latent:  mu_y ~ Uniform[-c, c]^Z and A_y = sigma I stay as they were drawn
    dynamic latent: mu_y and A_y start there and are trained with G, through z
    discriminator:  max_D  E log s(D(x)) + E log s(-D(G(z)))           s the logistic function
    generator:      max_G  E log s(D(G(z)))                            non-saturating
    classifier:     max_R  E log q(y|G(z)) - E ||z - m(G(z))||^2 / (2 Z sigma^2)
    cluster of x  = argmax_y q(y|x)

Nothing rewards a Gaussian for making one kind of x: that it does so is what the paper observes and uses.

Source: Ben-Yosef, Weinshall, "Gaussian Mixture Generative Adversarial Networks for Diverse Datasets, and
the Unsupervised Clustering of Images", 2018 (arXiv:1808.10356). Only its abstract and reports of others
were at hand: what that leaves open, and every deviation, is listed in docs/methods/gm_gan.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from nvisa.fitting.optimizers import Adam
from nvisa.fitting.run import FitResult, Run
from nvisa.fitting.training import StepOutput, Training, maximize, optimizer_step
from nvisa.maths.bounds import scaled_gradient
from nvisa.maths.schedules import Constant
from nvisa.maths.shapes import Data, Float, Int, LogClusters, PerExample, Tensor
from nvisa.methods.fitted import Record
from nvisa.methods.generative import SamplingClusterer
from nvisa.nets.convolutions import ImageShape, body, check_image_shape, mirror
from nvisa.nets.layers import Network, build
from nvisa.nets.priors import FactorPrior
from nvisa.nets.units import Rescale
from nvisa.settings import InstanceOf, NotNegative, OneOf, Positive

__all__ = ["GMGAN", "Game", "FactorPrior", "Networks", "discriminate", "gradient_penalty", "classifier_terms"]

BETAS = (0.5, 0.999)  # of Adam in the game: DCGAN's


# ---- objectives ------------------------------------------------------------------------------------------------------


def discriminate(real: PerExample, fake: PerExample) -> PerExample:
    """``log s(D(x)) + log s(-D(G(z)))`` from the logits of real and made rows, maximized in D."""
    return F.logsigmoid(real) + F.logsigmoid(-fake)


def gradient_penalty(logit: PerExample, x: Data) -> PerExample:
    """``||dD/dx||^2 / 2`` at real rows: R1 of Mescheder, Geiger, Nowozin (ICML 2018, eq. 9), its weight left out."""
    (slope,) = torch.autograd.grad(logit.sum(), x, create_graph=True)
    return 0.5 * slope.square().sum(-1)


def log_q_of(log_q_y: LogClusters, y: Int[Tensor, " B"]) -> PerExample:
    """``log q(y|x)`` of the given y."""
    return -F.nll_loss(log_q_y, y, reduction="none")


def classifier_terms(
    log_q_y: LogClusters, m: Float[Tensor, "B Z"], y: Int[Tensor, " B"], z: Float[Tensor, "B Z"], scale: float
) -> dict[str, PerExample]:
    """``log q(y|x)`` and ``-||z - m(x)||^2 / (2 Z sigma^2)``: their means are largest at p(y|x) and at E[z|x]."""
    return {
        "log_q_of_generated": log_q_of(log_q_y, y),
        "minus_code_error": -0.5 * ((z - m) / scale).square().mean(-1),
    }


# ---- networks --------------------------------------------------------------------------------------------------------


class Discriminator(nn.Module):
    """``D(x)``, the logit that a row (networks' units) is real; it serves the game and is thrown away."""

    def __init__(self, n_features: int, network: Network, image_shape: ImageShape) -> None:
        super().__init__()
        self.trunk, n_hidden = body(n_features, network, image_shape)
        self.logit = nn.Linear(n_hidden, 1)

    def forward(self, x: Data) -> PerExample:
        """Return the logits."""
        return self.logit(self.trunk(x))[:, 0]


class Generator(nn.Module):
    """The latent mixture and G: what plays against the discriminator."""

    def __init__(
        self, n_features: int, n_clusters: int, network: Network, image_shape: ImageShape, *, dynamic: bool
    ) -> None:
        super().__init__()
        self.latent = FactorPrior(n_clusters, network.latent_dim, dynamic=dynamic)
        self.decoder = mirror(n_features, network, image_shape)

    def draw(self, n: int, generator: torch.Generator) -> tuple[Int[Tensor, " B"], Float[Tensor, "B Z"], Data]:
        """n triples y, z, G(z), the last in the networks' units."""
        y = torch.randint(len(self.latent.loc), (n,), generator=generator).to(self.latent.loc.device)
        z = self.latent.draw(y, generator)
        return y, z, self.decoder(z)


class Classifier(nn.Module):
    """``q(y|x)`` and ``m(x)``, which stands for ``E[z|x]``; x in the networks' units."""

    def __init__(self, n_features: int, n_clusters: int, network: Network, image_shape: ImageShape) -> None:
        super().__init__()
        self.trunk, n_hidden = body(n_features, network, image_shape)
        self.y_logits = nn.Linear(n_hidden, n_clusters)
        self.z_loc = nn.Linear(n_hidden, network.latent_dim)

    def forward(self, x: Data) -> tuple[LogClusters, Float[Tensor, "B Z"]]:
        """Return ``log q(y|x)`` and ``m(x)``."""
        h = self.trunk(x)
        return self.y_logits(h).log_softmax(-1), self.z_loc(h)


class Networks(nn.Module):
    """What a fit keeps: the generator and the classifier."""

    def __init__(
        self, rescale: Rescale, n_clusters: int, network: Network, image_shape: ImageShape, *, dynamic: bool
    ) -> None:
        super().__init__()
        n_features = len(rescale.shift)
        self.latent_dim, self.rescale = network.latent_dim, rescale
        self.generator = Generator(n_features, n_clusters, network, image_shape, dynamic=dynamic)
        self.classifier = Classifier(n_features, n_clusters, network, image_shape)

    def log_q_y(self, x: Data) -> LogClusters:
        """``log q(y|x)`` of rows in the user's units."""
        return self.classifier(self.rescale(x))[0]

    def encode(self, x: Data) -> Float[Tensor, "B Z"]:
        """``m(x)`` of rows in the user's units."""
        return self.classifier(self.rescale(x))[1]

    @torch.no_grad()
    def permute(self, order: Int[Tensor, " K"]) -> None:
        """Renumber the clusters: new cluster i is old cluster ``order[i]``."""
        self.generator.latent.permute(order)
        for table in (self.classifier.y_logits.weight, self.classifier.y_logits.bias):
            table.copy_(table[order])


# ---- training --------------------------------------------------------------------------------------------------------


@dataclass
class Game:
    """The generator's objective of a batch, after the discriminator's step on the same batch."""

    networks: Networks
    discriminator: Discriminator
    training: Training
    penalty: float
    information: float
    generator: torch.Generator

    def __post_init__(self) -> None:
        rate = self.training.rate(0.0)
        self.optimizer = Adam(self.discriminator.parameters(), lr=rate, betas=BETAS, fused=True)

    def __call__(self, x: Data, rows: np.ndarray, fraction: float) -> StepOutput:
        """``log s(D(G(z)))`` of as many drawn z as ``x`` (user's units) has rows."""
        y, _, made = self.networks.generator.draw(len(x), self.generator)
        self.optimizer.param_groups[0]["lr"] = self.training.rate(fraction)
        loss = self.discriminator_objective(self.networks.rescale(x), made.detach())
        optimizer_step(loss, self.optimizer, list(self.discriminator.parameters()), self.training.clip_norm)
        fooled = F.logsigmoid(self.discriminator(made))
        terms = {"log_fooled": fooled, **loss.terms}
        if self.information == 0:
            return StepOutput(fooled, terms)
        log_q_y, _ = self.networks.classifier(scaled_gradient(made, self.information))
        terms["log_q_of_generated"] = log_q_of(log_q_y, y)
        return StepOutput(fooled + terms["log_q_of_generated"], terms, log_q_y, made=True)

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint keeps: the discriminator, and what its optimizer remembers of each parameter."""
        memory = self.optimizer.state_dict()["state"]
        return {f"discriminator.{name}": value for name, value in self.discriminator.state_dict().items()} | {
            f"{i}.{name}": value for i, values in memory.items() for name, value in values.items()
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take it back."""
        memory: dict[int, dict[str, Tensor]] = {}
        weights = {}
        for key, value in state.items():
            owner, name = key.split(".", 1)
            if owner == "discriminator":
                weights[name] = value
            else:
                memory.setdefault(int(owner), {})[name] = value
        self.discriminator.load_state_dict(weights)
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": memory})

    def discriminator_objective(self, real: Data, made: Data) -> StepOutput:
        """The discriminator's objective, both kinds of row in the networks' units."""
        real.requires_grad_(self.penalty > 0)
        real_logit = self.discriminator(real)
        value = discriminate(real_logit, self.discriminator(made))
        terms = {"log_told_apart": value.detach()}
        if self.penalty > 0:
            steepness = gradient_penalty(real_logit, real)
            value, terms = value - self.penalty * steepness, terms | {"gradient_penalty": steepness.detach()}
        return StepOutput(value, terms)


class GMGAN(SamplingClusterer):
    """Gaussian-mixture generative adversarial network.

    Parameters
    ----------
    latent
        "static": mu_y and A_y stay as they were drawn; "dynamic": they are trained.
    separation, scale
        The latent mixture's start: distance of two means in standard deviations (root mean square), and the deviation
        sigma. 5.4 is what the paper's c = 0.1 and sigma = 0.15 make at Z = 100; a small Z needs a larger c.
    image_shape
        (H, W) or (H, W, C), sides divisible by ``2 ** len(network.hidden)``: convolutional networks, and the data's
        range mapped to [-1, 1]. None: perceptrons for rows of any kind.
    information
        Weight of log q(y|G(z)) in the generator's own objective: InfoGAN's term, not the paper's. 0: the paper.
    penalty
        Weight of the discriminator's squared slope at real rows (R1), about 10 for images; 0: the plain game of the
        paper.
    classifier_training
        Schedule of the classifier; None: a quarter of ``training``.
    network, training
        Sizes (with ``image_shape``, ``hidden`` are the channels of convolutions; the generator mirrors them, and
        ``batch_norm`` is the generator's), and schedule of the game; None: see ``DEFAULT_NETWORK`` and
        ``DEFAULT_TRAINING``.

    Examples
    --------
    >>> from nvisa import Training
    >>> from sklearn.datasets import load_iris
    >>> X = load_iris().data
    >>> short = Training(epochs=5)
    >>> model = GMGAN(3, training=short, classifier_training=short, random_state=0).fit(X)
    >>> model.sample(5, cluster=0)[0].shape
    (5, 4)
    """

    RENAMED: ClassVar = {"recognition": "classifier_training"}
    TAKES_SPARSE = False  # images
    DEFAULT_NETWORK = Network(hidden=(256, 256), latent_dim=20, batch_norm=False)
    DEFAULT_TRAINING = Training(steps=10_000, max_epochs=400, batch_size=64, learning_rate=Constant(2e-4))

    latent: Annotated[str, OneOf("static", "dynamic")] = "static"
    separation: Annotated[float, NotNegative] = 5.4
    scale: Annotated[float, Positive] = 0.15
    image_shape: ImageShape = None
    information: Annotated[float, NotNegative] = 0.0
    penalty: Annotated[float, NotNegative] = 0.1
    classifier_training: Annotated[Training | None, InstanceOf(Training, None)] = None

    def _check_data(self, X: Any) -> None:
        if self.image_shape is not None:
            check_image_shape(self.image_shape, X.shape[1], len(self._network.hidden))

    def _networks(self, rescale: Rescale, fitted: Mapping[str, Any] | None = None) -> Networks:
        dynamic = self.latent == "dynamic"
        return Networks(rescale, self.n_clusters, self._network, self.image_shape, dynamic=dynamic)

    @property
    def _scaling(self) -> str:
        """Of images, the data's range to [-1, 1]."""
        return super()._scaling if self.image_shape is None else "range"

    def _fit_once(self, run: Run) -> FitResult:
        net = run.module
        net.generator.latent.start(self.separation, self.scale, run.generator)
        discriminator = build(
            lambda: Discriminator(run.X.shape[1], self._network, self.image_shape), run.generator, run.source.device
        )
        game = Game(net, discriminator, self._training, self.penalty, self.information, run.generator)
        listeners = run.listeners
        history = maximize(game, net, run.source, self._training, run.generator, listeners, stage="game", betas=BETAS)
        history += self._train_classifier(net, run)
        return FitResult(net.eval(), history)

    def _train_classifier(self, net: Networks, run: Run) -> list[Record]:
        """Teach the classifier which Gaussian and which z made a row, on rows drawn anew at every step."""
        training = self.classifier_training or self._training.shortened(0.25)

        def objective(x: Data, rows: np.ndarray, fraction: float) -> StepOutput:
            """``log q(y|x)`` and the error of z on rows made now; the batch itself is not looked at."""
            net.generator.eval()  # a callback may have set it to train
            with torch.no_grad():
                y, z, made = net.generator.draw(len(x), run.generator)
            log_q_y, m = net.classifier(made)
            terms = classifier_terms(log_q_y, m, y, z, self.scale)
            return StepOutput(torch.stack(list(terms.values())).sum(0), terms, log_q_y, made=True)

        return maximize(
            objective, net.classifier, run.source, training, run.generator, run.listeners, stage="recognition"
        )

    def _draw(self, y: Tensor, generator: torch.Generator, *, noise: bool) -> Data:
        made = self.module_.generator
        return self.module_.rescale.inverse(made.decoder(made.latent.draw(y, generator)))
