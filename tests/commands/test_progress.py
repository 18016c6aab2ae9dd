"""Downloads, a plain line every tenth."""

import io

from nvisa.commands.progress import DownloadProgress


def test_a_download_gets_a_line_every_tenth():
    out = io.StringIO()
    progress = DownloadProgress(out)
    for here in range(0, 1001, 10):
        progress("a.gz", here * 1000, 1_000_000)
    progress("b.gz", 5_000_000, None)
    lines = out.getvalue().splitlines()
    assert len(lines) == 12
    assert lines[-2:] == ["a.gz: 1.0 of 1.0 MB", "b.gz: 5.0 MB"]
