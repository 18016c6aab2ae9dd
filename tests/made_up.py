"""Made-up data: files and archives like the published ones, images, and networks whose features are known."""

import hashlib
import io
import struct
import sys
import tarfile
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from nvisa.data.datasets.idx import DTYPES
from nvisa.data.features import Backbone

CODES = {np.dtype(name): code for code, name in DTYPES.items()}


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def write_idx(array):
    """The oracle of `parse_idx`, written from the format's definition."""
    big = array.astype(array.dtype.newbyteorder(">"))
    return struct.pack(f">HBB{array.ndim}I", 0, CODES[big.dtype], array.ndim, *array.shape) + big.tobytes()


def packed_archive(tmp_path, spec):
    """An archive like the official one, of a few images, and its spec with the right digests."""
    rng = np.random.RandomState(0)
    contents = {}
    for name in (*spec.train, *spec.test):
        if spec.label_bytes:
            rows = rng.randint(0, 10, (4, spec.label_bytes + 3 * spec.side**2))
        else:
            rows = rng.randint(1, 11, 4) if "_y" in name else rng.randint(0, 256, (4, 3 * spec.side**2))
        contents[name] = rows.astype(np.uint8).tobytes()
    path = tmp_path / "home" / spec.folder / "official.tar.gz"  # where a download would leave it
    path.parent.mkdir(parents=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, raw in contents.items():
            info = tarfile.TarInfo(f"folder/{name}")
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))
    digests = {name: hashlib.md5(raw).hexdigest() for name, raw in contents.items()}
    train, test = ({name: digests[name] for name in names} for names in (spec.train, spec.test))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return replace(spec, mirrors=(path.as_uri(),), sha256=digest, train=train, test=test), contents


def images(n=7, side=8, seed=0):
    return np.random.RandomState(seed).randint(0, 256, (n, side, side, 3)).astype(np.uint8)


def mean_colors(size=8):
    """A backbone whose features are the mean colors, in the backbone's units."""
    return Backbone("mean", nn.Identity(), "no weights", size=size)


class Fickle(nn.Module):
    """A vector an image that dropout and batch statistics change on every call, unless in evaluation mode."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))

    def forward(self, x):
        return self.layers(x).mean((2, 3))


OWN = """
import torch
from torch import nn

class Pool(nn.Module):
    def __init__(self, gain=1.0):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return self.drop(self.gain * x.mean((2, 3)))

ready = Pool()
louder = lambda: Pool(2.0)
drawn = lambda: nn.Linear(3, 4)
number = lambda: 7
def broken(): raise RuntimeError("no weights here")
"""


@contextmanager
def own_module(folder, monkeypatch):
    """The folder as the current one, with a module of the user's own in it; the module's name."""
    name = f"own_{folder.name.replace('-', '_')}"
    (folder / f"{name}.py").write_text(OWN)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    yield name
    sys.modules.pop(name, None)
