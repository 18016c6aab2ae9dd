"""Images in a sprite stand where the page looks for them."""

import numpy as np
import pytest

from nvisa.report.thumbnails import Thumbnails, map_sprites
from report_pages import opened

pytest.importorskip("PIL.Image")


def test_every_image_stands_at_its_place(random):
    X = random.randint(0, 2, (100, 20)).astype(np.float32)
    made = map_sprites(lambda part: X[part], 100, Thumbnails((4, 5), (0.0, 1.0)), 10**6)
    whole = np.asarray(opened(made["urls"][0]).convert("L")) / 255
    assert (made["n"], made["height"], made["width"], made["columns"]) == (100, 4, 5, 64)
    for i in (0, 63, 64, 99):
        top, left = 4 * (i // 64), 5 * (i % 64)
        np.testing.assert_array_equal(whole[top : top + 4, left : left + 5].ravel(), X[i])


def test_images_keep_to_their_budget(random):
    X = random.rand(300, 32 * 32).astype(np.float32)
    draw = Thumbnails((32, 32), (0.0, 1.0))
    whole = map_sprites(lambda part: X[part], 300, draw, 10**7)
    small = map_sprites(lambda part: X[part], 300, draw, 10_000)
    assert whole["n"] == 300
    assert whole["height"] == 32
    assert small["height"] == 16
    assert small["n"] < 300
    assert sum(map(len, small["urls"])) < 1.2 * 10_000
