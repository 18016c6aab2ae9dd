"""Files and folders that are whole or not there, whatever happens while they are written: everything is written here.

A content is written under a temporary name beside its own, brought onto the disk (fsync of the file and of its folder),
and takes its name in one step. An error or a kill before that step leaves what was there; after it the new content is
there, and what is left to do can only warn.

    .<name>.<process>-<8 hex digits>.part    being written; locked (flock) by its process as long as it is
    .<name>.<process>-<8 hex digits>.old     what a folder replaced, where the system cannot exchange two names

What a process that has died left behind is removed when the name is written again, :func:`sweep`.
"""

import ctypes
import errno
import os
import re
import shutil
import socket
import stat
import sys
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from uuid import uuid4

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "LockedError",
    "is_temporary",
    "locked",
    "put",
    "replacing_file",
    "replacing_folder",
    "sweep",
    "sweep_inside",
    "sync",
    "write_file",
]

TEMPORARY = re.compile(r"\.(?P<name>.+)\.(?:(?P<process>\d+)-)?[0-9a-f]{8}\.(?P<kind>part|old)", re.DOTALL)
LONGEST = 120  # bytes of a name that its temporary one repeats: together they stay below the system's 255
SAYS_LITTLE = {errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES}  # a folder's fsync, where there is no such thing
_writing: set[str] = set()  # temporary names of this process


class LockedError(OSError):
    """What another process is at; the message says which."""

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(f"{path}: in use by {holder}. Wait for it to end, or choose another name.")
        self.holder = holder


# ---- one file --------------------------------------------------------------------------------------------------------


def write_file(path: Path, content: bytes) -> None:
    """Put ``content`` at ``path``, all of it or nothing."""
    with replacing_file(path) as part:
        part.write_bytes(content)


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path`` that takes its place at the end; an error leaves the old one.

    Raises
    ------
    OSError
        With the name of the file, not of its temporary.
    """
    path = Path(os.path.realpath(path))  # a link stays one
    sweep(path)
    with _named(path), _temporary(path) as part:
        yield part
        put(part, path)


def put(part: Path, path: Path) -> None:
    """Give a file that is complete its name, once it is on the disk."""
    sync(part)
    os.replace(part, path)
    with _only_warning(path):
        sync(path.parent)


def sync(path: Path) -> None:
    """Return once the file, or the entries of the folder, are on the disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in SAYS_LITTLE:
            raise
    finally:
        os.close(descriptor)


@contextmanager
def _temporary(path: Path, *, is_folder: bool = False) -> Iterator[Path]:
    """A new file or folder beside ``path`` that this process locks; what is left of it at the end is removed."""
    part = _beside(path, "part")
    _writing.add(part.name)
    try:
        part.mkdir() if is_folder else part.touch(exist_ok=False)
        with suppress(OSError):  # nothing is there, or the file system knows no modes
            part.chmod(stat.S_IMODE(path.stat().st_mode) | (0o700 if is_folder else 0o600))
        with _held(part):
            yield part
    except BaseException:
        _remove(part)
        raise
    finally:
        _writing.discard(part.name)


@contextmanager
def _held(part: Path) -> Iterator[None]:
    """Lock it inside, where the system can: Windows, which cannot, gives no name to a file that is open."""
    if fcntl is None:
        yield
        return
    descriptor = os.open(part, os.O_RDONLY)
    try:
        _try_lock(descriptor)
        yield
    finally:
        os.close(descriptor)


def _beside(path: Path, kind: str) -> Path:
    """A name that nobody has, as the module's text says."""
    name = os.fsencode(path.name)[:LONGEST].decode(errors="ignore")
    return path.with_name(f".{name}.{os.getpid()}-{uuid4().hex[:8]}.{kind}")


def _remove(part: Path) -> None:
    """Remove what nobody misses; what cannot be removed now is swept later."""
    if part.is_dir() and not part.is_symlink():
        shutil.rmtree(part, ignore_errors=True)
    else:
        with suppress(OSError):
            part.unlink(missing_ok=True)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """An error of the system that names no file, or the temporary one, names this one: a full disk, for example."""
    try:
        yield
    except OSError as error:
        name = error.filename
        hidden = name is None or (isinstance(name, (str, Path)) and TEMPORARY.fullmatch(Path(name).name))
        if not hidden:
            raise
        if error.errno is None:  # numpy's "120000 requested and 51168 written"
            raise OSError(f"{path}: expected room for it, got an error: {error}. Is the disk full?") from error
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def _only_warning(path: Path) -> Iterator[None]:
    """Around what comes after the new content has its name: the save has succeeded."""
    try:
        yield
    except OSError as error:
        warnings.warn(f"{path} is written; what was to be done after that failed: {error}.", stacklevel=5)


# ---- one folder ------------------------------------------------------------------------------------------------------


@contextmanager
def replacing_folder(target: Path, files: Collection[str]) -> Iterator[Path]:
    """A new folder beside ``target`` that takes its place at the end, or vanishes after an error.

    Parameters
    ----------
    target
        A new path, or a folder.
    files
        Names in it that are ours, to be written anew. What else is in the folder moves along.
    """
    target = Path(os.path.realpath(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep(target, files)
    with _named(target):
        with _temporary(target, is_folder=True) as part:
            yield part
            for entry in part.iterdir():
                sync(entry)
            sync(part)
            before = _install(part, target)
        with _only_warning(target):
            sync(target.parent)
            if before is not None:
                _dissolve(before, target, files)


def _install(part: Path, target: Path) -> Path | None:
    """Give ``part`` the name ``target``; the name that what was there has now.

    Another process may do the same at the same time: whoever comes last is at the name, whole.
    """
    while True:
        try:
            return _exchanged(part, target)
        except FileNotFoundError:  # nothing is there
            try:
                part.rename(target)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # something has come between
                    raise
            else:
                return None


def _exchanged(part: Path, target: Path) -> Path:
    """Let both change names, in one step where the system can."""
    if _exchange(part, target):
        return part
    old = _beside(target, "old")
    target.rename(old)
    try:
        part.rename(target)
    except BaseException:
        old.rename(target)
        raise
    return old


def _exchange(one: Path, other: Path) -> bool:
    """``renameat2`` with RENAME_EXCHANGE, of Linux; False where the system or its file system has no such thing."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if sys.platform == "linux" else None
    if renameat2 is None:
        return False
    at_cwd, exchange = -100, 2
    if renameat2(at_cwd, os.fsencode(one), at_cwd, os.fsencode(other), exchange) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(other))


def _dissolve(old: Path, target: Path, files: Collection[str]) -> None:
    """Move what is not ours from a folder that was replaced, then remove it; what has no place in ``target`` stays."""
    with suppress(OSError):
        old.chmod(0o700)  # a folder that could not be written to
    with suppress(FileNotFoundError):  # another thread tidies up as well
        for entry in list(old.iterdir()):
            if entry.name in files or is_temporary(entry.name):
                _remove(entry)
            elif not os.path.lexists(target / entry.name):
                entry.rename(target / entry.name)
        old.rmdir()


# ---- leftovers -------------------------------------------------------------------------------------------------------


def is_temporary(name: str) -> bool:
    """Whether this is a name that this module makes."""
    return TEMPORARY.fullmatch(name) is not None


def sweep(path: Path, files: Collection[str] = ()) -> None:
    """Remove what processes that have died left beside ``path``; a folder that they left aside gets its name back.

    What others have in such a folder, besides ``files``, goes to ``path``. Nothing here can fail: it is tidying up.
    """
    name = os.fsencode(path.name)[:LONGEST].decode(errors="ignore")
    with suppress(OSError):
        for entry in sorted(path.parent.iterdir()):
            found = TEMPORARY.fullmatch(entry.name)
            if found is not None and found["name"] == name and _is_abandoned(entry, found["process"], found["kind"]):
                with suppress(OSError):
                    _settle(entry, path, files)


def sweep_inside(folder: Path) -> None:
    """Remove every temporary file in the folder that nobody is at any more: of a folder that is ours."""
    with suppress(OSError):
        for entry in sorted(folder.iterdir()):
            found = TEMPORARY.fullmatch(entry.name)
            if found is not None and _is_abandoned(entry, found["process"], found["kind"]):
                _remove(entry)


def _settle(entry: Path, path: Path, files: Collection[str]) -> None:
    if not entry.is_dir():
        entry.unlink()
    elif TEMPORARY.fullmatch(entry.name)["kind"] == "old" and not os.path.lexists(path):  # type: ignore[index]
        entry.rename(path)
    elif path.is_dir():
        _dissolve(entry, path, files)
    else:
        _remove(entry)  # a new folder that never got its name


def _is_abandoned(entry: Path, process: str | None, kind: str) -> bool:
    """Whether nobody is at it any more: its process is gone, and the lock with it.

    Both are asked: a process of another machine, or of another container, has a number that says nothing here.
    Without a number it is of the version before, which locked nothing: then only what was set aside is known to be so.
    """
    if entry.name in _writing or (process is None and kind == "part"):
        return False
    if process is not None and int(process) != os.getpid() and _is_alive(int(process)):
        return False
    descriptor = os.open(entry, os.O_RDONLY)
    try:
        return _try_lock(descriptor)
    finally:
        os.close(descriptor)


def _is_alive(process: int) -> bool:
    if os.name == "nt":  # where this would interrupt it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's
        return True
    return True


# ---- locks -----------------------------------------------------------------------------------------------------------


def _try_lock(descriptor: int, *, wait: bool = False) -> bool:
    """Whether the file is this process's now; True as well where the system locks nothing."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        return not isinstance(error, BlockingIOError)
    return True


@contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock file ``path``, which says who does and is gone at the end. A process that dies lets go of it.

    Parameters
    ----------
    wait
        Until it is free; else who comes second is refused.

    Raises
    ------
    LockedError
        If another process, or another thread, holds it.
    """
    descriptor = _locked_file(path, wait=wait)
    try:
        holder = f"process {os.getpid()} on {socket.gethostname()} since {datetime.now().astimezone():%Y-%m-%d %H:%M}"
        with suppress(OSError):  # a full disk does not hinder anybody
            os.ftruncate(descriptor, 0)
            os.write(descriptor, holder.encode())
        yield
    finally:
        try:
            with suppress(OSError):
                path.unlink(missing_ok=True)  # before it is let go of, so that nobody locks a file without a name
        finally:
            os.close(descriptor)


def _locked_file(path: Path, *, wait: bool) -> int:
    while True:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
        try:
            if not _try_lock(descriptor, wait=wait):
                raise LockedError(path, os.read(descriptor, 200).decode(errors="replace") or "another process")
            if _is_still(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # whoever had it has removed it: the name is another file's now


def _is_still(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
