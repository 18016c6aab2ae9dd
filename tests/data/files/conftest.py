"""Every test of files has an empty folder of its own."""

import pytest


@pytest.fixture(autouse=True)
def _clean_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
