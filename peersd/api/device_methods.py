"""Methods of this daemon, its user's devices, its links, and how far other devices are."""

from __future__ import annotations

import os
import time
from importlib.metadata import version
from typing import Final

from peersd.api.parameters import Parameters
from peersd.api.registry import Api, MethodTable
from peersd_protocol.constants import NAME_CHARS_MAX

TABLE: Final = MethodTable()

CONNECT_TIMEOUT_S: Final = 30.0


@TABLE.method("daemon.status")
async def _daemon_status(api: Api, given: Parameters) -> object:
    return {
        "version": version("peersd"),
        "pid": os.getpid(),
        **await api.node.status(),
        "uptime_s": round(time.monotonic() - api.started_s, 3),
    }


@TABLE.method("daemon.stop")
async def _daemon_stop(api: Api, given: Parameters) -> object:
    api.stop()
    return {}


@TABLE.method("init", "user_name", "device_name", changes=True)
async def _init(api: Api, given: Parameters) -> object:
    return await api.node.init(
        user_name=given.label("user_name"), device_name=given.optional_label("device_name", characters_max=NAME_CHARS_MAX)
    )


@TABLE.method("device.list")
async def _device_list(api: Api, given: Parameters) -> object:
    return await api.node.device_list(user=given.selector("user"))


@TABLE.method("link.list")
async def _link_list(api: Api, given: Parameters) -> object:
    return await api.node.link_list(user=given.selector("user"))


@TABLE.method("link.connect", "url", "device_id", "timeout_s")
async def _link_connect(api: Api, given: Parameters) -> object:
    return await api.node.link_connect(
        user=given.selector("user"),
        url=given.text("url"),
        device_id=given.selector("device_id"),
        timeout_s=given.timeout_s(CONNECT_TIMEOUT_S),
    )


@TABLE.method("link.disconnect", "device")
async def _link_disconnect(api: Api, given: Parameters) -> object:
    await api.node.link_disconnect(user=given.selector("user"), device=given.text("device"))
    return {}


@TABLE.method("sync.status", "group")
async def _sync_status(api: Api, given: Parameters) -> object:
    return await api.node.sync_status(user=given.selector("user"), group=given.selector("group"))


@TABLE.method("sync.wait", "group", "devices", "timeout_s")
async def _sync_wait(api: Api, given: Parameters) -> object:
    answer = await api.node.sync_wait(
        user=given.selector("user"),
        group=given.selector("group"),
        devices=given.selectors("devices"),
        timeout_s=given.timeout_s(None),
    )
    return answer or {}
