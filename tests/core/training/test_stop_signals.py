"""Signals that ask training to stop: which are handled, and when Ctrl-C waits for a checkpoint."""

import logging
import signal
import threading

import pytest

from sciforge.core.training import stop_signals
from sciforge.core.training.stop_signals import AT_STAKE, StopSignals
from sciforge.errors import StoppedError


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """A clock that stands still; its only element is the time."""
    clock = [1000.0]
    monkeypatch.setattr(stop_signals.time, "monotonic", lambda: clock[0])
    return clock


@pytest.fixture(autouse=True)
def plain_handlers():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_stops_at_once_until_a_minute_is_at_stake(clock, caplog, tmp_path):
    caplog.set_level(logging.WARNING, "sciforge")
    signals = StopSignals(tmp_path)
    with signals.handled():
        signals.note_stepping()
        clock[0] += AT_STAKE - 0.5
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert signals.received is None and not caplog.messages
        signals.note_saved()
        clock[0] += AT_STAKE
        signal.raise_signal(signal.SIGINT)
        assert signals.received == "SIGINT" and "stopping after this step" in caplog.messages[0]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGUSR1])
def test_a_cluster_s_signal_is_noted_and_the_handlers_come_back(clock, sent, tmp_path):
    before = signal.getsignal(sent)
    signals = StopSignals(tmp_path)
    with signals.handled() as same:
        assert same is signals
        signals.note_stepping()
        signal.raise_signal(sent)
        signal.raise_signal(signal.SIGUSR1)
    assert signals.received == signal.Signals(sent).name and signal.getsignal(sent) == before
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


def test_before_the_first_step_a_signal_stops_at_once(clock, tmp_path):
    with pytest.raises(StoppedError, match=str(tmp_path)), StopSignals(tmp_path).handled():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_what_the_caller_handles_or_another_thread_trains_is_left_alone(tmp_path):
    def own(number, frame):
        pass

    before = signal.signal(signal.SIGTERM, own)
    try:
        with StopSignals(tmp_path).handled():
            assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)
    seen = []

    def elsewhere():
        with StopSignals(tmp_path).handled():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [before]
