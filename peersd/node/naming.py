"""Finding what a person means: by id, by an unambiguous prefix of an id, or by a name that is unique here (API: `group`)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final, TypeVar

from peersd.errors import PeersdError
from peersd_protocol import hlc

T = TypeVar("T")

LISTED_BY: Final = {
    "group": "`peers groups --all` lists them; join with a ticket if this device never was in it.",
    "user": "`peers status` lists this daemon's users.",
    "member": "`peers members --left` lists those of a group; -g names the group.",
    "banned user": "`peers ban list` lists them; -g names the group.",
    "invite": "`peers invite list` lists them; -g names the group.",
    "device": "`peers links` and `peers sync` show their names and ids.",
    "other device": "`peers sync` shows their names, `peers sync --json` their ids.",
}
"""Where to find what may be named, by what it is."""

PREFIX_CHARS_MIN = 6
"""Of an id's text, its `grp-` included: shorter ones would collide by chance."""


def find(text: str, candidates: Iterable[tuple[str, str, T]], *, code: str, what: str) -> T:
    """The one candidate that `text` means.

    Args:
        text: an id, a prefix of one, or a name.
        candidates: (id as text, name, what is found).
        code: the error if there is none, such as `group_not_found`.
        what: how the message calls it; one of LISTED_BY.

    Raises:
        PeersdError: `code`, or `name_ambiguous` with the ids that match, and whose they are.
    """
    known = list(candidates)
    exact = [found for id_, _, found in known if id_ == text]
    if exact:
        return exact[0]
    # Both: a name is whatever somebody else gave, and must not pass for the beginning of another's id.
    is_prefix = len(text) >= PREFIX_CHARS_MIN
    matches = {id_: (name, found) for id_, name, found in known if name == text or (is_prefix and id_.startswith(text))}
    if len(matches) > 1:
        raise PeersdError(
            "name_ambiguous",
            f"{text!r} means more than one {what}.",
            hint="Use one of the ids, or more of it.",
            ids=sorted(matches),
            candidates=[{"id": id_, "name": matches[id_][0]} for id_ in sorted(matches)],
        )
    if not matches:
        raise PeersdError(code, f"There is no {what} {text!r} here.", hint=LISTED_BY[what])
    ((_, found),) = matches.values()
    return found


def format_time(ms: int | None) -> str | None:
    """Milliseconds since 1970 as RFC 3339 text in UTC; times beyond the calendar as its last day."""
    if ms is None:
        return None
    moment = datetime.fromtimestamp(min(ms, _MS_MAX) / 1000, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def format_stamp(stamp: int | None) -> str | None:
    """The time in a hybrid logical clock stamp."""
    return None if stamp is None else format_time(hlc.unpack(stamp)[0])


_MS_MAX = 253_402_300_799_000
