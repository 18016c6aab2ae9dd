"""Feature files: a run that was cut goes on."""

from dataclasses import replace

import numpy as np
import pytest
from torch import nn

from made_up import images, mean_colors
from nvisa.data import features
from nvisa.data.features import files
from nvisa.durable_files import LockedError


def test_progress_is_told_after_every_batch_and_every_block_found(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "BLOCK", 4)
    told = []

    def stopping(split, done, total):
        told.append((split, done, total))
        if told.count(told[-1]) == 1 and done == 6:
            raise KeyboardInterrupt

    job = {"images": {"X": images()}, "backbone": mean_colors(), "out": tmp_path / "f.npz"}
    with pytest.raises(KeyboardInterrupt):
        features.extract(**job, batch_size=2, progress=stopping)
    assert told == [("X", 2, 7), ("X", 4, 7), ("X", 6, 7)]
    features.extract(**job, batch_size=2, progress=stopping)
    assert told[3:] == [("X", 4, 7), ("X", 6, 7), ("X", 7, 7)]


def dying_at_the_third_batch(seen):
    """A backbone that is interrupted once; the batches' sizes are noted."""

    def function(x):
        seen.append(len(x))
        if len(seen) == 3:
            raise KeyboardInterrupt
        return x

    return replace(mean_colors(), function=function)


def test_a_cut_run_goes_on_and_another_job_starts_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "BLOCK", 3)
    X, out, seen = images(), tmp_path / "f.npz", []

    backbone = dying_at_the_third_batch(seen)
    with pytest.raises(KeyboardInterrupt):
        features.extract({"X": X}, backbone, out, batch_size=2)
    assert not out.exists()
    features.extract({"X": X}, backbone, out, batch_size=2)
    assert sum(seen) == 2 + 1 + 2 + 3 + 1  # the first block of 3 once, the cut one again, the last
    with np.load(out) as archive:
        np.testing.assert_array_equal(archive["X"], mean_colors()(X))
        assert archive["backbone"] == "mean"
    assert not (tmp_path / "f.npz.part").exists()
    seen.clear()
    with pytest.raises(KeyboardInterrupt):
        features.extract({"X": X}, backbone, out, batch_size=2)
    features.extract({"X": images(seed=1)}, backbone, out, batch_size=2)  # other images: nothing of the part is used
    with np.load(out) as archive:
        np.testing.assert_array_equal(archive["X"], mean_colors()(images(seed=1)))


@pytest.mark.parametrize("change", ["preprocessing", "weights", "last image"])
def test_blocks_of_another_job_are_not_used(tmp_path, monkeypatch, change):
    """The images are told apart by a hundred that are spread over the split."""
    monkeypatch.setattr(files, "BLOCK", 100)
    X, out, seen = images(n=300), tmp_path / "f.npz", []

    backbone = dying_at_the_third_batch(seen)
    with pytest.raises(KeyboardInterrupt):
        features.extract({"X": X}, backbone, out, batch_size=100)
    if change == "last image":
        X[-1] = 255 - X[-1]
    else:
        other = {"preprocessing": {"scale": (64.0,) * 3}, "weights": {"weights_digest": "other weights"}}[change]
        backbone = replace(backbone, **other)
    features.extract({"X": X}, backbone, out, batch_size=100)
    assert seen[3:] == [100] * 3  # from the first block on
    with np.load(out) as archive:
        np.testing.assert_array_equal(archive["X"], replace(backbone, function=nn.Identity())(X))


class StopError(Exception):
    """After the first block."""


@pytest.fixture
def cut(tmp_path, monkeypatch):
    """A job that was cut after its first block of three, and the folder of its blocks."""
    monkeypatch.setattr(files, "BLOCK", 3)

    def stop(split, done, total):
        if done > 3:
            raise StopError

    job = {"images": {"X": images()}, "backbone": mean_colors(), "out": tmp_path / "f.npz"}
    with pytest.raises(StopError):
        features.extract(**job, progress=stop)
    return job, tmp_path / "f.npz.part"


@pytest.mark.parametrize("fault", ["a bit", "cut notes", "deep notes", "no fault"])
def test_what_has_been_damaged_since_is_computed_again(cut, tmp_path, fault):
    job, part = cut
    (block,) = part.glob("*.npy")
    content = bytearray(block.read_bytes())
    if fault == "a bit":
        content[-1] ^= 1
        block.write_bytes(content)
    elif fault != "no fault":
        (part / "job.json").write_text({"cut notes": "", "deep notes": "[" * 100_000}[fault])
    told = []
    features.extract(**job, progress=lambda split, done, total: told.append(done))
    with np.load(tmp_path / "f.npz") as archive:
        np.testing.assert_array_equal(archive["X"], mean_colors()(images()))
    assert told == [3, 6, 7]
    assert [path.name for path in tmp_path.iterdir()] == ["f.npz"]


def test_one_process_at_a_time_makes_a_file(tmp_path):
    job = {"images": {"X": images()}, "backbone": mean_colors(), "out": tmp_path / "f.npz"}

    def another(split, done, total):
        with pytest.raises(LockedError, match="in use by process"):
            features.extract(**job)

    features.extract(**job, progress=another)


def test_blocks_that_are_not_needed_any_more_and_cannot_be_removed_are_a_warning(tmp_path, monkeypatch):
    def refused(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files.shutil, "rmtree", refused)
    with pytest.warns(UserWarning, match=r"f.npz.part is not needed any more, and cannot be removed"):
        features.extract({"X": images()}, mean_colors(), tmp_path / "f.npz")
    assert (tmp_path / "f.npz").exists()
