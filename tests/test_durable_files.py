"""A file or a folder is the old one or the new one, whatever happens on the way; leftovers go, and locks say who."""

import errno
import multiprocessing
import os
import re
import stat
import sys
from pathlib import Path

import pytest

from nvisa import durable_files
from nvisa.durable_files import LockedError, locked, replacing_file, replacing_folder, sweep, write_file

DEAD = 4194304  # no process has this number: Linux counts to one below
FILES = ("a", "b")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def put_folder(target, text, files=FILES):
    with replacing_folder(target, files) as part:
        for name in files:
            (part / name).write_text(text)


# ---- files -----------------------------------------------------------------------------------------------------------


def test_a_file_is_written_and_nothing_else_is_left(tmp_path):
    write_file(tmp_path / "x.json", b"1")
    write_file(tmp_path / "x.json", b"2")
    assert contents(tmp_path) == {"x.json": "2"}


@pytest.mark.parametrize("step", ["sync", "os.replace"])
def test_an_error_before_the_name_is_given_leaves_the_old_file(tmp_path, monkeypatch, step):
    write_file(tmp_path / "x", b"old")

    def failing(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(f"nvisa.durable_files.{step}", failing)
    with pytest.raises(OSError, match=r"Input/output error: '.*/x'$"):
        write_file(tmp_path / "x", b"new")
    assert contents(tmp_path) == {"x": "old"}


def test_an_error_of_the_caller_is_the_callers(tmp_path):
    with pytest.raises(ZeroDivisionError), replacing_file(tmp_path / "x"):
        raise ZeroDivisionError
    with pytest.raises(FileNotFoundError, match="'elsewhere'"), replacing_file(tmp_path / "x"):
        raise FileNotFoundError(errno.ENOENT, "No such file", "elsewhere")
    assert names(tmp_path) == []


def test_what_fails_after_the_name_is_given_is_a_warning(tmp_path, monkeypatch):
    def sync(path, original=durable_files.sync):
        if path.is_dir():
            raise OSError(errno.EIO, "Input/output error")
        original(path)

    monkeypatch.setattr(durable_files, "sync", sync)
    with pytest.warns(UserWarning, match="x is written; what was to be done after that failed"):
        write_file(tmp_path / "x", b"new")
    assert contents(tmp_path) == {"x": "new"}


@pytest.mark.skipif(sys.platform != "linux", reason="/proc names the file of a descriptor")
def test_everything_is_on_the_disk_before_the_name_and_the_name_after(tmp_path, monkeypatch):
    steps = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda d: (steps.append(os.readlink(f"/proc/self/fd/{d}")), fsync(d)))
    monkeypatch.setattr(os, "replace", lambda a, b: (steps.append("replace"), replace(a, b)))
    write_file(tmp_path / "x", b"new")
    part, middle, folder = steps
    assert durable_files.is_temporary(os.path.basename(part))
    assert (middle, folder) == ("replace", str(tmp_path))


def test_a_link_stays_one(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "x").symlink_to(tmp_path / "there" / "y")
    write_file(tmp_path / "x", b"1")
    assert (tmp_path / "x").is_symlink()
    assert contents(tmp_path / "there") == {"y": "1"}


def test_a_name_may_be_as_long_as_the_system_allows(tmp_path):
    for name in ("x" * 255, "ü" * 127):
        write_file(tmp_path / name, b"1")
        (tmp_path / durable_files._beside(tmp_path / name, "part").name).write_text("of a killed process")
        os.rename(next(p for p in tmp_path.iterdir() if p.name.startswith(".")), tmp_path / renamed(name))
        write_file(tmp_path / name, b"2")
    assert contents(tmp_path) == {"x" * 255: "2", "ü" * 127: "2"}


def renamed(name):
    """Its temporary name, of a process that is dead."""
    return durable_files._beside(durable_files.Path(name), "part").name.replace(f".{os.getpid()}-", f".{DEAD}-")


# ---- folders ---------------------------------------------------------------------------------------------------------


@pytest.fixture(params=[True, False], ids=["exchange", "two renames"])
def system(request, monkeypatch):
    """With renameat2, and without."""
    if not request.param:
        monkeypatch.setattr(durable_files, "_exchange", lambda *_: False if os.path.lexists(_[1]) else missing(_[1]))
    return request.param


def missing(path):
    raise FileNotFoundError(errno.ENOENT, "", str(path))


def test_a_folder_is_replaced_whole_and_what_is_not_ours_moves_along(tmp_path, system):
    target = tmp_path / "m"
    put_folder(target, "old")
    (target / "labels.csv").write_text("mine")
    (target / "more").mkdir()
    (target / "more" / "x").write_text("mine")
    put_folder(target, "new")
    assert names(tmp_path) == ["m"]
    assert names(target) == ["a", "b", "labels.csv", "more"]
    assert (target / "a").read_text() == (target / "b").read_text() == "new"
    assert contents(target / "more") == {"x": "mine"}


def test_an_empty_folder_is_replaced_and_one_that_cannot_be_written_to_leaves_nothing(tmp_path, system):
    (tmp_path / "m").mkdir()
    put_folder(tmp_path / "m", "new")
    (tmp_path / "m").chmod(0o555)
    put_folder(tmp_path / "m", "newer")
    assert names(tmp_path) == ["m"]
    assert contents(tmp_path / "m") == {"a": "newer", "b": "newer"}


def test_a_second_rename_that_fails_puts_the_first_back(tmp_path, monkeypatch):
    monkeypatch.setattr(durable_files, "_exchange", lambda *_: False)
    put_folder_without_exchange = durable_files.Path.rename
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "a").write_text("old")

    def rename(path, to):
        if path.name.endswith(".part"):
            raise OSError(errno.EIO, "Input/output error")
        return put_folder_without_exchange(path, to)

    monkeypatch.setattr(durable_files.Path, "rename", rename)
    with pytest.raises(OSError, match="Input/output"):
        put_folder(tmp_path / "m", "new")
    assert names(tmp_path) == ["m"]
    assert contents(tmp_path / "m") == {"a": "old"}


def test_another_process_that_puts_a_folder_there_first_is_replaced(tmp_path, monkeypatch):
    exchange, calls = durable_files._exchange, []

    def late(one, other):
        if not calls:
            calls.append(1)
            other.mkdir()
            (other / "a").write_text("of another")
            missing(other)
        return exchange(one, other)

    monkeypatch.setattr(durable_files, "_exchange", late)
    put_folder(tmp_path / "m", "mine")
    assert names(tmp_path) == ["m"]
    assert contents(tmp_path / "m") == {"a": "mine", "b": "mine"}


# ---- leftovers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "after"),
    [
        (f".x.{DEAD}-0123abcd.part", None),
        (f".x.{os.getppid()}-0123abcd.part", "stays"),  # of a process that lives
        (f".y.{DEAD}-0123abcd.part", "stays"),  # of another file
        (f"x.{DEAD}-0123abcd.part", "stays"),
        (".x.0123abcd.part", "stays"),  # of the version before, which may be at it
        (".x.mine.part", "stays"),
    ],
)
def test_only_what_a_dead_process_left_of_this_file_is_swept(tmp_path, left, after):
    (tmp_path / left).write_text("")
    write_file(tmp_path / "x", b"1")
    assert (left in names(tmp_path)) == (after == "stays")


def test_what_this_process_left_is_swept_and_what_it_is_at_is_not(tmp_path):
    """A container gives the same number to the process after a kill."""
    (tmp_path / f".x.{os.getpid()}-0123abcd.part").write_text("")
    with replacing_file(tmp_path / "x") as part:
        assert names(tmp_path) == [part.name]
        sweep(tmp_path / "x")
        part.write_text("1")
    assert names(tmp_path) == ["x"]


def test_what_is_locked_is_not_swept_though_its_process_has_no_number_here(tmp_path):
    """A process of another container, on the same disk."""
    left = tmp_path / f".x.{DEAD}-0123abcd.part"
    left.write_text("")
    with left.open() as file:
        durable_files._try_lock(file.fileno())
        sweep(tmp_path / "x")
        assert left.exists()
    sweep(tmp_path / "x")
    assert not left.exists()


@pytest.mark.parametrize("kind", ["part", "old"])
def test_files_of_the_user_in_a_folder_that_a_kill_left_come_back(tmp_path, kind):
    put_folder(tmp_path / "m", "new")
    left = tmp_path / f".m.{DEAD}-0123abcd.{kind}"
    put_folder(left, "old")
    (left / "labels.csv").write_text("mine")
    put_folder(tmp_path / "m", "newer")
    assert names(tmp_path) == ["m"]
    assert contents(tmp_path / "m") == {"a": "newer", "b": "newer", "labels.csv": "mine"}


def test_a_folder_set_aside_gets_its_name_back_and_one_that_never_had_it_goes(tmp_path):
    put_folder(tmp_path / f".m.{DEAD}-0123abcd.old", "old")
    put_folder(tmp_path / f".n.{DEAD}-0123abcd.part", "half")
    for name in ("m", "n"):
        sweep(tmp_path / name, FILES)
    assert names(tmp_path) == ["m"]
    assert contents(tmp_path / "m") == {"a": "old", "b": "old"}


# ---- locks -----------------------------------------------------------------------------------------------------------


def hold(path, held, release):
    with locked(path):
        held.set()
        release.wait(30)


FORKING = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # Python 3.12 and later


@FORKING
def test_who_comes_second_is_told_who_is_there_and_may_wait(tmp_path):
    context = multiprocessing.get_context("fork")
    held, release = context.Event(), context.Event()
    process = context.Process(target=hold, args=(tmp_path / ".lock", held, release))
    process.start()
    assert held.wait(30)
    with (
        pytest.raises(LockedError, match=f"in use by process {process.pid} on .* since 20"),
        locked(tmp_path / ".lock"),
    ):
        pass
    release.set()
    with locked(tmp_path / ".lock", wait=True):
        pass
    process.join()
    assert names(tmp_path) == []


@FORKING
def test_a_lock_is_let_go_of_by_a_process_that_dies(tmp_path):
    context = multiprocessing.get_context("fork")
    held, release = context.Event(), context.Event()
    process = context.Process(target=hold, args=(tmp_path / ".lock", held, release))
    process.start()
    assert held.wait(30)
    process.kill()
    process.join()
    assert names(tmp_path) == [".lock"]
    with locked(tmp_path / ".lock"):
        pass
    assert names(tmp_path) == []


@pytest.mark.skipif(os.name == "nt", reason="modes")
def test_what_nobody_else_may_read_stays_so(tmp_path):
    (tmp_path / "x").write_text("old")
    (tmp_path / "m").mkdir()
    for name, mode in (("x", 0o600), ("m", 0o700)):
        (tmp_path / name).chmod(mode)
    durable_files.write_file(tmp_path / "x", b"new")
    with durable_files.replacing_folder(tmp_path / "m", ["a"]) as part:
        (part / "a").write_text("new")
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("x", "m")] == [0o600, 0o700]


def test_an_error_that_names_neither_file_nor_reason_gets_the_file(tmp_path):
    """NumPy's, of a full disk."""
    told = "x.npy: expected room for it.*120000 requested and 51168 written"
    with pytest.raises(OSError, match=told), durable_files.replacing_file(tmp_path / "x.npy"):
        raise OSError("120000 requested and 51168 written")


# ---- everything else uses it -----------------------------------------------------------------------------------------

WRITERS = re.compile(
    r"\.write_(text|bytes)\(|\.open\(\s*[\"'](?!rb?[\"'])|\bopen\([^)]*,\s*[\"'][wax]|os\.(rename|replace)\(|\.rename\("
    r"|np\.save\w*\(|\.to_(csv|parquet)\(|savefig\(|(?<!safetensors\.)torch\.save\("
)


@pytest.mark.parametrize("path", sorted(Path(durable_files.__file__).parent.rglob("*.py")), ids=lambda path: path.name)
def test_nothing_of_ours_writes_past_it(path):
    """A new writer has to be a temporary file's, a buffer in memory, or a download's part."""
    if path.name in ("durable_files.py", "download.py"):
        return
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines):
        if WRITERS.search(line) and not line.strip().startswith(("#", ">>>", "f", '"')):
            near = "\n".join(lines[max(0, number - 8) : number + 1])
            assert re.search(r"replacing_(file|folder)\(|io\.BytesIO\(\)", near), f"{path.name}:{number + 1}: {line}"
