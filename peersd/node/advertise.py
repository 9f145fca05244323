"""The addresses of this machine that others may reach it at (API: `advertise`)."""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

import ifaddr

_log = logging.getLogger("peersd.node")


class OwnAddresses:
    """The machine's addresses as the system told them last: it cannot tell them while no file handle is left."""

    def __init__(self) -> None:
        self._asked: tuple[str, ...] = ()
        self._told: list[str] = []
        self._is_failing = False

    def behind(self, listen_urls: Iterable[str]) -> list[str]:
        """See advertised_urls; what was told last for the same URLs if the system tells nothing now."""
        asked = tuple(listen_urls)
        try:
            told = advertised_urls(asked)
        except OSError as error:
            if not self._is_failing:
                _log.warning("addresses_unknown", extra={"fields": {"reason": str(error)}})
            self._is_failing = True
            return list(self._told) if asked == self._asked else []
        self._is_failing = False
        self._asked, self._told = asked, told
        return list(told)


def advertised_urls(listen_urls: Iterable[str]) -> list[str]:
    """The URLs behind what is listened on.

    Wildcards become the machine's own addresses; loopback stays only where nothing else is there.

    Raises:
        OSError: the system does not tell.
    """
    found: dict[str, bool] = {}
    for url in listen_urls:
        parts = urlsplit(url)
        host = parts.hostname or ""
        for address in _addresses(host):
            text = f"[{address}]" if isinstance(address, ipaddress.IPv6Address) else str(address)
            found[f"ws://{text}:{parts.port}"] = address.is_loopback
    beyond = [url for url, is_loopback in found.items() if not is_loopback]
    return beyond or list(found)


def _addresses(host: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return [ipaddress.ip_address(info[4][0]) for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
    if not address.is_unspecified:
        return [address]
    own = []
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            text = ip.ip if isinstance(ip.ip, str) else ip.ip[0]
            candidate = ipaddress.ip_address(text)
            if candidate.version == address.version and not candidate.is_link_local:
                own.append(candidate)
    return own
