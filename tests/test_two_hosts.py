"""Two hosts on one machine: network namespaces joined by a cable, a torchrun on each, one fit."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

import nvisa

ADDRESSES = ("10.77.24.1", "10.77.24.2")


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@pytest.fixture
def hosts():
    """Names of two namespaces that reach each other, and nothing else."""
    if shutil.which("ip") is None:
        pytest.skip("ip (iproute2) is not installed")
    names = [f"nvisa{os.getpid()}{end}" for end in "ab"]
    ends = [f"nv{os.getpid() % 100_000}{end}" for end in "ab"]
    try:
        try:
            for name in names:
                ip("netns", "add", name)
            ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
            for name, end, address in zip(names, ends, ADDRESSES, strict=True):
                ip("link", "set", end, "netns", name)
                ip("-n", name, "addr", "add", f"{address}/24", "dev", end)
                for device in (end, "lo"):
                    ip("-n", name, "link", "set", device, "up")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces are forbidden here: {error.stderr.strip()}")
        yield list(zip(names, ends, strict=True))
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


@pytest.mark.slow
def test_one_fit_on_two_hosts(hosts, tmp_path):
    rng = np.random.RandomState(0)
    np.save(tmp_path / "x.npy", (rng.randn(90, 4) + 5 * np.eye(3, 4)[np.arange(90) % 3]).astype(np.float32))
    words = ["fit", "x.npy", "--n-clusters", "3", "--out", "m", "--init", "random", "--epochs", "2"]
    running = []
    for number, (name, end) in enumerate(hosts):
        launch = ["--nnodes=2", f"--node-rank={number}", "--nproc-per-node=1", f"--master-addr={ADDRESSES[0]}"]
        command = [sys.executable, "-m", "torch.distributed.run", *launch, "--master-port=29571", "-m", "nvisa", *words]
        here = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": end}
        running.append(
            subprocess.Popen(
                ["ip", "netns", "exec", name, *command],
                cwd=tmp_path,
                env=here,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )  # fmt: skip
        )
    told = [process.communicate(timeout=400) for process in running]
    assert [process.returncode for process in running] == [0, 0], told[0][1] + told[1][1]
    assert ["saved in m" in out for out, _ in told] == [True, False]
    assert len(nvisa.load(tmp_path / "m").labels_) == 90
