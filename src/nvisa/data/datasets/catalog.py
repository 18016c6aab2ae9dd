"""What exists and where it is published: names, mirrors, digests, classes. Facts only, no code.

The publishers of CIFAR and STL-10 name an MD5 only. The SHA-256 of their archives are those that libraries in other
languages (Go, Julia, Ruby) state alike.
"""

from dataclasses import dataclass, replace
from typing import Literal

__all__ = [
    "ARCHIVE_SETS",
    "CIFAR10_CLASSES",
    "FEATURE_SETS",
    "IDX_SETS",
    "ArchiveSet",
    "FeatureSet",
    "IdxFile",
    "IdxSet",
]

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
class ArchiveSet:
    """Images published as one .tar.gz of binary files: mirrors and SHA-256 of it, and the MD5 of each file we need.

    An image is 3 planes of `side` x `side` bytes, by rows, or by columns if `column_major`. `label_bytes` of them
    stand before each image, of which the byte `label` counts; 0: labels are in files of their own, from 1.
    """

    mirrors: tuple[str, ...]
    sha256: str
    n_bytes: int
    folder: str
    train: dict[str, str]
    test: dict[str, str]
    n_train: int
    n_test: int
    side: int
    label_bytes: int
    label: int = 0
    column_major: bool = False
    classes: tuple[str, ...] = ()
    classes_file: str | None = None


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
        # The second mirror, the authors' own, has no https: it is asked only with --insecure.
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

STL10_CLASSES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
CIFAR = "https://www.cs.toronto.edu/~kriz/"
CIFAR100 = ArchiveSet(
    mirrors=(f"{CIFAR}cifar-100-binary.tar.gz",),
    sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
    n_bytes=168_513_733,
    folder="cifar100",
    train={"train.bin": "6172c7755cfe09b2fe270c85cebc1b15"},
    test={"test.bin": "4499cfba6c016c1be1438163640a0898"},
    n_train=50_000,
    n_test=10_000,
    side=32,
    label_bytes=2,  # superclass, class
    label=1,
    classes_file="fine_label_names.txt",
)

ARCHIVE_SETS: dict[str, ArchiveSet] = {
    "cifar10": ArchiveSet(
        mirrors=(f"{CIFAR}cifar-10-binary.tar.gz",),
        sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        n_bytes=170_052_171,
        folder="cifar10",
        train={
            "data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
            "data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
            "data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
            "data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
            "data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
        },
        test={"test_batch.bin": "803d5f7f4d78ea53de84dbe85f74fb6d"},
        n_train=50_000,
        n_test=10_000,
        side=32,
        label_bytes=1,
        classes=CIFAR10_CLASSES,
    ),
    "cifar100": CIFAR100,
    "cifar100_coarse": replace(CIFAR100, label=0, classes_file="coarse_label_names.txt"),
    "stl10": ArchiveSet(
        mirrors=(
            "https://cs.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",
            "http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",  # the authors' page names this one
        ),
        sha256="f31fd99273a1acb8609c8db427cebb1de3f71de77758cdc0e22956e1289b9866",
        n_bytes=2_640_397_119,
        folder="stl10",
        train={
            "train_X.bin": "918c2871b30a85fa023e0c44e0bee87f",
            "train_y.bin": "5a34089d4802c674881badbb80307741",
        },
        test={
            "test_X.bin": "7f263ba9f9e0b06b93213547f721ac82",
            "test_y.bin": "36f9794fa4beb8a2c72628de14fa638e",
        },
        n_train=5_000,
        n_test=8_000,
        side=96,
        label_bytes=0,
        column_major=True,
        classes=STL10_CLASSES,
    ),
}

FEATURE_SETS: dict[str, FeatureSet] = {
    "cifar10_effnet_lite2": FeatureSet("cifar10_effnet_lite2.npz", 50_000, 10_000, classes=CIFAR10_CLASSES),
    "cifar100_effnet_lite2": FeatureSet("cifar100_effnet_lite2.npz", 50_000, 10_000, names_key="fine_names"),
    "cifar100_coarse_effnet_lite2": FeatureSet(
        "cifar100_effnet_lite2.npz", 50_000, 10_000, labels="coarse", names_key="coarse_names"
    ),
    "imagenette_effnet_lite2": FeatureSet("imagenette_effnet_lite2.npz", 9_469, 3_925),
}
