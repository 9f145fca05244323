"""Bodies of acts: SPEC, part A and U."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from peersd_protocol import canonical
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
    Profile,
    Remove,
    RevokeInvite,
    SchemaAct,
    SetRole,
    Settings,
    Unban,
    UserGenesis,
    encode_body,
    kind_of,
)
from peersd_protocol.canonical import Value
from peersd_protocol.devicekeys import DeviceKeys, verify_device_cert
from peersd_protocol.entries import Kind
from peersd_protocol.roles import Role
from peersd_protocol.schema import Default
from peersd_protocol.schema_ops import AddColumn, ColumnDef, CreateIndex, CreateTable

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


UNKNOWN: list[tuple[str, Kind, Sequence[Value]]] = [
    ("a control act of a later type", Kind.CONTROL, [14, "anything"]),
    ("an identity act of a later type", Kind.IDENTITY, [4, b"anything"]),
    ("a genesis of later rules", Kind.CONTROL, [1, 2, "anything"]),
    ("a setting of a later version", Kind.CONTROL, [2, [["colour", "blue"], ["name", "n"]]]),
    ("a leave of another mode", Kind.CONTROL, [6, 1, []]),
    ("a demotion of another mode", Kind.CONTROL, [8, U, 40, 1, []]),
    ("a removal of another mode", Kind.CONTROL, [9, 2, U, "anything"]),
    ("a ban of another mode", Kind.CONTROL, [10, 1, U, b"anything", []]),
    ("a drop of a device of another mode", Kind.CONTROL, [12, 1, U, D, []]),
    ("the type that is kept for recovery", Kind.CONTROL, [13]),
    ("a schema operation of a later type", Kind.CONTROL, [7, [[4, "create view"]]]),
]


def table(**changes: Value) -> list[Value]:
    fields: dict[str, Value] = {
        "type": 1,
        "name": "t",
        "columns": [["id", "TEXT", [0], False, None]],
        "key": [0],
        "rowid": False,
        "strict": False,
    }
    return [7, [list((fields | changes).values())]]


def column(
    name: Value = "c", type_text: Value = "TEXT", default: Value = (0,), not_null: Value = False, ref: Value = None
) -> list[Value]:
    return table(columns=[["id", "TEXT", [0], False, None], [name, type_text, default, not_null, ref]])


CUT: list[Value] = [2, D, N, 1, H]
MALFORMED: list[tuple[str, Kind, Sequence[Value]]] = [
    ("type zero", Kind.CONTROL, [0]),
    ("type as text", Kind.CONTROL, ["1"]),
    ("type as boolean", Kind.CONTROL, [True, 1, "g", N, False, [], 0]),
    ("genesis alone", Kind.CONTROL, [1]),
    ("genesis of version 0", Kind.CONTROL, [1, 0, "g", N, False, [], 0]),
    ("genesis too long", Kind.CONTROL, [1, 1, "g", N, False, [], 0, 0]),
    ("genesis without name", Kind.CONTROL, [1, 1, "", N, False, [], 0]),
    ("genesis with a long name", Kind.CONTROL, [1, 1, "g" * 129, N, False, [], 0]),
    ("genesis with a newline", Kind.CONTROL, [1, 1, "g\n", N, False, [], 0]),
    ("genesis with an override", Kind.CONTROL, [1, 1, "\u202eg", N, False, [], 0]),
    ("genesis with name as bytes", Kind.CONTROL, [1, 1, b"g", N, False, [], 0]),
    ("genesis with short nonce", Kind.CONTROL, [1, 1, "g", N[:15], False, [], 0]),
    ("genesis with personal as number", Kind.CONTROL, [1, 1, "g", N, 0, [], 0]),
    ("recovery threshold without keys", Kind.CONTROL, [1, 1, "g", N, False, [], 1]),
    ("recovery keys without threshold", Kind.CONTROL, [1, 1, "g", N, False, [H], 0]),
    ("recovery threshold above keys", Kind.CONTROL, [1, 1, "g", N, False, [H], 2]),
    ("recovery keys twice", Kind.CONTROL, [1, 1, "g", N, False, [H, H], 1]),
    ("recovery keys descending", Kind.CONTROL, [1, 1, "g", N, False, [b"b" * 32, b"a" * 32], 1]),
    ("nine recovery keys", Kind.CONTROL, [1, 1, "g", N, False, [bytes([n]) * 32 for n in range(9)], 1]),
    ("no settings", Kind.CONTROL, [2, []]),
    ("settings descending", Kind.CONTROL, [2, [["name", "n"], ["description", "d"]]]),
    ("a setting twice", Kind.CONTROL, [2, [["name", "n"], ["name", "n"]]]),
    ("a setting without value", Kind.CONTROL, [2, [["name"]]]),
    ("a name that is nil", Kind.CONTROL, [2, [["name", None]]]),
    ("a description with a bell", Kind.CONTROL, [2, [["description", "\a"]]]),
    ("a description as bytes", Kind.CONTROL, [2, [["description", b"d"]]]),
    ("an avatar as text", Kind.CONTROL, [2, [["avatar", "png"]]]),
    ("invite to none", Kind.CONTROL, [3, 0, 0, 1, H]),
    ("invite to founder", Kind.CONTROL, [3, 100, 0, 1, H]),
    ("invite to a role between", Kind.CONTROL, [3, 45, 0, 1, H]),
    ("invite with no uses", Kind.CONTROL, [3, 40, 0, 0, H]),
    ("invite with too many uses", Kind.CONTROL, [3, 40, 0, 1_000_001, H]),
    ("invite that expired before 1970", Kind.CONTROL, [3, 40, -1, 1, H]),
    ("invite that expires as float", Kind.CONTROL, [3, 40, 1.0, 1, H]),
    ("invite with a short key", Kind.CONTROL, [3, 40, 0, 1, H[:31]]),
    ("revoke nothing", Kind.CONTROL, [4]),
    ("revoke a short hash", Kind.CONTROL, [4, b""]),
    ("admit without signatures", Kind.CONTROL, [5, H, U, D, H]),
    ("admit with a short signature", Kind.CONTROL, [5, H, U, D, H, bytes(64), bytes(63)]),
    ("leave without cuts", Kind.CONTROL, [6, 0]),
    ("leave with a negative mode", Kind.CONTROL, [6, -1, []]),
    ("cuts of an identity log", Kind.CONTROL, [6, 0, [[U, [[1, D, N, 1, H]]]]]),
    ("cut at sequence 0", Kind.CONTROL, [6, 0, [[U, [[2, D, N, 0, H]]]]]),
    ("cut with a long epoch", Kind.CONTROL, [6, 0, [[U, [[2, D, N + b"x", 1, H]]]]]),
    ("cut twice", Kind.CONTROL, [6, 0, [[U, [CUT, CUT]]]]),
    ("cuts of a user twice", Kind.CONTROL, [6, 0, [[U, [CUT]], [U, [CUT]]]]),
    ("a role that is none", Kind.CONTROL, [8, U, 0, None, None]),
    ("a role of founder", Kind.CONTROL, [8, U, 100, None, None]),
    ("a role between", Kind.CONTROL, [8, U, 45, 0, []]),
    ("a role as text", Kind.CONTROL, [8, U, "writer", None, None]),
    ("a role of a short user", Kind.CONTROL, [8, U[:31], 40, None, None]),
    ("a promotion in four elements", Kind.CONTROL, [8, U, 40, None]),
    ("a promotion with cuts", Kind.CONTROL, [8, U, 40, None, []]),
    ("a demotion without cuts", Kind.CONTROL, [8, U, 40, 0, None]),
    ("a demotion with a boolean mode", Kind.CONTROL, [8, U, 40, False, []]),
    ("a demotion with a cut at sequence 0", Kind.CONTROL, [8, U, 40, 0, [[U, [[2, D, N, 0, H]]]]]),
    ("remove without cuts", Kind.CONTROL, [9, 0, U]),
    ("remove without mode", Kind.CONTROL, [9, None, U, []]),
    ("remove nobody", Kind.CONTROL, [9, 0, b"", []]),
    ("remove with cuts twice", Kind.CONTROL, [9, 0, U, [[U, [CUT, CUT]]]]),
    ("ban without reason", Kind.CONTROL, [10, 0, U, []]),
    ("ban with nil as reason", Kind.CONTROL, [10, 0, U, None, []]),
    ("ban with a reason as bytes", Kind.CONTROL, [10, 0, U, b"r", []]),
    ("ban with a bell in its reason", Kind.CONTROL, [10, 0, U, "\a", []]),
    ("ban with an override in its reason", Kind.CONTROL, [10, 0, U, "\u202er", []]),
    ("ban with a long reason", Kind.CONTROL, [10, 0, U, "\u00e4" * 257, []]),
    ("unban with a mode", Kind.CONTROL, [11, 0, U]),
    ("unban a long user", Kind.CONTROL, [11, U + b"u"]),
    ("drop no device", Kind.CONTROL, [12, 0, U, []]),
    ("drop a short device", Kind.CONTROL, [12, 0, U, D[:31], []]),
    ("drop a device with a negative mode", Kind.CONTROL, [12, -1, U, D, []]),
    ("no operations", Kind.CONTROL, [7, []]),
    ("operation of type 0", Kind.CONTROL, [7, [[0]]]),
    ("operation without type", Kind.CONTROL, [7, [[]]]),
    ("table without name", Kind.CONTROL, table(name="")),
    ("table with a long name", Kind.CONTROL, table(name="t" * 129)),
    ("table with a reserved name", Kind.CONTROL, table(name="SQLite_stat")),
    ("table with our own name", Kind.CONTROL, table(name="_peers_log")),
    ("table with NUL in its name", Kind.CONTROL, table(name="t\0")),
    ("table without columns", Kind.CONTROL, table(columns=[])),
    ("table without key", Kind.CONTROL, table(key=[])),
    ("table with a key twice", Kind.CONTROL, table(key=[0, 0])),
    ("table with a key beyond its columns", Kind.CONTROL, table(key=[1])),
    ("table that SQLite numbers", Kind.CONTROL, table(columns=[["id", "integer", [0], False, None]])),
    ("table with a REAL key", Kind.CONTROL, table(columns=[["id", "REAL", [0], False, None]])),
    ("table with a NUMERIC key", Kind.CONTROL, table(columns=[["id", "DECIMAL(10,2)", [0], False, None]])),
    ("STRICT table with a loose type", Kind.CONTROL, table(columns=[["id", "VARCHAR", [0], False, None]], strict=True)),
    ("two columns that differ in case", Kind.CONTROL, column(name="ID")),
    ("type with a constraint", Kind.CONTROL, column(type_text="TEXT UNIQUE")),
    ("type with SQL", Kind.CONTROL, column(type_text='TEXT); DROP TABLE "t"; --')),
    ("a long type", Kind.CONTROL, column(type_text="T" * 65)),
    ("NOT NULL without default", Kind.CONTROL, column(not_null=True)),
    ("NOT NULL with default NULL", Kind.CONTROL, column(not_null=True, default=[1, None])),
    ("default of unknown kind", Kind.CONTROL, column(default=[3])),
    ("default without literal", Kind.CONTROL, column(default=[1])),
    ("default with too much", Kind.CONTROL, column(default=[0, None])),
    ("default that is a boolean", Kind.CONTROL, column(default=[1, True])),
    ("default that is an array", Kind.CONTROL, column(default=[1, []])),
    ("default that is NaN", Kind.CONTROL, column(default=[1, float("nan")])),
    ("default above 64 bits", Kind.CONTROL, column(default=[1, 2**63])),
    ("references with SQL", Kind.CONTROL, column(ref='REFERENCES "o" CHECK (1)')),
    ("references unquoted", Kind.CONTROL, column(ref="REFERENCES o")),
    ("added column with uuid7()", Kind.CONTROL, [7, [[2, [N, 0], ["c", "TEXT", [2], False, None]]]]),
    ("added column to a table after it", Kind.CONTROL, [7, [[2, [b"", 0], ["c", "TEXT", [0], False, None]]]]),
    ("added column to a short act id", Kind.CONTROL, [7, [[2, [b"x", 0], ["c", "TEXT", [0], False, None]]]]),
    ("index without columns", Kind.CONTROL, [7, [[3, "i", [N, 0], []]]]),
    ("index with a column twice", Kind.CONTROL, [7, [[3, "i", [N, 0], [[[N, 0, 0], False], [[N, 0, 0], True]]]]]),
    ("user without certificate", Kind.IDENTITY, [1, "a", N, [], [], 0]),
    ("user without name", Kind.IDENTITY, [1, "", N, CERT.value, [], 0]),
    ("device without consent", Kind.IDENTITY, [2, CERT.value]),
    ("device with a short consent", Kind.IDENTITY, [2, CERT.value, bytes(63)]),
    ("profile with a space at its end", Kind.IDENTITY, [3, "a "]),
    ("profile with too much", Kind.IDENTITY, [3, "a", 0]),
]


def make() -> dict[str, Any]:
    return {
        "description": (
            "Bodies of control (kind 2) and identity (kind 1) acts, as the canonical bytes of their one block without its codec "
            "byte. `valid` bodies decode, and encode to the same bytes; those with `unknown` are acts of that type that this "
            "version holds and does not understand. `invalid` bodies are refused with `error`; an entry that has one is void."
        ),
        "valid": [
            {"name": f"{type(body).__name__} {number}", "kind": int(kind_of(body)), "body": encode_body(body).hex()}
            for number, body in enumerate(BODIES)
        ]
        + [
            {"name": name, "kind": int(kind), "body": canonical.encode(value).hex(), "unknown": value[0]}
            for name, kind, value in UNKNOWN
        ],
        "invalid": [
            {"name": name, "kind": int(kind), "body": canonical.encode(value).hex(), "error": "MALFORMED"}
            for name, kind, value in MALFORMED
        ],
    }
