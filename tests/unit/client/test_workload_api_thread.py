"""The thread that follows the Workload API. If it died silently, the SVID would expire unnoticed."""

import threading

import pytest
import spiffe

from livekit_auth.workload_api import WorkloadApi

PATIENCE = 10  # seconds


class Broken:
    """A library that fails unexpectedly: `where` is the call that raises."""

    def __init__(self, where):
        self.where = where
        self.opened = 0
        self.twice = threading.Event()

    def __call__(self, _socket):
        self.opened += 1
        if self.opened > 1:
            self.twice.set()
        return self

    def stream_x509_contexts(self, _take, end, **_):
        if self.where == "stream":
            raise RuntimeError("can't start new thread")
        end(OSError("stream ended"))
        return self

    def cancel(self):
        if self.where == "cancel":
            raise RuntimeError("a key that mustn't show")

    def close(self):
        if self.where == "close":
            raise ValueError("a key that mustn't show")


@pytest.mark.parametrize("where", ["stream", "cancel", "close"])
def test_any_library_error_reopens_the_stream_and_is_reported(monkeypatch, where):
    library = Broken(where)
    told: list[str] = []
    monkeypatch.setattr(spiffe, "WorkloadApiClient", library)
    api = WorkloadApi("unix:///run/spire/agent.sock", warn=told.append)
    try:
        assert library.twice.wait(PATIENCE)
        assert api.state[1]
        assert told
        assert "mustn't show" not in "".join(told)
    finally:
        api.close()
