"""Both signals end an epoch where something is to be kept, and raise at once where not."""

import os
import signal
import threading

import pytest

from nvisa.interruption import Terminated, deferring, sigterm_raises

BOTH = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: Terminated}


def send(number):
    os.kill(os.getpid(), number)


def waiting(*numbers):
    """The interruption that has been sent these, while it could wait."""
    with deferring() as interruption:
        interruption.can_wait = True
        interruption.due()  # nothing has come
        for number in numbers:
            send(number)
    return interruption


@pytest.mark.parametrize(("number", "kind"), BOTH.items())
def test_a_signal_that_can_wait_waits_and_a_second_does_not(number, kind, capsys):
    interruption = waiting(number)
    assert "stopping after this epoch" in capsys.readouterr().err
    with pytest.raises(kind) as raised:
        interruption.due()
    assert raised.type is kind
    with pytest.raises(kind):
        waiting(number, number)


@pytest.mark.parametrize(("number", "kind"), BOTH.items())
def test_a_signal_that_cannot_wait_raises_and_handlers_are_put_back(number, kind):
    before = {each: signal.getsignal(each) for each in BOTH}
    with pytest.raises(kind), deferring():
        send(number)
    with pytest.raises(Terminated), sigterm_raises():
        send(signal.SIGTERM)
    assert {each: signal.getsignal(each) for each in BOTH} == before


def test_a_handler_of_the_program_stays(monkeypatch):
    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
    try:
        with deferring(), sigterm_raises():
            send(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [1]


def test_another_thread_installs_nothing():
    found = []

    def run():
        with deferring() as interruption:
            found.append(interruption.kind)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [None]
