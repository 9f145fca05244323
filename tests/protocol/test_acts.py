"""The bodies of acts: literal bytes, bounds, and what is refused (SPEC: A, U)."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peersd_protocol import acts, canonical
from peersd_protocol.acts import (
    AddDevice,
    Admit,
    Ban,
    Body,
    Cut,
    DropDevice,
    Genesis,
    Invite,
    Leave,
    NoAct,
    Profile,
    Remove,
    RevokeInvite,
    SchemaAct,
    SetRole,
    Settings,
    Unban,
    UnknownAct,
    UserGenesis,
    body_value,
    decode_act,
    encode_body,
    kind_of,
)
from peersd_protocol.canonical import Value
from peersd_protocol.devicekeys import DeviceKeys, verify_device_cert
from peersd_protocol.entries import Kind
from peersd_protocol.errors import CloseCode, LocalProtocolError, RemoteProtocolError
from peersd_protocol.names import is_description, is_identifier, is_name, is_reason
from peersd_protocol.roles import Role, format_role, parse_role
from peersd_protocol.schema import Default
from peersd_protocol.schema_ops import AddColumn, ColumnDef, CreateIndex, CreateTable, is_references, is_type, op_value

KEYS = DeviceKeys(b"1" * 32, b"2" * 32, b"3" * 32)
CERT = verify_device_cert(KEYS.device_cert("laptop"))
H, U, D, N = b"h" * 32, b"u" * 32, b"d" * 32, b"n" * 16
CUTS = ((U, (Cut(Kind.CONTROL, D, N, 3, H), Cut(Kind.DATA, D, N, 1, H))),)
ID = ColumnDef("id", "TEXT", Default(2))
NAME = ColumnDef("name", "TEXT", Default(1, "x"), True, 'REFERENCES "o"("p") ON DELETE CASCADE')

BODIES: list[Body] = [
    Genesis("group", N),
    Genesis("group", N, True, (b"a" * 32, b"b" * 32), 2),
    Settings(name="n"),
    Settings(name="n", description="a\n\tb", avatar=b"\x89PNG"),
    Settings(description="", avatar=b""),
    Invite(Role.READER, 0, 1, H),
    Invite(Role.OWNER, 2**48, 1_000_000, H),
    RevokeInvite(H),
    Admit(H, U, D, H, b"i" * 64, b"d" * 64),
    Leave(()),
    Leave(CUTS),
    SetRole(U, Role.OWNER),
    SetRole(U, Role.READER, ()),
    SetRole(U, Role.MODERATOR, CUTS),
    Remove(U, ()),
    Remove(U, CUTS),
    Ban(U, "", ()),
    Ban(U, "spam,\n\tand \u00e4 lot of it", CUTS),
    Unban(U),
    DropDevice(U, D, ()),
    DropDevice(U, D, CUTS),
    SchemaAct((CreateTable("t", (ID, NAME), (0,)), AddColumn((b"", 0), NAME), CreateIndex("i", (N, 3), (((b"", 0, 1), True),)))),
    UserGenesis("alice", N, CERT),
    UserGenesis("alice", N, CERT, (H,), 1),
    AddDevice(CERT, b"s" * 64),
    Profile("älice 🙂"),
]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: type(body).__name__)
def test_every_act_survives_its_encoding(body: Body) -> None:
    assert decode_act(kind_of(body), canonical.decode(encode_body(body), bytes_max=10_000)) == body


def test_the_bytes_of_simple_acts_are_these() -> None:
    assert encode_body(Genesis("g", N)) == b"\x97\x01\x01\xa1g\xc4\x10" + N + b"\xc2\x90\x00"
    assert encode_body(Settings(name="x", description="y")) == b"\x92\x02\x92\x92\xabdescription\xa1y\x92\xa4name\xa1x"
    assert encode_body(Invite(Role.WRITER, 1000, 1, H)) == b"\x95\x03\x28\xcd\x03\xe8\x01\xc4\x20" + H
    assert encode_body(RevokeInvite(H)) == b"\x92\x04\xc4\x20" + H
    assert encode_body(Leave(())) == b"\x93\x06\x00\x90"
    assert encode_body(SetRole(U, Role.WRITER)) == b"\x95\x08\xc4\x20" + U + b"\x28\xc0\xc0"
    assert encode_body(SetRole(U, Role.READER, ())) == b"\x95\x08\xc4\x20" + U + b"\x14\x00\x90"
    assert encode_body(Remove(U, ())) == b"\x94\x09\x00\xc4\x20" + U + b"\x90"
    assert encode_body(Ban(U, "x", ())) == b"\x95\x0a\x00\xc4\x20" + U + b"\xa1x\x90"
    assert encode_body(Unban(U)) == b"\x92\x0b\xc4\x20" + U
    assert encode_body(DropDevice(U, D, ())) == b"\x95\x0c\x00\xc4\x20" + U + b"\xc4\x20" + D + b"\x90"
    assert encode_body(Profile("p")) == b"\x92\x03\xa1p"


def test_an_empty_body_is_no_act() -> None:
    assert decode_act(Kind.CONTROL, []) == NoAct()
    assert decode_act(Kind.IDENTITY, []) == NoAct()


@pytest.mark.parametrize(
    ("kind", "number"), [(Kind.CONTROL, 13), (Kind.CONTROL, 14), (Kind.CONTROL, 2**31), (Kind.IDENTITY, 4), (Kind.IDENTITY, 5)]
)
def test_types_of_a_later_version_are_unknown_and_no_error(kind: Kind, number: int) -> None:
    assert decode_act(kind, [number, "anything"]) == UnknownAct(number)


@pytest.mark.parametrize(
    "value",
    [
        [1, 2, "rules of version 2"],
        [2, [["colour", "blue"], ["name", "n"]]],
        [6, 1, []],
        [8, U, Role.WRITER, 1, ["later"]],
        [8, "later", "later", 1, None],
        [9, 1, U, []],
        [10, 1, U, 0, []],
        [12, 1, U, D, "later"],
        [7, [[4, "create view"]]],
    ],
)
def test_later_forms_of_known_acts_are_unknown_and_no_error(value: list[Value]) -> None:
    assert decode_act(Kind.CONTROL, value) == UnknownAct(value[0])  # type: ignore[arg-type]


MANY_OPS: list[Value] = [op_value(CreateTable("t", (ID,), (0,)))] * 1001
MALFORMED_AND_LARGE: list[tuple[str, Kind, Sequence[Value]]] = [
    ("a long description", Kind.CONTROL, [2, [["description", "d" * 4097]]]),
    ("a large avatar", Kind.CONTROL, [2, [["avatar", bytes(64 * 1024 + 1)]]]),
    ("cuts of 65 users", Kind.CONTROL, [6, 0, [[bytes([n]) * 32, []] for n in range(65)]]),
    ("too many cuts", Kind.CONTROL, [6, 0, [[u, [[2, D, N, n + 1, H] for n in range(1100)]] for u in (b"a" * 32, U)]]),
    ("a long reason", Kind.CONTROL, [10, 0, U, "r" * 513, []]),
    ("a long reason in few characters", Kind.CONTROL, [10, 0, U, "\u00e4" * 257, []]),
    ("a removal with cuts of 65 users", Kind.CONTROL, [9, 0, U, [[bytes([n]) * 32, []] for n in range(65)]]),
    ("too many operations", Kind.CONTROL, [7, MANY_OPS]),
    (
        "table with 201 columns",
        Kind.CONTROL,
        [7, [[1, "t", [[f"c{n}", "", [0], False, None] for n in range(201)], [0], False, False]]],
    ),
    ("a large default", Kind.CONTROL, [7, [[2, [N, 0], ["c", "BLOB", [1, bytes(4097)], False, None]]]]),
]


@pytest.mark.parametrize(("kind", "value"), [pytest.param(*case[1:], id=case[0]) for case in MALFORMED_AND_LARGE])
def test_an_act_above_a_bound_is_refused(kind: Kind, value: Sequence[Value]) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_act(kind, value)
    assert caught.value.close_code is CloseCode.MALFORMED


def test_a_certificate_with_a_bad_signature_is_refused_as_such() -> None:
    value = list(CERT.value)
    value[3] = bytes(64)
    with pytest.raises(RemoteProtocolError) as caught:
        decode_act(Kind.IDENTITY, [2, value, bytes(64)])
    assert caught.value.close_code is CloseCode.BAD_SIGNATURE


def test_an_act_of_ours_that_breaks_a_bound_is_our_own_fault() -> None:
    for body in (
        Genesis("", N),
        Invite(Role.FOUNDER, 0, 1, H),
        Settings(),
        Leave((CUTS[0], CUTS[0])),
        SchemaAct(()),
        SetRole(U, 45),
        Ban(U, "\a", ()),
    ):
        with pytest.raises(LocalProtocolError):
            encode_body(body)
    with pytest.raises(LocalProtocolError):
        decode_act(Kind.DATA, [1])


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=9) | st.binary(max_size=65),
    lambda inner: st.lists(inner, max_size=7),
    max_leaves=20,
)


@given(st.sampled_from([Kind.CONTROL, Kind.IDENTITY]), st.integers(0, 14), st.lists(VALUES, max_size=7))
def test_any_array_decodes_or_is_refused_and_nothing_else(kind: Kind, number: int, rest: list[Value]) -> None:
    try:
        decode_act(kind, [number, *rest])
    except RemoteProtocolError:
        pass


@given(st.sampled_from(BODIES), st.data())
def test_an_act_with_one_element_exchanged_decodes_or_is_refused_and_nothing_else(body: Body, data: st.DataObject) -> None:
    value = list(body_value(body))
    value[data.draw(st.integers(0, len(value) - 1))] = data.draw(VALUES)
    try:
        decode_act(kind_of(body), value)
    except RemoteProtocolError:
        pass


def test_the_reason_of_a_ban_meets_its_bound() -> None:
    for reason in ("r" * 512, "\u00e4" * 256, "\U0001f642" * 128):
        assert decode_act(Kind.CONTROL, [10, 0, U, reason, []]) == Ban(U, reason, ())


def test_the_acts_that_take_are_known_by_their_classes() -> None:
    takes = {type(body).__name__ for body in BODIES if isinstance(body, acts.TAKING_ACTS)}
    assert takes == {"RevokeInvite", "Leave", "SetRole", "Remove", "Ban", "DropDevice"}


def test_no_type_of_act_is_used_twice() -> None:
    for kind in (Kind.CONTROL, Kind.IDENTITY):
        types = {type(body): body_value(body)[0] for body in BODIES if kind_of(body) is kind}
        assert len(set(types.values())) == len(types)
    assert acts.RULES_VERSION == 1


# --- Texts ---


def test_names_have_no_control_or_direction_characters_and_no_space_around_them() -> None:
    assert is_name("\u00e9lise")
    for text in ("", "   ", " x", "a\u202eb", "a\x00b", "a\nb", "x" * 129, "\ud800"):
        assert not is_name(text)


def test_description_and_identifier_bounds_are_met() -> None:
    assert is_description("\u00e4" * 2048)
    assert not is_description("\u00e4" * 2049)
    assert is_reason("\u00e4\n\t" * 128)
    assert not any(map(is_reason, ("\u00e4" * 257, "\u202e", "\x00", "\ud800")))
    assert is_name("x" * 128)
    assert is_identifier("x" * 128)
    assert is_identifier('quoted "name" with spaces')
    assert not is_identifier("sqlite_x")


@pytest.mark.parametrize("text", ["", "TEXT", "INTEGER", "VARCHAR(10)", "DECIMAL(10, -2)", "UNSIGNED BIG INT", "_x"])
def test_usual_types_are_types(text: str) -> None:
    assert is_type(text)


@pytest.mark.parametrize("text", ["TEXT ", "TEXT;", "TEXT PRIMARY KEY", "T(1,2,3)", "T(x)", '"T"', "T--", "Ä", "1T"])
def test_other_texts_are_no_types(text: str) -> None:
    assert not is_type(text)


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ('REFERENCES "a"', True),
        ('REFERENCES "a ""b"""("c") ON UPDATE SET NULL ON DELETE CASCADE', True),
        ('REFERENCES "a" ON DELETE CASCADE ON UPDATE CASCADE', False),
        ('REFERENCES "a"("b","c")', False),
        ('REFERENCES "a" DEFERRABLE', False),
        ('references "a"', False),
    ],
)
def test_a_references_clause_has_one_form(text: str, good: bool) -> None:
    assert is_references(text) is good


def test_roles_are_known_by_name() -> None:
    assert [format_role(role) for role in Role] == ["none", "reader", "writer", "moderator", "admin", "owner", "founder"]
    assert parse_role("writer") is Role.WRITER
    with pytest.raises(ValueError, match="no such role: king"):
        parse_role("king")


NAUGHTY = Path(__file__).parents[3] / "shared" / "vectors" / "blns.json"


@pytest.mark.skipif(not NAUGHTY.exists(), reason="the external vectors are not here")
def test_naughty_strings_are_accepted_or_refused_clearly() -> None:
    strings: list[str] = json.loads(NAUGHTY.read_text(encoding="utf-8"))
    accepted = 0
    for text in strings:
        name = unicodedata.normalize("NFC", text).strip(" ")
        if not is_name(name):
            continue
        accepted += 1
        assert decode_act(Kind.IDENTITY, [3, name]) == Profile(name)
    assert accepted > len(strings) // 2
