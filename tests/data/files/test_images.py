"""Folders of images as rows of pixels."""

import io

import numpy as np
import pytest
from PIL import Image

from nvisa.data import DataError, read_table


def draw(path, pixels, mode=None, **settings):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(pixels))
    (image.convert(mode) if mode else image).save(path, **settings)


GRAY = np.array([[0, 51], [102, 255], [7, 9]], dtype=np.uint8)
COLOR = np.random.default_rng(1).integers(0, 256, size=(3, 2, 3), dtype=np.uint8)


def test_gray_images_in_sorted_order_below_the_folder(tmp_path):
    draw(tmp_path / "b" / "2.png", GRAY // 2)
    draw(tmp_path / "a" / "deep" / "1.PNG", GRAY)
    draw(tmp_path / "c.png", GRAY // 3)
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "._c.png").write_text("macOS litter")
    table = read_table(tmp_path)
    assert table.row_names == ["a/deep/1.PNG", "b/2.png", "c.png"]
    assert (table.feature_shape, table.labels, table.X.dtype) == ((3, 2), None, np.float32)
    expected = [GRAY.reshape(-1), (GRAY // 2).reshape(-1), (GRAY // 3).reshape(-1)]
    np.testing.assert_array_equal(table.X, np.float32(expected) / np.float32(255))


def test_color_keeps_its_channels_and_gray_among_it_is_widened(tmp_path):
    draw(tmp_path / "1.png", COLOR)
    draw(tmp_path / "2.png", GRAY)
    table = read_table(tmp_path)
    assert table.feature_shape == (3, 2, 3)
    pictures = table.X.reshape(2, 3, 2, 3) * 255
    np.testing.assert_allclose(pictures[0], COLOR, rtol=1e-6)
    np.testing.assert_allclose(pictures[1], np.repeat(GRAY[:, :, None], 3, axis=2), rtol=1e-6)


@pytest.mark.parametrize("mode", ["RGBA", "P", "LA", "1"])
def test_other_modes_are_converted(tmp_path, mode):
    white = np.full((3, 2, 3), 255, dtype=np.uint8)
    draw(tmp_path / "1.png", white, mode)
    table = read_table(tmp_path)
    assert table.feature_shape == ((3, 2, 3) if mode in ("RGBA", "P") else (3, 2))
    assert (table.X == 1).all()


@pytest.mark.parametrize("with_color", [False, True])
def test_sixteen_bit_gray_is_not_clipped(tmp_path, with_color):
    levels = np.array([[0, 257 * 10], [257 * 100, 65535], [257, 514]], dtype=np.uint16)
    draw(tmp_path / "1.png", levels)
    if with_color:
        draw(tmp_path / "2.png", COLOR)
    table = read_table(tmp_path)
    picture = table.X[0].reshape(table.feature_shape)
    np.testing.assert_allclose(picture[..., 0] if with_color else picture, levels / 65535, atol=1e-6)


def test_jpeg_turned_by_exif_stands_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side: turn by 90 degrees
    picture = np.zeros((16, 32), dtype=np.uint8)
    picture[:, :16] = 255
    draw(tmp_path / "1.jpg", picture, exif=exif)
    table = read_table(tmp_path)
    assert table.feature_shape == (32, 16)
    upright = table.X.reshape(32, 16)
    assert upright[:16].mean() > 0.95
    assert upright[16:].mean() < 0.05


def test_sizes_must_agree_unless_one_is_asked_for(tmp_path):
    for name in ("1.png", "2.png"):
        draw(tmp_path / name, np.full((8, 6), 51, dtype=np.uint8))
    draw(tmp_path / "3.png", np.full((4, 4), 51, dtype=np.uint8))
    with pytest.raises(DataError, match=r"2 sizes, most often 8 x 6 \(2\).*image_size=\(8, 6\)"):
        read_table(tmp_path)
    for size, shape in ((5, (5, 5)), ((4, 2), (4, 2))):
        table = read_table(tmp_path, image_size=size)
        assert table.feature_shape == shape
        np.testing.assert_allclose(table.X, 0.2, rtol=1e-6)
    with pytest.raises(DataError, match="image_size"):
        read_table(tmp_path, image_size=0)


def test_folders_are_labels_only_when_asked(tmp_path):
    draw(tmp_path / "cat" / "x" / "1.png", GRAY)
    draw(tmp_path / "dog" / "1.png", GRAY)
    assert read_table(tmp_path).labels is None
    assert read_table(tmp_path, labels_from_folders=True).labels.tolist() == ["cat", "dog"]
    draw(tmp_path / "stray.png", GRAY)
    with pytest.raises(DataError, match=r"1 beside them, such as 'stray\.png'"):
        read_table(tmp_path, labels_from_folders=True)


def png():
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(2).integers(0, 256, size=(32, 32), dtype=np.uint8)).save(buffer, "png")
    return buffer.getvalue()


@pytest.mark.parametrize("content", [b"", b"hello", png()[:20], png()[:300]])
def test_a_bad_image_is_named(tmp_path, content):
    (tmp_path / "good.png").write_bytes(png())
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(DataError, match=r"bad\.png: expected .*image.*, got an unreadable file"):
        read_table(tmp_path)


def test_a_folder_without_images_is_named(tmp_path):
    with pytest.raises(DataError, match=r"expected images \(\.png, .*\), got none"):
        read_table(tmp_path)
