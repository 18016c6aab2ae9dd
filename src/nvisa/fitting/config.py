"""How a fit uses the machine: threads of one process, processes for restarts side by side, the type of its products.

None belongs to the model: the same settings make it on every machine, so they are no settings of a constructor but of
the calls inside ``with nvisa.config(...)``, as scikit-learn's ``config_context`` has it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, TypeVar

import joblib
import torch
from joblib.parallel import get_active_backend
from threadpoolctl import threadpool_limits

from nvisa.maths.products import PRECISION, PRECISIONS
from nvisa.settings import SettingError

__all__ = ["config", "in_processes", "n_jobs_for", "on_cluster"]

Result = TypeVar("Result")
_N_JOBS: ContextVar[int | None] = ContextVar("n_jobs", default=None)


@contextmanager
def config(*, n_threads: int | None = None, n_jobs: int | None = None, precision: str | None = None) -> Iterator[None]:
    """Use this many threads, this many processes for the restarts of a fit, and this precision inside ``with``.

    Parameters
    ----------
    n_threads
        Threads of torch, of NumPy's and SciPy's products, and of OpenMP. None leaves them as they are.
    n_jobs
        Restarts (``n_restarts``) that run at once, each in a process with one thread; -1: one for each core. The
        result is bit for bit that of one after the other with ``n_threads=1``. A callback and the progress bar are
        handed a restart's epochs when it is done. None leaves it as it is, at first what joblib says: one after the
        other in this process, but all that a cluster has inside ``joblib.parallel_config("dask" or "ray", n_jobs=-1)``.
    precision
        Of the factors of a fit's matrix products (:mod:`nvisa.maths.products`): "float32"; "bfloat16"; or "auto", the
        latter on devices that multiply it faster (AVX512_BF16, AMX, CUDA), the former elsewhere. Sums, densities,
        parameters and every prediction are float32 in any case. None leaves it as it is: "auto".

    Raises
    ------
    ValueError
        On numbers that name no threads or processes, or an unknown precision.

    Examples
    --------
    >>> import nvisa
    >>> with nvisa.config(n_threads=1):
    ...     labels = nvisa.NVISA(2, init="random", random_state=0).fit_predict([[0.0], [0.1], [9.0], [9.1]])
    """
    for name, value in {"n_threads": n_threads, "n_jobs": n_jobs}.items():
        if value is not None and value < 1 and not (name == "n_jobs" and value == -1):
            raise SettingError(name, f"at least 1{' or -1' if name == 'n_jobs' else ''}", value)
    if precision is not None and precision not in PRECISIONS:
        raise SettingError("precision", f"one of {', '.join(map(repr, PRECISIONS))}", precision)
    before, token = torch.get_num_threads(), _N_JOBS.set(_N_JOBS.get() if n_jobs is None else n_jobs)
    precise = PRECISION.set(PRECISION.get() if precision is None else precision)
    try:
        with threadpool_limits(n_threads):  # None limits nothing
            if n_threads is not None:
                torch.set_num_threads(n_threads)
            yield
    finally:
        torch.set_num_threads(before)
        _N_JOBS.reset(token)
        PRECISION.reset(precise)


def in_processes(function: Callable[..., Result], calls: Sequence[tuple[Any, ...]], n_jobs: int) -> Iterator[Result]:
    """``function(*call)`` of every call, in their order, each in a process with one thread, ``n_jobs`` at once.

    The processes are those of the cluster that joblib was told to use, else of this machine.
    """
    with nullcontext() if on_cluster() else joblib.parallel_config("loky", inner_max_num_threads=1):
        one_by_one = get_active_backend()[0].supports_return_generator
        work = joblib.Parallel(n_jobs, return_as="generator" if one_by_one else "list")
        yield from work(joblib.delayed(_on_one_thread)(function, call, PRECISION.get()) for call in calls)


def on_cluster() -> bool:
    """Whether ``joblib.parallel_config(backend=...)`` names processes that joblib does not start itself: Dask's, Ray's.

    Examples
    --------
    >>> on_cluster()
    False
    """
    return type(get_active_backend()[0]).__module__ != "joblib._parallel_backends"


def n_jobs_for(n_calls: int) -> int:
    """How many processes ``config(n_jobs=...)`` grants to this many calls; 1: none besides this one."""
    return min(joblib.effective_n_jobs(_N_JOBS.get()), n_calls)


def _on_one_thread(function: Callable[..., Result], call: tuple[Any, ...], precision: str) -> Result:
    with config(n_threads=1, n_jobs=1, precision=precision):
        return function(*call)
