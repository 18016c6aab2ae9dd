"""`make test` on the Pythons that a machine has: interpreters made of shell, that write down what they are asked."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PYTHON = """#!/bin/sh
echo "{version} $*" >> {log}
case "$*" in
    *"print("*) echo {version} ;;
    "-m venv "*) mkdir -p $3/bin && cp {itself} $3/bin/python ;;
    "-m pip install"*) exit {installs} ;;
    "-m pytest "*) exit {passes} ;;
esac
"""
GONE = "#!/bin/sh\necho 'there is a shim of that name and nothing behind it' >&2; exit 127\n"
WORKS = (0, 0)
SAID = {"capture_output": True, "text": True}
FULL, QUICK = "-m pytest -n 2", "-m pytest -n 2 -m not slow"


@pytest.fixture
def make(tmp_path):
    """Run make in a folder with our Makefile; ``pythons`` are version -> exit codes of pip and pytest."""
    programs, log = tmp_path / "programs", tmp_path / "log"
    programs.mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)

    def write(name, text):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)

    def run(*words, own="3.11", pythons=None):
        for minor in range(11, 15):
            write(f"python3.{minor}", GONE)
        for version, (installs, passes) in {own: WORKS, **(pythons or {})}.items():
            itself = programs / f"python{version}"
            write(itself.name, PYTHON.format(version=version, log=log, itself=itself, installs=installs, passes=passes))
        shutil.copy(programs / f"python{own}", programs / "python3")
        environment = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(["make", *words], check=False, cwd=tmp_path, env=environment, **SAID)
        asked = [line.split(" ", 1) for line in log.read_text().splitlines()] if log.exists() else []
        return done, [(version, words) for version, words in asked if words.startswith("-m pytest")]

    return run


def test_one_interpreter_is_all_there_is(make):
    done, runs = make("test")
    assert (done.returncode, runs) == (0, [("3.11", FULL)]), done.stderr


def test_the_other_interpreters_run_the_quick_tests_after_those_of_venv(make, tmp_path):
    done, runs = make("test", own="3.12", pythons={"3.11": WORKS, "3.14": WORKS})
    assert (done.returncode, runs) == (0, [("3.12", FULL), ("3.11", QUICK), ("3.14", QUICK)]), done.stderr
    assert sorted(path.name for path in tmp_path.glob(".venv*")) == [".venv", ".venv-3.11", ".venv-3.14"]


def test_an_interpreter_without_packages_is_left_out_in_one_line(make, tmp_path):
    done, runs = make("test", pythons={"3.12": (1, 0), "3.13": WORKS})
    assert (done.returncode, runs) == (0, [("3.11", FULL), ("3.13", QUICK)]), done.stderr
    (line,) = [line for line in (done.stdout + done.stderr).splitlines() if "left out" in line]
    assert "build/python-3.12.log" in line
    assert "-m pip install" in (tmp_path / "build" / "python-3.12.log").read_text()


def test_a_failure_on_another_interpreter_is_a_failure_after_all_have_run(make):
    done, runs = make("test", pythons={"3.12": (0, 1), "3.13": WORKS})
    assert (done.returncode, runs) == (2, [("3.11", FULL), ("3.12", QUICK), ("3.13", QUICK)])


def test_a_failure_of_the_suite_in_venv_ends_it(make):
    done, runs = make("test", pythons={"3.11": (0, 1), "3.12": WORKS})
    assert (done.returncode, runs) == (2, [("3.11", FULL)])


@pytest.mark.parametrize(
    ("words", "others"),
    [
        (["INTERPRETERS="], []),
        (["INTERPRETERS=python3.13"], [("3.13", QUICK)]),
        (["ARGS=-k vimco"], []),
        (["ARGS=-k vimco", "INTERPRETERS=python3.13"], [("3.13", f"{QUICK} -k vimco")]),
    ],
)
def test_who_runs_can_be_said_and_arguments_for_pytest_mean_venv_alone(make, words, others):
    done, runs = make("test", *words, pythons={"3.12": WORKS, "3.13": WORKS})
    full = f"{FULL} -k vimco" if "ARGS=-k vimco" in words else FULL
    assert (done.returncode, runs) == (0, [("3.11", full), *others]), done.stderr


def test_an_interpreter_that_is_asked_for_and_not_there_is_a_failure(make):
    done, runs = make("test", "INTERPRETERS=python3.13 python3.12", pythons={"3.12": WORKS})
    assert (done.returncode, runs) == (2, [("3.11", FULL)])
