"""Names in a swarm: of devices and groups. What names nobody is refused, since a fault that falls on nobody would pass unseen."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from peersd.testing.process_swarm import NAMES
from peersd_protocol.names import is_name


def names_of(count: int) -> list[str]:
    """Names for devices: ada, ben, cem, … and, once these are used up, ada2 and so on."""
    return [f"{NAMES[number % len(NAMES)]}{number // len(NAMES) + 1 if number >= len(NAMES) else ''}" for number in range(count)]


def check_known(what: str, names: Iterable[str], known: Collection[str]) -> None:
    """Refuses names that nobody has.

    Args:
        what: what the names are of: "device" or "group".
        names: to be looked at.
        known: those that there are.

    Raises:
        ValueError: it is said which are known.
    """
    if isinstance(names, str):
        raise ValueError(f"A list of names of {what}s is needed, not the text {names!r}.")
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"No {what} is called {_listed(unknown)}; known are {_listed(known) or 'none'}.")


def check_sides(sides: Sequence[Collection[str]], known: Collection[str]) -> None:
    """Refuses a partition that separates nobody, or one of what is not there.

    Raises:
        ValueError: there are fewer than two sides with a device each, or a device is on two of them.
    """
    for side in sides:
        check_known("device", side, known)
    if sum(bool(side) for side in sides) < 2:
        raise ValueError(f"A partition needs two sides or more, as in partition(['ada'], ['ben']); known are {_listed(known)}.")
    _check_once("on the sides of a partition", [name for side in sides for name in side])


def name_devices(devices: int | Sequence[str]) -> list[str]:
    """The names of all devices, by what a test has asked for.

    Raises:
        ValueError: there would be none, two of one name, or one whose name no user may have.
    """
    if isinstance(devices, str):
        raise ValueError(f"`devices` is a number or a list of names, not the text {devices!r}.")
    names = names_of(devices) if isinstance(devices, int) else list(devices)
    if not names:
        raise ValueError(f"A swarm needs a device: `devices` is {devices!r}; give a number from 1 on or a list of names.")
    _check_once("in `devices`", names)
    _check_names("user", names)
    if any("/" in name or name in (".", "..") for name in names):
        raise ValueError(f"Each of `devices` names a folder too, which not all of these can: {_listed(names)}.")
    return names


def name_groups(groups: int | Mapping[str, Sequence[str]], devices: Sequence[str]) -> dict[str, list[str]]:
    """The members of all groups, by what a test has asked for.

    Args:
        groups: their number, or their members.
        devices: the names of all devices.

    Raises:
        ValueError: a group has no member, one twice, one that is no device, or a name that no group may have.
    """
    if isinstance(groups, int):
        if groups < 0:
            raise ValueError(f"`groups` is {groups}; give a number from 0 on or the members of each.")
        return {f"g{number + 1}": list(devices) for number in range(groups)}
    _check_names("group", groups)
    for group, members in groups.items():
        check_known("device", members, devices)
        if not members:
            raise ValueError(f"The group {group!r} has no member, and the first one founds it; known are {_listed(devices)}.")
        _check_once(f"in the group {group!r}", members)
    return {group: list(members) for group, members in groups.items()}


def check_schema(schema: Sequence[str]) -> None:
    """Refuses a single statement where a list of them is meant.

    Raises:
        ValueError: it is one.
    """
    if isinstance(schema, str):
        raise ValueError(f"`schema` is a list of statements, not the text {schema!r}.")


def _check_names(what: str, names: Iterable[str]) -> None:
    refused = [name for name in names if not is_name(name)]
    if refused:
        raise ValueError(f"No {what} may be called {_listed(refused)}: 1 to 128 characters, and none that are not seen.")


def _check_once(where: str, names: Sequence[str]) -> None:
    twice = [name for name in dict.fromkeys(names) if list(names).count(name) > 1]
    if twice:
        raise ValueError(f"{_listed(twice)} is {where} more than once: {_listed(names)}.")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))
