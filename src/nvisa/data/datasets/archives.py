"""CIFAR-10, CIFAR-100 and STL-10 from their official binary archives: fetched, unpacked, verified, as uint8 images."""

import hashlib
import shutil
import tarfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nvisa.data.datasets.catalog import ArchiveSet
from nvisa.data.datasets.download import Progress, download
from nvisa.data.errors import ChecksumError, DataError, describing
from nvisa.durable_files import locked, replacing_file

__all__ = ["Images", "class_names", "fetch_archive", "listing", "missing_files", "read_images", "unpack"]

Images = npt.NDArray[np.uint8]
LOCK = ".lock"  # one process at a time downloads into a folder


def missing_files(folder: Path, spec: ArchiveSet) -> list[str]:
    """The files that are not there."""
    return [name for name in (*spec.train, *spec.test) if not (folder / name).is_file()]


def fetch_archive(folder: Path, spec: ArchiveSet, progress: Progress | None = None, *, insecure: bool = False) -> None:
    """Download the archive, take out what is needed, and remove it. A cut download is continued."""
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / LOCK, wait=True):
        if not missing_files(folder, spec):  # asked again under the lock: another process may have fetched them
            return
        archive = folder / spec.mirrors[0].rsplit("/", 1)[1]
        if not _is_sound(archive, spec):
            download(spec.mirrors, archive, sha256=spec.sha256, insecure=insecure, progress=progress)
        unpack(archive, folder, spec)
        archive.unlink()


def _is_sound(archive: Path, spec: ArchiveSet) -> bool:
    """Whether the archive is there, whoever has put it there, and is the published one."""
    if not archive.is_file():
        return False
    with archive.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == spec.sha256


def unpack(archive: Path, folder: Path, spec: ArchiveSet) -> None:
    """Write the files of the archive that have a name in the catalog, flat, each whole or not at all."""
    wanted = {*spec.train, *spec.test, "fine_label_names.txt", "coarse_label_names.txt"}
    with describing(archive, "a .tar.gz", advice="Try removing it."), tarfile.open(archive, "r|gz") as members:
        for member in members:
            name = Path(member.name).name
            source = members.extractfile(member) if name in wanted and member.isfile() else None
            if source is not None:
                with source, replacing_file(folder / name) as part, part.open("wb") as file:
                    shutil.copyfileobj(source, file)


def read_images(folder: Path, spec: ArchiveSet, split: str) -> tuple[Images, npt.NDArray[np.int64]]:
    """Images [N H W 3] and labels [N] of "train" or "test", their bytes checked.

    Raises
    ------
    DataError
        If a file is missing, or not the published one (`ChecksumError`).
    """
    files = {"train": spec.train, "test": spec.test}[split]
    raw = [_verified(folder / name, md5) for name, md5 in files.items()]
    pixels = 3 * spec.side**2
    if spec.label_bytes:
        rows = np.concatenate(raw).reshape(-1, spec.label_bytes + pixels)
        labels, planes = rows[:, spec.label], rows[:, spec.label_bytes :]
    else:
        planes, labels = raw[0].reshape(-1, pixels), raw[1] - 1
    shaped = planes.reshape(-1, 3, spec.side, spec.side)
    order = (0, 3, 2, 1) if spec.column_major else (0, 2, 3, 1)
    return np.ascontiguousarray(shaped.transpose(order)), labels.astype(np.int64)


def class_names(folder: Path, spec: ArchiveSet) -> tuple[str, ...]:
    """Names of the classes; their numbers where the file of names is not there."""
    if spec.classes or spec.classes_file is None:
        return spec.classes
    path = folder / spec.classes_file
    return tuple(path.read_text().split()) if path.is_file() else ()


def listing(spec: ArchiveSet) -> str:
    """What ``md5sum`` prints for the files, train then test."""
    return "".join(f"{md5}  {name}\n" for name, md5 in {**spec.train, **spec.test}.items())


def _verified(path: Path, md5: str) -> Images:
    """The bytes of the file if they are the published ones."""
    if not path.is_file():
        raise DataError(f"{path}: expected a file of the official binary archive, got nothing. Try `nvisa data fetch`.")
    raw = np.fromfile(path, dtype=np.uint8)
    if (got := hashlib.md5(raw.data).hexdigest()) != md5:
        raise ChecksumError(f"{path}: expected MD5 {md5}, got {got}. Try removing it, then `nvisa data fetch`.")
    return raw
