"""The latent space in the plane."""

import numpy as np
import pytest

from nvisa.report import maps


def test_which_maps_are_drawn():
    assert maps.chosen_maps(("auto", "pca"), 100) == ["tsne", "pca"]
    assert maps.chosen_maps(("auto", "umap"), 10**5) == ["umap"]
    with pytest.raises(ValueError, match=r"maps: expected names among auto, .*, got 'mds'"):
        maps.chosen_maps(("mds",), 10)


@pytest.mark.parametrize("name", ["pca", "tsne", "umap"])
def test_a_map_keeps_groups_apart_and_is_repeatable(name, random):
    z = np.concatenate([random.randn(40, 5), 30 + random.randn(40, 5)])
    title, points = maps.plane(z, name, np.random.RandomState(0))
    first, second = points[:40], points[40:]
    gap = np.linalg.norm(first.mean(0) - second.mean(0))
    assert gap > 2 * max(np.linalg.norm(part - part.mean(0), axis=1).mean() for part in (first, second))
    assert title in ("PCA", "t-SNE", "UMAP")
    np.testing.assert_array_equal(maps.plane(z, name, np.random.RandomState(0))[1], points)


def test_two_dimensions_are_the_map(random):
    z = random.randn(20, 2)
    assert maps.plane(z, "umap", random)[1] is not None
    np.testing.assert_array_equal(maps.plane(z, "umap", random)[1], z)
