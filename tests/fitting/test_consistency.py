"""Adversarial directions against the Hessian of the KL; the information term against its definition."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.autograd.functional import hessian
from torch.nn import functional as F
from torch.testing import assert_close

from nvisa.fitting.consistency import (
    Augment,
    adversarial_direction,
    affine,
    augmented,
    frozen_statistics,
    vat,
    warp,
)  # fmt: skip
from nvisa.nets.layers import mlp
from nvisa.settings import SettingError
from oracles import TIGHT, gradients, normal

B, D = 6, 4


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(11)


def linear_softmax(rng, n_clusters):
    """x -> log softmax(A x + b), whose KL is known to second order, and some x."""
    a, b = normal(rng, n_clusters, D).requires_grad_(), normal(rng, n_clusters).requires_grad_()
    return (lambda x: (x @ a.T + b).log_softmax(-1)), [a, b], normal(rng, B, D)


def divergence(log_posterior, x, r):
    """KL( q(y|x) || q(y|x + r) ), as it is written."""
    p, q = log_posterior(x).exp(), log_posterior(x + r).exp()
    return (p * (p / q).log()).sum(-1)


def hessians(log_posterior, x):
    """Hessian of the divergence in r at r = 0, of each row [B D D]."""
    return torch.stack(
        [hessian(lambda r, row=row: divergence(log_posterior, row, r), torch.zeros_like(row)) for row in x]
    )


# ---- direction -------------------------------------------------------------------------------------------------------


def test_with_two_clusters_the_direction_is_the_dominant_eigenvector_of_the_hessian(rng):
    """The Hessian has rank one, so a single power iteration arrives; the sign is free to second order."""
    log_posterior, _, x = linear_softmax(rng, 2)
    d = adversarial_direction(log_posterior, x, log_posterior(x), torch.full((B,), 1e-4).double(), rng)
    top = torch.linalg.eigh(hessians(log_posterior, x)).eigenvectors[:, :, -1]
    assert_close((d * top).sum(1).abs(), torch.ones(B).double(), rtol=0, atol=1e-8)


def test_with_more_clusters_it_is_one_power_iteration_which_gains_divergence_on_its_random_start(rng):
    log_posterior, _, x = linear_softmax(rng, 5)
    d = adversarial_direction(log_posterior, x, log_posterior(x), torch.full((B,), 1e-4).double(), seeded())
    start = F.normalize(normal(seeded(), B, D))
    h = hessians(log_posterior, x)
    assert_close(d, F.normalize(torch.einsum("bij,bj->bi", h, start)), rtol=0, atol=2e-3)
    curvature = [torch.einsum("bi,bij,bj->b", v, h, v) for v in (start, d)]
    assert (curvature[1] > curvature[0]).all()


def test_with_two_clusters_no_direction_of_the_same_length_does_more_than_it(rng):
    log_posterior, _, x = linear_softmax(rng, 2)
    radius = torch.full((B,), 1e-3).double()
    worst = vat(log_posterior, x, log_posterior(x), radius, radius, rng)
    for _ in range(200):
        r = 1e-3 * F.normalize(normal(rng, B, D))
        assert (divergence(log_posterior, x, r) <= worst * (1 + 1e-2)).all()


def test_the_probe_s_length_is_where_the_slope_is_taken(rng):
    """With a long probe the direction is the gradient at x + probe d, not at x."""
    log_posterior, _, x = linear_softmax(rng, 3)
    probe = torch.linspace(0.5, 3, B).double()
    start = F.normalize(normal(seeded(), B, D)).requires_grad_()
    (slope,) = gradients(divergence(log_posterior, x, probe[:, None] * start).sum(), [start])
    d = adversarial_direction(log_posterior, x, log_posterior(x), probe, seeded())
    assert_close(d, F.normalize(slope), **TIGHT)


# ---- consistency -----------------------------------------------------------------------------------------------------


def test_vat_is_the_divergence_at_a_displacement_as_long_as_the_radius_of_each_row(rng):
    log_posterior, _, x = linear_softmax(rng, 3)
    radius, seen = torch.linspace(0.1, 2, B).double(), []

    def watched(x):
        seen.append(x.detach())
        return log_posterior(x)

    value = vat(watched, x, log_posterior(x), radius, radius, rng)
    r = seen[-1] - x
    assert_close(r.norm(dim=1), radius, **TIGHT)
    assert_close(value, divergence(log_posterior, x, r), **TIGHT)


def test_vat_is_zero_when_q_does_not_depend_on_x(rng):
    log_q = normal(rng, 3).log_softmax(0)
    ones = torch.ones(B).double()
    value = vat(lambda x: log_q + 0.0 * x.sum(1, keepdim=True), normal(rng, B, D), log_q.expand(B, 3), ones, ones, rng)
    assert (value == 0).all()


def test_the_gradient_flows_through_the_displaced_side_only(rng):
    """Not into the target, and not into the displacement."""
    log_posterior, parameters, x = linear_softmax(rng, 3)
    radius, seen = torch.full((B,), 0.7).double(), []

    def watched(x):
        seen.append(x.detach())
        return log_posterior(x)

    target = log_posterior(x).detach().requires_grad_()
    value = vat(watched, x, target, radius, radius, rng).sum()
    assert (gradients(value, [target])[0] == 0).all()
    p, q = target.detach().exp(), log_posterior(seen[-1])
    for mine, theirs in zip(gradients(value, parameters), gradients(-(p * q).sum(), parameters), strict=True):
        assert_close(mine, theirs, **TIGHT)


# ---- augmentation ----------------------------------------------------------------------------------------------------


def moved(images, shift=(0.0, 0.0), zoom=1.0, angle=0.0):
    """``images`` [B H W C] under one affine map; the shift in pixels, right and down."""
    n, height, width, channels = images.shape
    of_all = (torch.tensor([value] * n, dtype=torch.float64) for value in (shift, zoom, angle))
    pixels, zooms, angles = of_all
    theta = affine(2 * pixels / torch.tensor([width, height]), zooms, angles, height, width)
    return warp(torch.from_numpy(images).flatten(1), theta, (height, width, channels)).reshape(images.shape).numpy()


@pytest.fixture
def images():
    return np.random.RandomState(3).rand(2, 6, 9, 3)


def test_the_identity_moves_nothing(images):
    np.testing.assert_allclose(moved(images), images, atol=1e-12)


def test_a_shift_by_whole_pixels_rolls_the_image_and_repeats_its_border(images):
    right = moved(images, shift=(1, 0))
    np.testing.assert_allclose(right[:, :, 1:], images[:, :, :-1], atol=1e-12)
    np.testing.assert_allclose(right[:, :, 0], images[:, :, 0], atol=1e-12)
    down = moved(images, shift=(0, 2))
    np.testing.assert_allclose(down[:, 2:], images[:, :-2], atol=1e-12)


def test_a_quarter_turn_is_numpy_s(images):
    square = images[:, :, :6]
    np.testing.assert_allclose(moved(square, angle=math.pi / 2), np.rot90(square, axes=(1, 2)), atol=1e-12)


@pytest.mark.parametrize(
    ("shift", "zoom", "angle"), [((0.0, 0.0), 1.3, 0.0), ((0, 0), 1, 0.4), ((1.3, -0.6), 0.8, -0.7)]
)
def test_any_map_is_scipy_s(images, shift, zoom, angle):
    """Rows and columns there, columns and rows here; the image is not square."""
    c, s = math.cos(angle) / zoom, math.sin(angle) / zoom
    matrix = np.array([[c, s], [-s, c]])  # of (row, column): in = matrix (out - center - shift) + center
    center = np.array([2.5, 4.0])
    offset = center - matrix @ (center + np.array(shift[::-1]))
    for got, image in zip(moved(images, shift, zoom, angle), images, strict=True):
        for channel in range(3):
            want = ndimage.affine_transform(image[..., channel], matrix, offset, order=1, mode="nearest")
            np.testing.assert_allclose(got[..., channel], want, atol=1e-12)


def test_every_image_is_moved_by_a_map_of_its_own_within_the_limits(rng):
    """The center of a bright blob, its size and its tilt tell the map."""
    row, column = np.mgrid[:61, :61] - 30.0
    blob = np.exp(-(column**2 / 80 + row**2 / 20))
    settings = Augment(shift=0.1, scale=0.2, rotation=30.0)
    x = torch.from_numpy(np.tile(blob.ravel(), (300, 1)))
    weight = augmented(x, settings, rng).reshape(300, 61, 61).numpy()
    mass = weight.sum((1, 2))
    mean = np.stack([(weight * axis).sum((1, 2)) / mass for axis in (column, row)], 1)
    dx, dy = column - mean[:, :1, None], row - mean[:, 1:, None]
    xx, yy, xy = ((weight * a * b).sum((1, 2)) / mass for a, b in ((dx, dx), (dy, dy), (dx, dy)))
    tilt = -0.5 * np.degrees(np.arctan2(2 * xy, xx - yy))  # counterclockwise as it is seen
    zoom = ((xx * yy - xy**2) / (40 * 10)) ** 0.25
    for found, limits in (
        (mean[:, 0], (-6.1, 6.1)),
        (mean[:, 1], (-6.1, 6.1)),
        (zoom, (1 / 1.2, 1.2)),
        (tilt, (-30, 30)),
    ):
        low, high = limits
        assert low - 0.03 * (high - low) < found.min() < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < found.max() < high + 0.03 * (high - low)
    columns = np.stack([*mean.T, np.log(zoom), tilt])
    assert np.abs(np.corrcoef(columns) - np.eye(4)).max() < 0.2  # 3.5 standard errors
    again = augmented(x[:5], settings, torch.Generator().manual_seed(20200719))
    np.testing.assert_array_equal(again.reshape(5, 61, 61).numpy()[:1], weight[:1])


def test_no_movement_has_no_divergence_and_a_movement_has(rng):
    log_posterior, parameters, x = linear_softmax(rng, 3)
    still = Augment(shift=0.0, scale=0.0, rotation=0.0)
    assert_close(augmented(x, still, rng), x, **TIGHT)
    moving = augmented(x, Augment(shift=0.5), rng)
    local = divergence(log_posterior, x, moving - x)
    assert (local > 1e-6).all()
    assert all(gradient.abs().sum() > 0 for gradient in gradients(local.sum(), parameters))


@pytest.mark.parametrize(
    ("shape", "n", "expected"), [(None, 64, (8, 8, 1)), ((4, 5), 20, (4, 5, 1)), ((2, 3, 3), 18, (2, 3, 3))]
)
def test_the_shape_of_a_row(shape, n, expected):
    assert Augment(image_shape=shape).shape_of(n) == expected
    with pytest.raises(SettingError, match=rf"^consistency\.image_shape must be the shape of rows of {n + 1} features"):
        Augment(image_shape=shape).shape_of(n + 1)


# ---- batch norm ------------------------------------------------------------------------------------------------------


def test_batch_norm_keeps_its_statistics_inside(rng):
    with torch.random.fork_rng():
        net = mlp([3, 4], batch_norm=True).train()
    before = {name: value.clone() for name, value in net[1].named_buffers()}
    x = torch.randn(8, 3, generator=rng)
    with frozen_statistics(net):
        inside = net(x)
    assert torch.equal(net[1].running_mean, before["running_mean"])
    assert torch.equal(net[1].running_var, before["running_var"])
    assert torch.equal(net(x), inside)
    assert not torch.equal(net[1].running_mean, before["running_mean"])
