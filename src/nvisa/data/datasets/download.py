"""One file over https: several mirrors, resumed where it was cut, verified before it gets its name."""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from nvisa.data.errors import ChecksumError, DownloadError
from nvisa.durable_files import put

__all__ = ["Progress", "download"]

Progress = Callable[[str, int, int | None], None]
"""Called as (file name, bytes here, bytes in all or None)."""

CHUNK = 1 << 18
# Not all of OSError: a full disk must not be taken for a bad mirror.
NETWORK_ERRORS = (URLError, HTTPException, ConnectionError, TimeoutError)


def download(
    urls: Sequence[str],
    target: Path,
    *,
    sha256: str,
    insecure: bool = False,
    progress: Progress | None = None,
    rounds: int = 3,
    pause: float = 1.0,
    timeout: float = 30.0,
) -> Path:
    """Fetch `target` from the first of `urls` that gives the right bytes.

    Bytes gather in `target` + ".part", which survives a failure and is continued next time, by the same
    mirror or another. `target` itself appears only when its digest is right; a part with a wrong one is
    removed.

    Parameters
    ----------
    urls : sequence of str
        Mirrors of one file, tried in order, `rounds` times over, `pause` seconds between rounds.
    sha256 : str
        Digest of the file as published.
    insecure : bool
        Take mirrors without https too, and follow them there: who stands between sees what is fetched, and can stop it.
        Its digest guards the file in any case.
    progress : callable, optional
        Called as progress(file name, bytes here, bytes in all or None).

    Raises
    ------
    ChecksumError
        If what the last answering mirror gave has another digest.
    DownloadError
        If no mirror gave a whole file.
    """
    part = target.with_name(target.name + ".part")
    if not (allowed := [url for url in urls if insecure or url.startswith("https://")]):
        raise DownloadError(
            f"{target}: expected a mirror with https, got {', '.join(urls)}.",
            "Try {insecure}; the file's SHA-256 guards it all the same.",
            insecure=True,
        )
    failures: list[Exception] = []
    for url in _in_rounds(allowed, rounds, pause):
        try:
            _continue(url, part, insecure=insecure, progress=progress, timeout=timeout)
            _check(part, url, sha256)
        except NETWORK_ERRORS as error:
            failures.append(DownloadError(f"{url}: {error}"))
        except ChecksumError as error:
            failures.append(error)
        else:
            put(part, target)
            return target
    raise _verdict(target, failures)


def _in_rounds(urls: Sequence[str], rounds: int, pause: float) -> Iterator[str]:
    for n in range(rounds):
        if n:
            time.sleep(pause)
        yield from urls


class _OnlyHttps(HTTPRedirectHandler):
    """Refuses to be led from https to a place without."""

    def redirect_request(self, *args: Any) -> Request | None:
        new = super().redirect_request(*args)
        if new is not None and not new.full_url.startswith("https://"):
            raise URLError(f"led away from https, to {new.full_url}")
        return new


def _continue(url: str, part: Path, *, insecure: bool, progress: Progress | None, timeout: float) -> None:
    """Append to `part` what it lacks."""
    done = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "nvisa"} | ({"Range": f"bytes={done}-"} if done else {})
    try:
        opener = build_opener() if insecure else build_opener(_OnlyHttps)
        response = opener.open(Request(url, headers=headers), timeout=timeout)
    except HTTPError as error:
        error.close()
        if error.code == 416:  # nothing beyond `done`: the part is whole or wrong, the digest decides
            return
        raise
    with response:
        resumed = response.status == 206
        done = done if resumed else 0
        total = None if response.length is None else done + response.length
        with part.open("ab" if resumed else "wb") as file:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                done += len(chunk)
                if progress is not None:
                    progress(part.name.removesuffix(".part"), done, total)
    # read(n) ends quietly when the peer hangs up.
    if total is not None and done < total:
        raise ConnectionError(f"connection cut after {done} of {total} bytes")


def _check(part: Path, url: str, expected: str) -> None:
    """Remove `part` and complain if it is not the published file."""
    with part.open("rb") as file:
        got = hashlib.file_digest(file, "sha256").hexdigest()
    if got != expected:
        n_bytes = part.stat().st_size
        part.unlink()
        raise ChecksumError(f"{url}: expected SHA-256 {expected}, got {got} ({n_bytes} bytes)")


def _verdict(target: Path, failures: Sequence[Exception]) -> Exception:
    reasons = "\n  ".join(dict.fromkeys(str(failure) for failure in failures))
    if any(isinstance(failure, ChecksumError) for failure in failures):
        return ChecksumError(
            f"{target}: expected the published file, got other bytes, which were removed:\n  {reasons}\n"
            "A proxy or login page may stand between; try another network, or copy the file there by hand."
        )
    return DownloadError(
        f"{target}: expected a download, got no whole file from any mirror:\n  {reasons}\n"
        "Try again (it continues where it stopped), or copy the file there by hand, or set NVISA_DATA_HOME "
        "to a folder that has it."
    )
