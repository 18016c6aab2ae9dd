"""What exists and where it is published: names, mirrors, digests, classes. Facts only, no code."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["CIFAR10_CLASSES", "FEATURE_SETS", "IDX_SETS", "FeatureSet", "IdxFile", "IdxSet"]

Role = Literal["X_train", "y_train", "X_test", "y_test"]


@dataclass(frozen=True)
class IdxFile:
    """One published file: its name without `.gz`, and the SHA-256 of the packed and the unpacked bytes."""

    role: Role
    name: str
    n_bytes: int
    gz_sha256: str
    raw_sha256: str


@dataclass(frozen=True)
class IdxSet:
    """A data set published as four gzipped IDX files; every mirror is a folder address ending in `/`."""

    mirrors: tuple[str, ...]
    files: tuple[IdxFile, ...]
    classes: tuple[str, ...]
    n_train: int = 60_000
    n_test: int = 10_000


@dataclass(frozen=True)
class FeatureSet:
    """A feature file built from images by a pretrained backbone. `labels` is "y" or another prefix."""

    file: str
    n_train: int
    n_test: int
    labels: str = "y"
    names_key: str = "names"
    classes: tuple[str, ...] = ()


IDX_SETS: dict[str, IdxSet] = {
    "mnist": IdxSet(
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        files=(
            IdxFile(
                "X_train",
                "train-images-idx3-ubyte",
                9_912_422,
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            ),
            IdxFile(
                "y_train",
                "train-labels-idx1-ubyte",
                28_881,
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            ),
            IdxFile(
                "X_test",
                "t10k-images-idx3-ubyte",
                1_648_877,
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            ),
            IdxFile(
                "y_test",
                "t10k-labels-idx1-ubyte",
                4_542,
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
                "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            ),
        ),
        classes=tuple("0123456789"),
    ),
    "fashion_mnist": IdxSet(
        # The second mirror, the authors' own, has no https: the SHA-256 is what guards it.
        mirrors=(
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        ),
        files=(
            IdxFile(
                "X_train",
                "train-images-idx3-ubyte",
                26_421_880,
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            ),
            IdxFile(
                "y_train",
                "train-labels-idx1-ubyte",
                29_515,
                "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            ),
            IdxFile(
                "X_test",
                "t10k-images-idx3-ubyte",
                4_422_102,
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            ),
            IdxFile(
                "y_test",
                "t10k-labels-idx1-ubyte",
                5_148,
                "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
                "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            ),
        ),
        classes=(
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
    ),
}

CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)

FEATURE_SETS: dict[str, FeatureSet] = {
    "cifar10_effnet_lite2": FeatureSet("cifar10_effnet_lite2.npz", 50_000, 10_000, classes=CIFAR10_CLASSES),
    "cifar100_effnet_lite2": FeatureSet("cifar100_effnet_lite2.npz", 50_000, 10_000, names_key="fine_names"),
    "cifar100_coarse_effnet_lite2": FeatureSet(
        "cifar100_effnet_lite2.npz", 50_000, 10_000, labels="coarse", names_key="coarse_names"
    ),
    "imagenette_effnet_lite2": FeatureSet("imagenette_effnet_lite2.npz", 9_469, 3_925),
}
