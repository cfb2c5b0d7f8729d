"""Threads: Python threads over kernels that release the GIL, with BLAS held to one thread while they run."""

from __future__ import annotations

import math
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import TracebackType
from typing import Any

import threadpoolctl
from threadpoolctl import ThreadpoolController

CGROUP = Path("/sys/fs/cgroup")


def available_cpus() -> int:
    """Processors that this process may use: its affinity mask and its cgroup's quota respected."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_quota(CGROUP)
    return cpus if math.isinf(quota) else max(1, min(cpus, math.ceil(quota)))


def cgroup_quota(root: Path) -> float:
    """Processors' time that the cgroup (version 2, or 1) may use in the time; infinite where nothing limits it."""
    try:
        quota, period = (root / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota, period = ((root / "cpu" / f"cpu.cfs_{what}_us").read_text().strip() for what in ("quota", "period"))
        except OSError:
            return math.inf
    limited = quota != "max" and int(quota) > 0 and int(period) > 0
    return int(quota) / int(period) if limited else math.inf


class _BlasCap:
    """One thread for every BLAS in the process, while anybody holds it.

    The setting is the process's, and fits may run side by side: the first to enter caps, the last to leave restores.
    """

    def __init__(self) -> None:
        self._looked_at = -1
        self._forget()

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._holders = 0
        self._limits: Any = None

    def _after_fork(self) -> None:
        # The child has only the thread that forked; what other threads held is gone, the cap they had set is not.
        if self._limits is not None:
            self._limits.restore_original_limits()
        self._forget()

    def known_libraries(self) -> ThreadpoolController:
        """The libraries in the process, looked up again after imports: one may have come with them.

        Looking takes two milliseconds, many times what a small system takes to solve.
        """
        if self._looked_at != len(sys.modules):
            self._libraries, self._looked_at = ThreadpoolController(), len(sys.modules)
        return self._libraries

    def __enter__(self) -> None:
        with self._lock:
            if self._holders == 0:
                _let_any_thread_set_limits()
                self._limits = self.known_libraries().limit(limits=1, user_api="blas")
                _let_any_thread_set_limits()
            self._holders += 1

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            self._holders -= 1
            if self._holders == 0:
                _let_any_thread_set_limits()
                self._limits.restore_original_limits()
                _let_any_thread_set_limits()
                self._limits = None


def _let_any_thread_set_limits() -> None:
    """threadpoolctl (3.7 and later) ignores all threads but the first that set OpenBLAS's limit, until told otherwise.

    The cap is set by whichever thread comes first and given back by whichever leaves last.
    """
    controller: Any = getattr(threadpoolctl, "OpenBLASController", None)
    if hasattr(controller, "clear_controlling_thread"):
        controller.clear_controlling_thread(force=True)


_blas_cap = _BlasCap()


def _cap_this_thread() -> None:
    """A BLAS built on OpenMP is limited thread by thread."""
    _blas_cap.known_libraries().select(threading_layer="openmp").limit(limits=1, user_api="blas")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_blas_cap._after_fork)


class Workers:
    """A context in which functions of a task number run on ``n_threads`` threads.

    Which thread runs which task is left to chance; callers write each task's result to a place of its own.
    """

    def __init__(self, n_threads: int | None = None) -> None:
        self._n_threads = n_threads
        self._pool: ThreadPoolExecutor | None = None

    @property
    def n_threads(self) -> int:
        """Threads to run on; by default as many as there are processors, asked for when first needed."""
        if self._n_threads is None:
            self._n_threads = available_cpus()
        return self._n_threads

    def __enter__(self) -> Workers:
        _blas_cap.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if self._pool is not None:
                self._pool.shutdown(wait=True, cancel_futures=True)
        finally:
            self._pool = None
            _blas_cap.__exit__()

    def run(self, function: Callable[[int], None], count: int) -> None:
        """``function(0), .., function(count - 1)``, in any order; the first failure in task order is raised."""
        if count == 1 or self.n_threads == 1:
            for i in range(count):
                function(i)
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.n_threads, "mlfm", _cap_this_thread)
        futures: list[Future[None]] = [self._pool.submit(function, i) for i in range(count)]
        try:
            for future in futures:
                future.result()
        except BaseException:
            for future in futures:
                future.cancel()
            # What has begun must not go on writing while the caller does something else.
            wait(futures)
            raise
