"""SIGINT (Ctrl-C) and SIGTERM: a fit with a checkpoint ends after the epoch that runs, anything else at once."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

__all__ = ["Interruption", "Terminated", "deferring", "sigterm_raises"]


class Terminated(KeyboardInterrupt):
    """SIGTERM, as Ctrl-C is a KeyboardInterrupt: whoever tidies up after one does so after the other."""


KINDS = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: Terminated}
Handler = Callable[[int, FrameType | None], Any]


class Interruption:
    """Whether a signal has come, and whether it can wait for the end of an epoch.

    Attributes
    ----------
    can_wait
        Set by whoever looks at :meth:`due` soon.
    """

    def __init__(self) -> None:
        self.can_wait = False
        self.kind: type[KeyboardInterrupt] | None = None

    def due(self) -> None:
        """Raise the interruption that has come in the meantime."""
        if self.kind is not None:
            raise self.kind

    def handle(self, number: int, frame: FrameType | None) -> None:
        """The handler of both signals: the first waits if it can, a second does not."""
        kind = KINDS[signal.Signals(number)]
        if self.kind is not None or not self.can_wait:
            raise kind
        self.kind = kind
        with suppress(RuntimeError):  # the signal may have come in the middle of another line
            print(
                "stopping after this epoch, whose state is kept; once more stops at once", file=sys.stderr, flush=True
            )


@contextmanager
def deferring() -> Iterator[Interruption]:
    """An interruption that both signals report to inside; a program's own handlers stay.

    Python runs handlers in the main thread: in others nothing is installed.
    """
    interruption = Interruption()
    with _handled({signal.SIGINT: interruption.handle, signal.SIGTERM: interruption.handle}):
        yield interruption


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """SIGTERM raises :class:`Terminated` inside; by default it would end the process without a word."""
    with _handled({signal.SIGTERM: _raise}):
        yield


def _raise(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated


@contextmanager
def _handled(handlers: dict[signal.Signals, Handler]) -> Iterator[None]:
    """With these handlers in place of Python's own, and of ours."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        own = (signal.SIG_DFL, signal.default_int_handler, _raise)
        before = {number: found for number in handlers if (found := signal.getsignal(number)) in own}
    try:
        for number in before:
            signal.signal(number, handlers[number])
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
