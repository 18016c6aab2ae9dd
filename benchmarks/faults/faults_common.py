"""What the fault scripts share: small fits, children of a fork that may die, and where the counts go."""

import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nvisa.benchmark.run import processor, source_commit
from nvisa.durable_files import write_file

HERE = Path(__file__).parent
RECORDS = HERE.parent / "records" / "faults"
LIBRARY = "NVISA_FAULTS"  # in the environment: the compiled faults.c
MODES = ("nothing", "kill before", "kill after", "kill within", "full disk", "broken disk")

warnings.simplefilter("ignore")


def rows() -> np.ndarray:
    """Three blobs [60 4]."""
    rng = np.random.RandomState(0)
    return np.concatenate([rng.randn(20, 4) + 4 * k for k in range(3)]).astype(np.float32)


def with_faults() -> ctypes.CDLL:
    """The library of faults.c, before libc: this script is started again with it."""
    if LIBRARY not in os.environ:
        path = Path(tempfile.mkdtemp(prefix="faults_")) / "faults.so"
        subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", path, HERE / "faults.c", "-ldl"], check=True)
        os.environ |= {LIBRARY: str(path), "LD_PRELOAD": str(path), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        os.execv(sys.executable, [sys.executable, *sys.argv])
    return ctypes.CDLL(os.environ[LIBRARY])


def in_child(function: Callable[[], Any]) -> tuple[str, Any]:
    """("killed", None), ("error", text) or ("done", what the function returns) in a child of a fork."""
    to_read, to_write = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(to_read)
        try:
            answer = ["done", function()]
        except BaseException as error:
            answer = ["error", f"{type(error).__name__}: {error}"]
        with os.fdopen(to_write, "w") as file:
            file.write(json.dumps(answer, default=str))
        os._exit(0)
    os.close(to_write)
    with os.fdopen(to_read) as file:
        text = file.read()
    os.waitpid(process, 0)
    return tuple(json.loads(text)) if text else ("killed", None)


def listing(folder: Path) -> list[str]:
    """Every name below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def fresh(folder: Path, template: Path) -> Path:
    """A copy of the template in place of the folder."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(template, folder)
    return folder


def keep_record(name: str, counts: dict[str, Any], cpu_seconds: float) -> None:
    """Write the counts, with what they were counted on."""
    record = {
        "kind": f"faults, {name}",
        "command": f"python benchmarks/faults/{name}.py",
        "commit": source_commit(),
        "cpu": processor(),
        "cpu_seconds": round(cpu_seconds),
        **counts,
    }
    RECORDS.mkdir(parents=True, exist_ok=True)
    write_file(RECORDS / f"{name}.json", (json.dumps(record, indent=1) + "\n").encode())


def cpu() -> float:
    """Seconds of this process and of its children."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def say(text: str) -> None:
    """A line, now."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)
