"""Methods of groups: make, list, show, change, hide, leave and forget them."""

from __future__ import annotations

from typing import Final, TypeVar

from peersd.api.jsonrpc import invalid_params
from peersd.api.parameters import Parameters
from peersd.api.registry import Api, MethodTable
from peersd_protocol.constants import AVATAR_BYTES_MAX

TABLE: Final = MethodTable()

PERSONAL: Final = "personal"
"""Chooses the personal group wherever a group is chosen, whatever groups are called."""

_Name = TypeVar("_Name", str, str | None)


def _admitted(name: _Name) -> _Name:
    """The name of a group, unless it could not be chosen by it. Other devices may give it all the same: then the id is left."""
    if name == PERSONAL:
        raise invalid_params(
            f'name must be another one: "{PERSONAL}" always means the personal group', "choose another name", parameter="name"
        )
    return name


@TABLE.method("group.create", "name", "description", changes=True)
async def _group_create(api: Api, given: Parameters) -> object:
    name = _admitted(given.label("name"))
    return await api.node.group_create(user=given.selector("user"), name=name, description=given.description())


@TABLE.method("group.list", "include_hidden")
async def _group_list(api: Api, given: Parameters) -> object:
    return await api.node.group_list(user=given.selector("user"), include_hidden=given.flag("include_hidden"))


@TABLE.method("group.show", "group")
async def _group_show(api: Api, given: Parameters) -> object:
    return await api.node.group_show(user=given.selector("user"), group=given.selector("group"))


@TABLE.method("group.switch", "group", changes=True)
async def _group_switch(api: Api, given: Parameters) -> object:
    return await api.node.group_switch(user=given.selector("user"), group=given.text("group"))


@TABLE.method("group.active")
async def _group_active(api: Api, given: Parameters) -> object:
    return await api.node.group_active(user=given.selector("user"))


@TABLE.method("group.update", "group", "name", "description", "avatar", changes=True)
async def _group_update(api: Api, given: Parameters) -> object:
    name = _admitted(given.optional_label("name"))
    description = given.description()
    avatar = given.blob("avatar", AVATAR_BYTES_MAX)
    if name is None and description is None and avatar is None:
        hint = 'an empty description, or the avatar {"$blob": ""}, removes what was there'
        raise invalid_params("give at least one of name, description and avatar", hint)
    return await api.node.group_update(
        user=given.selector("user"), group=given.selector("group"), name=name, description=description, avatar=avatar
    )


@TABLE.method("group.hide", "group", "hidden", changes=True)
async def _group_hide(api: Api, given: Parameters) -> object:
    await api.node.group_hide(
        user=given.selector("user"), group=given.selector("group"), hidden=given.flag("hidden", default=None)
    )
    return {}


@TABLE.method("group.leave", "group", changes=True)
async def _group_leave(api: Api, given: Parameters) -> object:
    await api.node.group_leave(user=given.selector("user"), group=given.selector("group"))
    return {}


@TABLE.method("group.forget", "group", changes=True)
async def _group_forget(api: Api, given: Parameters) -> object:
    await api.node.group_forget(user=given.selector("user"), group=given.selector("group"))
    return {}
