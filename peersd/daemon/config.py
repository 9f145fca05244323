"""What `peersd run` was told: flags, then the TOML file, then the defaults of API.md."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from peersd.client.paths import SOCKET_NAME, resolve_data_folder
from peersd_protocol import ids
from peersd_protocol.constants import ADDRESS_CHARS_MAX, BEACON_ADDRESSES_MAX

PORT: Final = 7330
LISTEN: Final = (f"ws://0.0.0.0:{PORT}", f"ws://[::]:{PORT}")
KEYS: Final = ("data", "socket", "listen", "advertise", "links")
LINKS_KEYS: Final = ("max", "deny")
LINKS_CAP: Final = 100_000
DEVICE_BYTES: Final = 32


class ConfigError(Exception):
    """A flag or the file says something that cannot be meant; the message names the place."""


@dataclass(frozen=True, slots=True)
class LinksConfig:
    """The table [links].

    Args:
        links_max: links at once, or None for as many as usual.
        deny: the devices that get no link, by their ids.
    """

    links_max: int | None = None
    deny: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Flags:
    """What stood on the command line; None and empty where nothing did."""

    data: str | None = None
    socket: str | None = None
    listen: tuple[str, ...] = ()
    advertise: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Config:
    """All that a run needs to know.

    Args:
        data: the data folder.
        socket: where the API listens.
        socket_chosen: whether somebody chose that path; a default may give way to another daemon's.
        listen: the URLs to listen on; empty to listen on none.
        advertise: the URLs that tickets and beacons name; empty to find them from the interfaces.
        links: what the table [links] says; all that may change while the daemon runs.
        file: where it was read, to be read again, or None.
        flags: what goes before the file.
    """

    data: Path
    socket: Path
    socket_chosen: bool
    listen: tuple[str, ...]
    advertise: tuple[str, ...]
    links: LinksConfig
    file: Path | None = None
    flags: Flags = Flags()


def load_config(
    *,
    file: Path | None = None,
    data: str | None = None,
    socket: str | None = None,
    listen: Sequence[str] = (),
    advertise: Sequence[str] = (),
) -> Config:
    """Flags go before the file's values, these before the environment and the defaults.

    Raises:
        ConfigError: a file that cannot be read, an unknown key, a value of the wrong kind, a URL that is none.
    """
    for flag, value in (("--data", data), ("--socket", socket)):
        if value is not None and not value.strip():
            raise ConfigError(f"{flag} needs a path")
    given = {} if file is None else _read(file)
    where = str(file)
    data_folder = resolve_data_folder(data or _text(given, "data", where))
    socket_text = socket or _text(given, "socket", where) or os.environ.get("PEERSD_SOCKET")
    listen_given = list(listen) or _texts(given, "listen", where)
    advertise_given = list(advertise) or _texts(given, "advertise", where) or []
    return Config(
        data=data_folder,
        socket=Path(socket_text).expanduser().absolute() if socket_text else _default_socket(data_folder),
        socket_chosen=bool(socket_text),
        listen=LISTEN if listen_given is None else _all_different("listen", map(_listen_url, listen_given)),
        advertise=_advertised(advertise_given),
        links=_links(given, where),
        file=file.absolute() if file is not None else None,
        flags=Flags(data, socket, tuple(listen), tuple(advertise)),
    )


def read_again(config: Config, file: Path) -> tuple[LinksConfig, tuple[str, ...]]:
    """What the table [links] of the file says now, and the names of other keys that would have changed something.

    Raises:
        ConfigError: the file cannot be read, or anything in it cannot be meant.
    """
    flags = config.flags
    now = load_config(file=file, data=flags.data, socket=flags.socket, listen=flags.listen, advertise=flags.advertise)
    return now.links, tuple(key for key in KEYS if key != "links" and getattr(now, key) != getattr(config, key))


def _links(given: Mapping[str, Any], where: str) -> LinksConfig:
    links = given.get("links", {})
    if not isinstance(links, dict):
        raise ConfigError(f"{where}: links must be a table, [links]")
    _refuse_unknown(links, LINKS_KEYS, f"{where}: [links]")
    texts = _texts(links, "deny", f"{where}: [links]") or []
    return LinksConfig(_links_max(links, where), tuple(_device(text, where) for text in texts))


def _device(text: str, where: str) -> bytes:
    reason = "another length"
    try:
        device = ids.parse_id(ids.DEVICE, text)
        if len(device) == DEVICE_BYTES:
            return device
    except ValueError as error:
        reason = str(error)
    raise ConfigError(f"{where}: [links] deny: {text!r} is no device's id ({reason}); `peers links` shows ids")


def _read(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as opened:
            given = tomllib.load(opened)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not TOML: {error}") from error
    _refuse_unknown(given, KEYS, str(file))
    return given


def _refuse_unknown(given: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in given:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            guess = f'; did you mean "{close[0]}"?' if close else ""
            raise ConfigError(f'{where}: unknown key "{key}"{guess} (known: {", ".join(known)})')


def _text(given: Mapping[str, Any], key: str, where: str) -> str | None:
    value = given.get(key)
    if value is not None and (not isinstance(value, str) or not value.strip() or "\0" in value):
        raise ConfigError(f"{where}: {key} must be a text")
    return value


def _texts(given: Mapping[str, Any], key: str, where: str) -> list[str] | None:
    value = given.get(key)
    if value is None:
        return None
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ConfigError(f"{where}: {key} must be a text or a list of texts")
    return value


def _links_max(links: Mapping[str, Any], where: str) -> int | None:
    value = links.get("max")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LINKS_CAP:
        raise ConfigError(f"{where}: [links] max must be a whole number from 1 to {LINKS_CAP}")
    return value


def _default_socket(data_folder: Path) -> Path:
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return (Path(runtime) / "peersd" if runtime else data_folder) / SOCKET_NAME


def _listen_url(url: str) -> str:
    """The URL with its port; TLS is a proxy's work, so only ws:// can be listened on."""
    scheme, host, port, path = _split(url)
    if scheme != "ws" or path not in ("", "/"):
        raise ConfigError(f"{url}: listen on ws://ADDRESS:PORT, such as ws://0.0.0.0:{PORT}; wss:// is for a proxy in front")
    host = f"[{host}]" if ":" in host else host
    return f"ws://{host}:{PORT if port is None else port}"


def _advertised(urls: Sequence[str]) -> tuple[str, ...]:
    if len(urls) > BEACON_ADDRESSES_MAX:
        raise ConfigError(f"advertise at most {BEACON_ADDRESSES_MAX} addresses: tickets and beacons carry no more")
    return _all_different("advertise", map(_advertise_url, urls))


def _advertise_url(url: str) -> str:
    scheme, _host, port, _path = _split(url)
    if scheme not in ("ws", "wss") or port == 0:
        raise ConfigError(f"{url}: advertise ws://HOST:PORT or wss://HOST[:PORT][/PATH]")
    if len(url) > ADDRESS_CHARS_MAX or not all("!" <= character <= "~" for character in url):
        raise ConfigError(
            f"{url}: advertise at most {ADDRESS_CHARS_MAX} characters, without spaces and in ASCII (xn--… for others)"
        )
    return url


def _all_different(key: str, urls: Iterable[str]) -> tuple[str, ...]:
    found: list[str] = []
    for url in urls:
        if url in found:
            raise ConfigError(f"{url}: stands twice in {key}")
        found.append(url)
    return tuple(found)


def _split(url: str) -> tuple[str, str, int | None, str]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"{url}: not a URL: {error}") from None
    if not host or parts.query or parts.fragment or parts.username is not None:
        raise ConfigError(f"{url}: not a URL of the form ws://HOST:PORT")
    return parts.scheme, host, port, parts.path
