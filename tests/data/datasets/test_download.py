"""One file over http: resumed where it was cut, from another mirror, verified."""

import os
from urllib.error import URLError
from urllib.request import Request

import numpy as np
import pytest

from made_up import sha256
from nvisa.data import ChecksumError, DataError, DownloadError
from nvisa.data.datasets.download import _OnlyHttps, download

BODY = np.random.default_rng(0).bytes(700_000)  # more than two chunks
DIGEST = sha256(BODY)


def get(target, *servers, **settings):
    urls = [f"{server.url}{target.name}" for server in servers]
    return download(urls, target, **{"sha256": DIGEST, "insecure": True, "pause": 0.0, "timeout": 5.0} | settings)


def test_a_download_is_the_published_bytes_and_reports_progress(mirror, tmp_path):
    seen = []
    path = get(tmp_path / "a.gz", mirror({"a.gz": BODY}), progress=lambda *state: seen.append(state))
    assert path.read_bytes() == BODY
    assert os.listdir(tmp_path) == ["a.gz"]
    assert seen[-1] == ("a.gz", len(BODY), len(BODY))
    assert [done for _, done, _ in seen] == sorted({done for _, done, _ in seen})


def test_a_cut_connection_is_resumed_where_it_was_cut(mirror, tmp_path):
    server = mirror({"a.gz": BODY})
    server.cut["a.gz"] = 300_000
    assert get(tmp_path / "a.gz", server).read_bytes() == BODY
    assert server.requests == [("a.gz", None), ("a.gz", "bytes=300000-")]


def test_another_mirror_continues_what_the_first_began(mirror, tmp_path):
    first, second = mirror({"a.gz": BODY}), mirror({"a.gz": BODY})
    first.cut["a.gz"] = 300_000
    get(tmp_path / "a.gz", first, second)
    assert second.requests == [("a.gz", "bytes=300000-")]


def test_a_part_survives_a_failure_for_the_next_call(mirror, tmp_path):
    server, seen = mirror({"a.gz": BODY}), []
    server.cut["a.gz"] = 300_000
    with pytest.raises(DownloadError, match="cut after 300000 of 700000 bytes"):
        get(tmp_path / "a.gz", server, rounds=1)
    assert os.listdir(tmp_path) == ["a.gz.part"]
    get(tmp_path / "a.gz", server, rounds=1, progress=lambda _, done, total: seen.append((done, total)))
    assert server.requests[-1] == ("a.gz", "bytes=300000-")
    assert seen[0][0] > 300_000
    assert seen[-1] == (700_000, 700_000)


def test_a_server_without_ranges_starts_over(mirror, tmp_path):
    server = mirror({"a.gz": BODY})
    server.ranges, seen = False, []
    (tmp_path / "a.gz.part").write_bytes(BODY[:300_000])
    report = lambda _, done, total: seen.append((done, total))  # noqa: E731
    assert get(tmp_path / "a.gz", server, rounds=1, progress=report).read_bytes() == BODY
    assert server.requests == [("a.gz", "bytes=300000-")]
    assert seen[-1] == (700_000, 700_000)


def test_a_whole_part_needs_only_its_name(mirror, tmp_path):
    (tmp_path / "a.gz.part").write_bytes(BODY)
    assert get(tmp_path / "a.gz", mirror({"a.gz": BODY})).read_bytes() == BODY


@pytest.mark.parametrize("size", [10, 700_000, 800_000])
def test_a_rotten_part_is_thrown_away_and_fetched_anew(mirror, tmp_path, size):
    (tmp_path / "a.gz.part").write_bytes(b"?" * size)
    assert get(tmp_path / "a.gz", mirror({"a.gz": BODY})).read_bytes() == BODY


def test_the_next_mirror_helps_when_one_is_empty_lying_or_dead(mirror, tmp_path):
    empty, lying, dead, good = (
        mirror(),
        mirror({"a.gz": b"<html>log in</html>"}),
        mirror(),
        mirror({"a.gz": BODY}),
    )
    dead.shutdown()
    dead.server_close()
    assert get(tmp_path / "a.gz", empty, lying, dead, good, rounds=1).read_bytes() == BODY


def test_wrong_bytes_are_named_and_not_kept(mirror, tmp_path):
    wrong = b"<html>log in</html>"
    with pytest.raises(ChecksumError) as caught:
        get(tmp_path / "a.gz", mirror({"a.gz": wrong}))
    for part in ("a.gz", DIGEST, sha256(wrong), "by hand"):
        assert part in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_no_mirror_is_a_download_error_that_lists_them(mirror, tmp_path):
    first, second = mirror(), mirror()
    with pytest.raises(DownloadError, match="404") as caught:
        get(tmp_path / "a.gz", first, second, rounds=2)
    assert first.url in str(caught.value)
    assert second.url in str(caught.value)
    assert len(first.requests) == len(second.requests) == 2
    assert issubclass(DownloadError, DataError)


def test_a_mirror_without_https_is_asked_only_if_that_was_said(mirror, tmp_path):
    server = mirror({"a.gz": BODY})
    with pytest.raises(DownloadError, match=r"expected a mirror with https, got http://.* Try insecure=True"):
        get(tmp_path / "a.gz", server, insecure=False)
    assert server.requests == []
    assert get(tmp_path / "a.gz", server, insecure=True).read_bytes() == BODY


def test_a_mirror_with_https_does_not_lead_to_one_without():
    asked = Request("https://host/a.gz")
    lead = lambda url: _OnlyHttps().redirect_request(asked, None, 302, "Found", {}, url)  # noqa: E731
    assert lead("https://elsewhere/a.gz").full_url == "https://elsewhere/a.gz"
    with pytest.raises(URLError, match="led away from https, to http://elsewhere"):
        lead("http://elsewhere/a.gz")
