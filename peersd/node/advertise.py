"""The addresses of this machine that others may reach it at (API: `advertise`)."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

import ifaddr


def advertised_urls(listen_urls: Iterable[str]) -> list[str]:
    """The URLs behind what is listened on.

    Wildcards become the machine's own addresses; loopback stays only where nothing else is there.
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
