"""`nvisa completion`: the shell offers what there is."""

import os
import subprocess
import sys

import pytest

from nvisa.commands import cli


def completed(script, words):
    """What bash offers for the last of the words."""
    lines = [
        script,
        f"COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}",
        "_shtab_nvisa nvisa; printf '%s\\n' \"${COMPREPLY[@]}\"",
    ]
    done = subprocess.run(["bash", "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_bash_completes_commands_options_and_choices(capsys):
    pytest.importorskip("shtab")
    assert cli.main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    assert {"fit", "predict", "choose-k"} <= set(completed(script, ["nvisa", "''"]))
    assert completed(script, ["nvisa", "fit", "--n-cl"]) == ["--n-clusters"]
    assert set(completed(script, ["nvisa", "fit", "--init", "''"])) == {"auto", "umap", "gmm", "random"}


def test_without_shtab_the_way_to_get_it_is_told(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert cli.main(["completion", "zsh"]) == 2
    assert 'Try pip install "nvisa[completion]"' in capsys.readouterr().err
    assert os.listdir() == []
