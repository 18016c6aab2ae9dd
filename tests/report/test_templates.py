"""The page's style and script."""

import re
from importlib.resources import files
from itertools import combinations

import numpy as np


def test_the_palette_is_told_apart_with_every_color_blindness():
    """Colors seen by dichromats (Machado, Oliveira & Fernandes 2009, severity 1), compared in CIELAB."""
    script = (files("nvisa.report") / "templates" / "page.js").read_text()
    listed = re.search(r"const COLORS = \[(.*?)\]", script)[1]
    colors = np.array([[int(name[i : i + 2], 16) for i in (0, 2, 4)] for name in re.findall(r"#(\w{6})", listed)]) / 255
    assert len(colors) == 10
    linear = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    sights = [
        np.eye(3),
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    ]
    just_noticeable = 2.3  # Mahy, Van Eycken & Oosterlinck 1994
    for sight in sights:
        seen = lab((linear @ np.array(sight).T).clip(0, 1))
        least = min(np.linalg.norm(a - b) for a, b in combinations(seen, 2))
        assert least > 3 * just_noticeable


def lab(linear):
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ to_xyz.T / [0.9505, 1.0, 1.089]
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)
