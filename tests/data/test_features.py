"""Feature files: the features at hand are those of the official pixels, and a cut run goes on."""

import hashlib
import io
import sys
import tarfile
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from nvisa import data as datasets
from nvisa.commands.cli import main
from nvisa.commands.features import features as features_command
from nvisa.data import DataError, archives, catalog, features
from nvisa.data.features import backbones, files

FIXTURES = Path(__file__).parent / "cifar10"


def images(n=7, side=8, seed=0):
    return np.random.RandomState(seed).randint(0, 256, (n, side, side, 3)).astype(np.uint8)


def identity(size=8):
    """A backbone whose features are the mean colors, in the backbone's units."""
    return features.Backbone("mean", nn.Identity(), "no weights", size=size)


def test_the_preprocessing_is_what_it_says():
    X = images()
    expected = (X.astype(float).mean((1, 2)) - 127) / 128
    np.testing.assert_allclose(identity()(X), expected, rtol=1e-5)
    gray = X[..., :1]
    np.testing.assert_allclose(identity()(gray), np.repeat((gray.mean((1, 2)) - 127) / 128, 3, axis=1), rtol=1e-5)


def test_resizing_is_bicubic():
    X = images(1)
    resized = np.asarray(Image.fromarray(X[0]).resize((24, 24), Image.Resampling.BICUBIC), float)
    np.testing.assert_allclose(identity(24)(X)[0], (resized.mean((0, 1)) - 127) / 128, rtol=1e-5)


class Fickle(nn.Module):
    """A vector an image that dropout and batch statistics change on every call, unless in evaluation mode."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))

    def forward(self, x):
        return self.layers(x).mean((2, 3))


@pytest.mark.parametrize("attribute", ["__call__", "forward"])
@pytest.mark.global_rng  # Dropout's, if it were not in evaluation mode
def test_a_module_is_evaluated_and_not_trained(attribute):
    module, X = Fickle().train(), images(4)
    function = module if attribute == "__call__" else module.forward
    backbone = features.Backbone("fickle", function, size=8)
    alone = np.concatenate([backbone(X[i : i + 1]) for i in range(4)])
    module.train()  # as its owner may between two calls
    np.testing.assert_allclose(backbone(X), alone, atol=1e-6)
    assert module.layers[1].num_batches_tracked == 0


@pytest.mark.parametrize(
    ("function", "got"),
    [(lambda x: (x, x), "tuple"), (lambda x: x.mean((1, 2, 3)), r"\[4\]"), (lambda x: x[1:], r"\[3, 3, 8, 8\]")],
)
def test_an_output_that_is_no_vector_an_image_is_refused(function, got):
    with pytest.raises(ValueError, match=f"of 4 images, got {got}"):
        features.Backbone("odd", function, size=8)(images(4))


def test_progress_is_told_after_every_batch_and_every_block_found(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "BLOCK", 4)
    told = []

    def stopping(split, done, total):
        told.append((split, done, total))
        if told.count(told[-1]) == 1 and done == 6:
            raise KeyboardInterrupt

    job = {"images": {"X": images()}, "backbone": identity(), "out": tmp_path / "f.npz"}
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

    return replace(identity(), function=function)


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
        np.testing.assert_array_equal(archive["X"], identity()(X))
        assert archive["backbone"] == "mean"
    assert not (tmp_path / "f.npz.part").exists()
    seen.clear()
    with pytest.raises(KeyboardInterrupt):
        features.extract({"X": X}, backbone, out, batch_size=2)
    features.extract({"X": images(seed=1)}, backbone, out, batch_size=2)  # other images: nothing of the part is used
    with np.load(out) as archive:
        np.testing.assert_array_equal(archive["X"], identity()(images(seed=1)))


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


def varint(n):
    out = b""
    while n > 127:
        out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])


def field(number, value):
    """One protobuf field: a number, or bytes with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def pooling_onnx(*given):
    """An ONNX model of one node, GlobalAveragePool, of an input of this shape; written by hand."""

    def value(name, *dims):
        shape = b"".join(field(1, field(2, d) if isinstance(d, str) else field(1, d)) for d in dims)
        return field(1, name) + field(2, field(1, field(1, 1) + field(2, shape)))

    node = field(1, "x") + field(2, "y") + field(4, "GlobalAveragePool")
    graph = field(1, node) + field(2, "g") + field(11, value("x", *given))
    graph += field(12, value("y", given[0], given[1], 1, 1))
    return field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 13))


@pytest.fixture
def pool(tmp_path):
    """Writes an .onnx that takes the mean over an input of the given shape."""
    pytest.importorskip("onnxruntime")
    path = tmp_path / "pool.onnx"

    def write(*shape):
        path.write_bytes(pooling_onnx(*shape))
        return path

    return write


def test_an_onnx_file_is_a_backbone(pool):
    path = pool("n", 3, 16, 16)
    backbone = features.load_backbone(str(path))
    assert backbone.size == 16
    assert backbone.weights_digest == hashlib.sha256(path.read_bytes()).hexdigest()
    np.testing.assert_allclose(backbone(images()), identity(16)(images()), atol=1e-6)


@pytest.mark.parametrize("n", [1, 3])
def test_a_batch_size_that_an_onnx_file_fixes_is_kept_to(pool, n):
    backbone = features.load_backbone(str(pool(n, 3, 8, 8)))
    np.testing.assert_allclose(backbone(images()), identity()(images()), atol=1e-6)


def test_an_onnx_file_that_takes_no_such_images_is_refused(pool, tmp_path):
    for shape in ((1, 8, 8, 3), ("n", 3, 8, 16), ("n", 3, 8)):
        with pytest.raises(ValueError, match=r"expected an input \[B 3 H W\]"):
            features.load_backbone(str(pool(*shape)))
    with pytest.raises(ValueError, match="H = W = 9, got"):
        features.load_backbone(str(pool("n", 3, 8, 8)), size=9)
    (tmp_path / "no.onnx").write_bytes(b"abc")
    with pytest.raises(ValueError, match="expected an ONNX model"):
        features.load_backbone(str(tmp_path / "no.onnx"))


def test_mean_std_and_size_are_torchvisions(pool):
    X, mean, std = images(), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    backbone = features.load_backbone(str(pool("n", 3, "h", "w")), mean=mean, std=std, size=8)
    expected = (X.astype(float).mean((1, 2)) / 255 - mean) / std  # what ToTensor and Normalize do
    np.testing.assert_allclose(backbone(X), expected, rtol=1e-4)
    assert "8 x 8" in backbone.preprocessing
    assert "123.675" in backbone.preprocessing
    plain = features.load_backbone(str(pool("n", 3, "h", "w")))
    assert (plain.size, plain.preprocessing) == (224, identity(224).preprocessing)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"mean": (123.7, 116.3, 103.5)}, "pixels in 0..1"),
        ({"std": (0.2, 0.0, 0.2)}, "pixels in 0..1"),
        ({"mean": (0.5,)}, "three numbers"),
        ({"size": 0}, "at least one pixel"),
    ],
)
def test_a_preprocessing_that_cannot_be_meant_is_refused(pool, chosen, message):
    with pytest.raises(ValueError, match=message):
        features.load_backbone(str(pool("n", 3, "h", "w")), **chosen)


def test_the_preprocessing_of_published_weights_is_not_a_choice(monkeypatch):
    monkeypatch.setitem(backbones.BACKBONES, "mean", identity)
    with pytest.raises(ValueError, match="its own preprocessing, got std, size"):
        features.load_backbone("mean", std=(0.2, 0.2, 0.2), size=32)


# ---- torch modules ------------------------------------------------------------------------------------------------

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


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The current folder, with a module of the user's own in it."""
    name = f"own_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    yield name
    sys.modules.pop(name, None)


def test_a_torch_module_is_a_backbone_by_its_import(own):
    before = list(sys.path)
    by_class, ready, louder = (features.load_backbone(f"{own}:{what}", size=8) for what in ("Pool", "ready", "louder"))
    X = images()
    np.testing.assert_allclose(by_class(X), identity()(X), atol=1e-6)
    np.testing.assert_array_equal(ready(X), by_class(X))
    np.testing.assert_allclose(louder(X), 2 * by_class(X), atol=1e-6)
    assert by_class.weights_digest == ready.weights_digest != louder.weights_digest
    assert (by_class.name, features.load_backbone(f"{own}:Pool").size) == (f"{own}:Pool", 224)
    assert sys.path == before
    features.load_backbone(f"{own}:drawn")  # conftest.py watches the global generator


def test_a_network_of_ones_own_through_the_command_line(own, tmp_path):
    (tmp_path / "pictures").mkdir()
    Image.fromarray(images(1)[0]).save(tmp_path / "pictures" / "a.png")
    words = ["features", "pictures", "--backbone", f"{own}:Pool", "--out", "f.npz", "--quiet"]
    assert main([*words, "--mean", "0.5", "0.5", "0.5", "--std", "0.25", "0.25", "0.25", "--size", "8"]) == 0
    np.testing.assert_allclose(datasets.read_table("f.npz").X, images(1).mean((1, 2)) / 255 * 4 - 2, atol=1e-5)
    assert main(["features", "pictures", "--backbone", f"{own}:Pool", "--quiet"]) == 2  # of a folder: --out


@pytest.mark.parametrize(("option", "sizes"), [([], [5]), (["--batch-size", "2"], [2, 2, 1])])
def test_the_network_sees_as_many_images_at_a_time_as_the_command_line_says(own, tmp_path, monkeypatch, option, sizes):
    (tmp_path / "pictures").mkdir()
    for i, image in enumerate(images(5)):
        Image.fromarray(image).save(tmp_path / "pictures" / f"{i}.png")
    seen, call = [], features.Backbone.__call__
    monkeypatch.setattr(features.Backbone, "__call__", lambda self, X: seen.append(len(X)) or call(self, X))
    words = ["features", "pictures", "--backbone", f"{own}:Pool", "--out", "f.npz", "--size", "8", "--quiet"]
    assert main([*words, *option]) == 0
    assert seen == sizes


@pytest.mark.parametrize(
    ("attribute", "got"),
    [("Missing", "AttributeError"), ("broken", "RuntimeError: no weights here"), ("number", "got int")],
)
def test_a_factory_that_makes_no_module_is_told(own, attribute, got):
    with pytest.raises(ValueError, match=got):
        features.load_backbone(f"{own}:{attribute}")
    with pytest.raises(ValueError, match="ModuleNotFoundError"):
        features.load_backbone("not_there:thing")


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # of what writes the file; reading must not warn
def test_a_torchscript_file_is_a_backbone_and_a_pickle_is_not(tmp_path):
    path, module, X = tmp_path / "fickle.pt", Fickle(), images(4)
    torch.jit.trace(module.eval(), torch.zeros(1, 3, 8, 8)).save(path)
    backbone = features.load_backbone(str(path), size=8, mean=(0.5, 0.5, 0.5))
    expected = replace(identity(), function=module, shift=(127.5,) * 3)(X)
    np.testing.assert_allclose(backbone(X), expected, atol=1e-6)
    assert backbone.weights_digest == hashlib.sha256(path.read_bytes()).hexdigest()
    torch.save(module, tmp_path / "pickle.pth")
    torch.save(module.state_dict(), tmp_path / "weights.pth")
    for name in ("pickle.pth", "weights.pth"):
        with pytest.raises(ValueError, match=r"expected a TorchScript file.*package\.module:factory"):
            features.load_backbone(str(tmp_path / name))
    with pytest.raises(ValueError, match="nothing there"):
        features.load_backbone(str(tmp_path / "absent.pt"))


class TinyResNet(nn.Module):
    """The last layers of a ResNet, as torchvision names them."""

    def __init__(self):
        super().__init__()
        self.bn1, self.avgpool, self.fc = nn.BatchNorm2d(3), nn.AdaptiveAvgPool2d(1), nn.Linear(3, 2)

    def forward(self, x):
        return self.fc(torch.flatten(self.avgpool(self.bn1(x)), 1))


def test_resnet50_is_torchvisions_first_weights_before_the_last_layer(monkeypatch, tmp_path):
    """By a stand-in: torchvision's wheels do not load beside a CPU build of torch, and its weights are a download."""
    asked = {}
    with torch.random.fork_rng():
        state = TinyResNet().state_dict() | {"bn1.weight": torch.tensor([1.0, 2.0, 3.0])}

    def get_state_dict(**how):
        asked.update(how)
        (tmp_path / "checkpoints").mkdir()
        (tmp_path / "checkpoints" / "resnet50-0676ba61.pth").write_bytes(b"the weights")
        return state

    first = types.SimpleNamespace(url="https://host/models/resnet50-0676ba61.pth", get_state_dict=get_state_dict)
    models = types.ModuleType("torchvision.models")
    models.ResNet50_Weights, models.resnet50 = types.SimpleNamespace(IMAGENET1K_V1=first), TinyResNet
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    backbone = features.load_backbone("resnet50")
    assert asked["check_hash"]
    assert backbone.weights_digest == hashlib.sha256(b"the weights").hexdigest()
    X = images(3, side=224)
    normal = (X.astype(float).mean((1, 2)) / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    pooled = normal * (1, 2, 3) / np.sqrt(1 + 1e-5)  # batch normalization by its running mean 0 and variance 1
    np.testing.assert_allclose(backbone(X), pooled, rtol=1e-3, atol=1e-4)


def test_what_is_missing_is_said(monkeypatch):
    with pytest.raises(ValueError, match="efficientnet_lite2, resnet50"):
        features.load_backbone("vgg")
    with pytest.raises(ValueError, match=r"nvisa\[vision\]"), backbones.needed("resnet50", "vision"):
        raise ImportError("No module named 'torchvision'")


def test_a_folder_through_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setitem(backbones.BACKBONES, "mean", identity)
    for i, image in enumerate(images(4)):
        path = tmp_path / "pictures" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).resize((8 + i, 9)).save(path)
    out = tmp_path / "f.npz"
    words = ["features", str(tmp_path / "pictures"), "--backbone", "mean", "--out", str(out), "--labels-from-folders"]
    assert main([*words, "--quiet"]) == 0
    table = datasets.read_table(out)
    assert table.X.shape == (4, 3)
    assert table.labels.tolist() == ["a", "a", "b", "b"]
    assert main(["features", str(tmp_path / "pictures"), "--backbone", "mean", "--out", "x.csv", "--quiet"]) == 2


def test_an_image_beside_the_folders_has_no_label(tmp_path, monkeypatch, capsys):
    """As in fit: its own name is no label."""
    monkeypatch.setitem(backbones.BACKBONES, "mean", identity)
    for name in ("cat/1.png", "loose.png"):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images(1)[0]).save(path)
    words = ["features", str(tmp_path / "pictures"), "--backbone", "mean", "--out", str(tmp_path / "f.npz"), "--quiet"]
    assert main([*words, "--labels-from-folders"]) == 2
    assert "got 1 beside them, such as 'loose.png'. Try moving them, or without" in capsys.readouterr().err
    assert not (tmp_path / "f.npz").exists()
    assert main(words) == 0


# ---- the official archives ----------------------------------------------------------------------------------------


def packed(tmp_path, spec):
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
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    return replace(spec, url=path.as_uri(), md5=md5, train=train, test=test), contents


@pytest.mark.parametrize("name", list(catalog.ARCHIVE_SETS))
def test_an_archive_is_fetched_unpacked_and_read(tmp_path, monkeypatch, name):
    spec, contents = packed(tmp_path, replace(catalog.ARCHIVE_SETS[name], side=5))
    monkeypatch.setitem(catalog.ARCHIVE_SETS, name, spec)
    home = tmp_path / "home"
    data = datasets.load(name, home)
    assert not (home / spec.folder / "official.tar.gz").exists()
    first = np.frombuffer(contents[next(iter(spec.train))], np.uint8)
    offset = spec.label_bytes
    row, column, channel = 1, 3, 2  # the format's own words: planes one after the other, by rows (STL-10: by columns)
    within = column * 5 + row if name == "stl10" else row * 5 + column
    pixel = data.X_train.reshape(-1, 5, 5, 3)[0, row, column, channel]
    assert pixel == np.float32(first[offset + channel * 25 + within]) / np.float32(255)
    label = {"cifar10": first[0], "cifar100": first[1], "cifar100_coarse": first[0]}.get(name)
    if name == "stl10":
        label = np.frombuffer(contents["train_y.bin"], np.uint8)[0] - 1
    assert data.y_train[0] == label
    assert data.feature_shape == (5, 5, 3)


def test_a_damaged_file_of_an_archive_is_refused(tmp_path):
    spec, _ = packed(tmp_path, replace(catalog.ARCHIVE_SETS["cifar10"], side=5))
    folder = tmp_path / "home" / "cifar10"
    archives.fetch_archive(folder, spec)
    file = folder / "test_batch.bin"
    file.write_bytes(b"\0" + file.read_bytes()[1:])
    with pytest.raises(DataError, match="expected MD5"):
        archives.read_images(folder, spec, "test")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A data home with a made-up CIFAR-100; the published backbones are mean colors."""
    spec, _ = packed(tmp_path, replace(catalog.ARCHIVE_SETS["cifar100"], side=5))
    coarse = replace(spec, label=0, classes_file="coarse_label_names.txt")
    for name, kind in (("cifar100", spec), ("cifar100_coarse", coarse)):
        monkeypatch.setitem(catalog.ARCHIVE_SETS, name, kind)
        words = "\n".join(f"{name} {k}".replace(" ", "_") for k in range(10))
        (tmp_path / "home" / "cifar100" / kind.classes_file).write_text(words)
    for name in ("efficientnet_lite2", "resnet50"):
        monkeypatch.setitem(backbones.BACKBONES, name, identity)
    return tmp_path / "home"


@pytest.mark.parametrize("source", ["cifar100", "cifar100_coarse"])
def test_a_file_of_cifar100_holds_the_superclasses_too(home, source):
    result = features_command(source, "efficientnet_lite2", None, str(home), quiet=True)
    assert result["out"] == str(home / "features" / "cifar100_effnet_lite2.npz")
    for name in ("cifar100", "cifar100_coarse"):
        pixels, vectors = datasets.load(name, home), datasets.load(f"{name}_effnet_lite2", home)
        assert vectors.X_train.shape == (4, 3)
        np.testing.assert_array_equal(vectors.y_train, pixels.y_train)
        np.testing.assert_array_equal(vectors.y_test, pixels.y_test)
        assert vectors.classes == pixels.classes == tuple(f"{name}_{k}" for k in range(10))


def test_without_a_place_a_file_goes_where_it_is_looked_for(home, tmp_path):
    features_command("cifar100", "resnet50", None, str(home), quiet=True)
    assert datasets.load("cifar100_resnet50", home).classes[0] == "cifar100_0"
    with pytest.raises(ValueError, match="expected no file there yet"):
        features_command("cifar100", "resnet50", None, str(home), quiet=True)
    Image.fromarray(images(1)[0]).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="a folder of images.*--out"):
        features_command(str(tmp_path), "resnet50", None, str(home), quiet=True)


@pytest.mark.slow
def test_efficientnets_features_are_those_at_hand():
    """The features that the experiments use, from the official pixels: see tests/fixtures/cifar10/README.md."""
    pytest.importorskip("efficientnet_lite_pytorch")
    X = np.asarray(Image.open(FIXTURES / "images.png")).reshape(100, 32, 32, 3)
    with np.load(FIXTURES / "vectors.npz") as archive:
        expected = archive["x"] * archive["scale"] + archive["offset"]
    backbone = features.load_backbone("efficientnet_lite2")
    got = np.concatenate([backbone(X[start : start + 20]) for start in range(0, 100, 20)])
    cosine = (got * expected).sum(1) / np.linalg.norm(got, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosine.min() > 0.999
    assert backbone.weights_digest == "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
