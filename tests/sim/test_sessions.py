"""A session of the simulator does what one of peersd.sync would."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import cast

from peersd.testing.simulator.link_end import ChannelEnd
from peersd.testing.simulator.replica import Replica
from peersd.testing.simulator.session import Session
from peersd_protocol.errors import CloseCode


class Channel:
    """A channel of which only the end matters."""

    remote_device = b"remote"

    def __init__(self) -> None:
        self.closed: CloseCode | None = None

    def consumed(self, message: bytes) -> None:
        """Credit is given back to nobody."""

    def want(self) -> None:
        """Nobody waits for that."""

    def note_closed(self, code: CloseCode) -> None:
        self.closed = code

    def close(self, code: CloseCode) -> None:
        self.closed = code


class Takes:
    """A replica that takes what comes; its events run one by one when the test says so."""

    def __init__(self) -> None:
        self.events = deque[Callable[[], None]]()
        self.taken: list[bytes] = []
        self.ended = 0

    def soon(self, event: Callable[[], None], slow: float = 0.0) -> None:
        self.events.append(event)

    def receive(self, session: Session, message: bytes) -> None:
        self.taken.append(message)

    def session_over(self, session: Session) -> None:
        self.ended += 1


def test_who_has_something_to_send_takes_what_came_before_the_end_as_a_session_of_the_product_does() -> None:
    """It may be a farewell, and whoever says that closes the channel at once."""
    replica = Takes()
    session = Session(cast(Replica, replica), cast(ChannelEnd, Channel()), 1)
    session.is_due = True
    session.send_soon()
    session.push(b"one")
    session.push(b"two")
    session.note_closed(CloseCode.NOT_MEMBER)
    while replica.events:
        replica.events.popleft()()
    assert (replica.taken, replica.ended) == ([b"one", b"two"], 1)
