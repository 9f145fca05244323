"""Rings, the links that are wanted, and which new ones are let in: SPEC, part L, rules L-26 to L-34."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from peersd_protocol.constants import GUEST_LINKS_MAX, IDLE_LINK_MS, LINK_AGE_MIN_MS, LINKS_MAX
from peersd_protocol.errors import CloseCode
from peersd_protocol.mesh import LinkView, Mesh, MeshView
from peersd_protocol.rings import make_ring, neighbours

GROUP, OTHER = b"\x01" * 32, b"\x02" * 32
Members = Mapping[bytes, Sequence[bytes]]


def user(number: int) -> bytes:
    return bytes([0x40 + number]) * 32


def device(number: int, nth: int = 0) -> bytes:
    return bytes([0x80 + 8 * number + nth]) * 32


def members(users: int, devices: int = 1) -> dict[bytes, list[bytes]]:
    return {user(number): [device(number, nth) for nth in range(devices)] for number in range(users)}


ME = device(0)


def plain(group: Members) -> dict[str, list[str]]:
    return {each.hex(): [one.hex() for one in devices] for each, devices in group.items()}


def ring_case(name: str, group: bytes, listed: Members) -> dict[str, Any]:
    ring = make_ring(group, listed)
    return {
        "name": name,
        "group": group.hex(),
        "members": plain(listed),
        "ring": [each.hex() for each in ring],
        "lesser_counts": [{near.device.hex(): near.lesser_count for near in neighbours(group, ring, each)} for each in ring],
    }


def case(
    name: str,
    groups: Mapping[bytes, Members],
    *,
    links: Mapping[bytes, LinkView] | None = None,
    now_ms: int = 0,
    admits: bytes | None = None,
    is_guest: bool = False,
    **known: Any,
) -> dict[str, Any]:
    """A view of ME, and what it decides on it, or whether it lets a device in."""
    everybody = {each for group in groups.values() for devices in group.values() for each in devices} - {ME}
    stated: dict[str, Any] = {"reachable": everybody, **known}
    view = MeshView({user(0)}, groups, links or {}, **stated)
    made: dict[str, Any] = {
        "name": name,
        "device": ME.hex(),
        "own_users": [user(0).hex()],
        "groups": {group.hex(): plain(listed) for group, listed in groups.items()},
        "links": {
            each.hex(): {"since_ms": link.since_ms, "is_confirmed": link.is_confirmed, "has_channels": link.has_channels}
            for each, link in view.links.items()
        },
        "links_max": view.links_max,
        "now_ms": now_ms,
    }
    for key in ("reachable", "unannounced", "reached", "failing", "refused", "pinned", "denied"):
        made[key] = sorted(each.hex() for each in getattr(view, key))
    mesh = Mesh(ME)
    if admits is not None:
        is_let_in = mesh.admits(view, admits, now_ms, is_guest=is_guest)
        return made | {"new": admits.hex(), "is_guest": is_guest, "admits": is_let_in}
    decision = mesh.decide(view, now_ms)
    return made | {
        "wanted": [each.hex() for each in decision.wanted],
        "close": [[each.hex(), code.name] for each, code in decision.close],
        "left_out": [group.hex() for group in decision.left_out],
        "again_at_ms": decision.again_at_ms,
    }


def make() -> dict[str, Any]:
    ten = {GROUP: members(10)}
    ring = make_ring(GROUP, ten[GROUP])
    at = ring.index(ME)
    after, before = ring[(at + 1) % 10], ring[at - 1]
    rest = [each for each in ring if each not in (ME, after, before)]
    full = {each: LinkView(0) for each in (before, *rest[:2])}
    hosting = full | {rest[4]: LinkView(LINK_AGE_MIN_MS)}
    stranger = b"\xee" * 32
    near = {each.device for each in neighbours(GROUP, make_ring(GROUP, members(14)), ME)}
    far = sorted({each for devices in members(14).values() for each in devices} - near - {ME})
    crowded = {each: LinkView(0) for each in (*near, *far[:GUEST_LINKS_MAX])}
    valid = [
        ring_case("a ring of ten users", GROUP, members(10)),
        ring_case("the same users in another group", OTHER, members(10)),
        ring_case("three users of three devices", GROUP, members(3, 3)),
        ring_case("a device of two users", GROUP, {user(0): [device(0), device(1)], user(1): [device(1), device(2)]}),
        ring_case("two devices", GROUP, members(2)),
        case("ten users, nobody linked", ten),
        case("ten users with three devices", {GROUP: members(10, 3)}, links={device(4, 1): LinkView(0)}),
        case("devices that were reached go first", {GROUP: members(10, 3)}, reached={device(n, 2) for n in range(10)}),
        case("own devices", {OTHER: members(1, 6), GROUP: members(2)}),
        case("three links for ten users", ten, links_max=3),
        case("the next one does not answer", ten, failing={after}, links={rest[3]: LinkView(0)}),
        case("the next one refuses", ten, refused={after}, links={rest[3]: LinkView(0)}),
        case("half have no address", ten, reachable=set(rest[:4])),
        case("pinned and denied", ten, pinned=(rest[0],), denied={after}, links={after: LinkView(0)}),
        case(
            "two groups, one of which gets no link",
            {GROUP: members(2), OTHER: {user(0): [ME], user(3): [device(3)]}},
            links_max=1,
        ),
        case("full, the links are young", ten, links=full, links_max=3, now_ms=LINK_AGE_MIN_MS - 1),
        case("full, the links are old", ten, links=full, links_max=3, now_ms=LINK_AGE_MIN_MS),
        case(
            "one too many",
            ten,
            links=full | {after: LinkView(LINK_AGE_MIN_MS)},
            links_max=3,
            now_ms=LINK_AGE_MIN_MS,
        ),
        case(
            "one too many that is not confirmed",
            ten,
            links=full | {after: LinkView(LINK_AGE_MIN_MS, is_confirmed=False)},
            links_max=3,
            now_ms=LINK_AGE_MIN_MS,
        ),
        case("a young guest", ten, links=hosting, links_max=3, now_ms=LINK_AGE_MIN_MS),
        case("a guest whose time is over", ten, links=hosting, links_max=3, now_ms=2 * LINK_AGE_MIN_MS),
        case("an idle stranger", ten, links={stranger: LinkView(0)}, now_ms=IDLE_LINK_MS),
        case("there is room", ten, links=full, links_max=LINKS_MAX, admits=rest[4]),
        case("a neighbour, and an old link gives way", ten, links=full, links_max=3, admits=after, now_ms=LINK_AGE_MIN_MS),
        case("a neighbour, and all links are young", ten, links=full, links_max=3, admits=after),
        case("a stranger", ten, links=full, links_max=3, admits=stranger),
        case("full of young links, and a guest", ten, links=full, links_max=3, admits=rest[4], is_guest=True),
        case("full, and nobody knows where it is", ten, links=full, links_max=3, admits=rest[4], reachable={before, after}),
        case("full, and some may not know where it is", ten, links=full, links_max=3, admits=rest[4], unannounced={rest[4]}),
        case("a neighbour, beside a young guest", ten, links=hosting, links_max=3, admits=after, now_ms=LINK_AGE_MIN_MS),
    ]
    invalid = [
        case(
            "the neighbour's place is kept", ten, links={rest[0]: LinkView(0), before: LinkView(0)}, links_max=3, admits=rest[6]
        ),
        case("denied", ten, denied={after}, admits=after),
        case("full, and no guest", ten, links=full, links_max=3, admits=rest[4], now_ms=LINK_AGE_MIN_MS),
        case("too many guests", {GROUP: members(14)}, links=crowded, links_max=2, admits=far[-1], is_guest=True),
    ]
    for each in valid[-7:]:
        assert each["admits"], each["name"]
    for each in invalid:
        assert not each["admits"], each["name"]
    return {
        "description": (
            "valid: rings (L-26), with the lesser_count of each device's neighbours (L-30); what `device` decides on what it "
            "knows: whom it wants a link to, in this order, which links it ends, which groups get none, and when time alone will "
            "change that; and new links that it lets in. A decision is the first one of a new process, so a stranger's idle time "
            "begins with it. invalid: new links that it ends with the code `error`."
        ),
        "valid": valid,
        "invalid": [each | {"error": CloseCode.REFUSED.name} for each in invalid],
    }
