"""Vectors of the multiplexer (SPEC: M): what a listener's side answers to the frames of a dialler."""

from __future__ import annotations

from typing import Any

from peersd_protocol.constants import CREDIT_FIRST_BYTES, MESSAGE_BYTES_MAX, MESSAGE_COST_BYTES, PROOF_BYTES_MAX
from peersd_protocol.errors import CloseCode
from peersd_protocol.frames import FrameType, decode_frames, encode_frame, encode_number_frame, encode_varint
from peersd_protocol.link_effects import ChannelClosed, Effect, MessageReceived, OpenRequested
from peersd_protocol.mux import Mux

Step = dict[str, Any]

_OPEN = encode_frame(FrameType.OPEN, 1, b"open")
_OPEN_WITH_PROOF = encode_frame(FrameType.OPEN_WITH_PROOF, 1, b"open")
_FIRST_MAX_BYTES = CREDIT_FIRST_BYTES - MESSAGE_COST_BYTES


def receive(frames: bytes) -> Step:
    return {"receive": frames.hex()}


def command(name: str, **arguments: Any) -> Step:
    return {"command": name, **arguments}


def run(mux: Mux, step: Step) -> None:
    """Does one step of a case to a multiplexer; the tests use it too."""
    match step:
        case {"receive": frames}:
            for kind, channel, payload in decode_frames(bytes.fromhex(frames)):
                mux.receive(kind, channel, payload, 0)
        case {"command": "accept"}:
            mux.accept(1, b"accept")
        case {"command": "refuse"}:
            mux.refuse(1, b"", 0)
        case {"command": "want"}:
            mux.want(1, wanted=True)
        case {"command": "consumed", "bytes": message_bytes}:
            mux.consumed(1, message_bytes)
        case {"command": "close", "code": code}:
            mux.close_channel(1, CloseCode[code], 0)
        case {"command": "send", "message": message, "bulk": bulk}:
            mux.send(1, bytes.fromhex(message), bulk=bulk)
        case _:
            raise ValueError(f"no such step: {step}")


def event_text(effect: Effect) -> str:
    """An effect as the vectors write it."""
    match effect:
        case OpenRequested(channel, payload, proof_follows):
            return f"open {channel} {payload.hex()}{' proof' if proof_follows else ''}"
        case MessageReceived(channel, message):
            return f"message {channel} {len(message)} bytes"
        case ChannelClosed(channel, code):
            return f"closed {channel} {code.name}"
        case _:
            return type(effect).__name__.lower()


def observe(steps: list[Step]) -> list[Step]:
    """Runs the steps on a fresh listener's side and adds to each what it reported and sent."""
    mux = Mux(is_dialler=False, now_ms=0)
    observed: list[Step] = []
    for step in steps:
        run(mux, step)
        events = [event_text(effect) for effect in mux.effects]
        mux.effects.clear()
        sends = {} if step.get("hold") else {"sends": mux.pull(65_519, 0).hex()}
        observed.append({**step, "events": events, **sends})
    return observed


def data(payload: bytes, *, end: bool) -> bytes:
    return encode_frame(FrameType.DATA_END if end else FrameType.DATA, 1, payload)


def _valid(name: str, *steps: Step) -> Step:
    return {"name": name, "steps": observe(list(steps))}


def _invalid(name: str, code: CloseCode, *steps: Step) -> Step:
    return {"name": name, "steps": list(steps), "error": code.name}


def make() -> dict[str, Any]:
    accept, want = command("accept"), command("want")
    large = encode_varint(5000)
    return {
        "description": "Steps done to the listener's side of a new link. Valid: each with its events and, unless `hold`, "
        "what is sent. Invalid: the last step ends the link with the error's close code.",
        "valid": [
            _valid(
                "a message each way",
                receive(_OPEN),
                accept,
                receive(data(b"\x02hi", end=True)),
                command("consumed", bytes=2),
                command("send", message="6869", bulk=False),
            ),
            _valid(
                "a refusal and its answer",
                receive(_OPEN),
                command("refuse"),
                receive(encode_number_frame(FrameType.CLOSE, 1, 0)),
                receive(encode_frame(FrameType.OPEN, 3)),
            ),
            _valid(
                "a message beyond the first credit is granted whole, with a window, once it is wanted",
                receive(_OPEN),
                accept,
                receive(data(large + bytes(_FIRST_MAX_BYTES), end=False)),
                want,
                receive(data(bytes(5000 - _FIRST_MAX_BYTES), end=True)),
                command("consumed", bytes=5000),
            ),
            _valid(
                "a close, data under way dropped, and the answer",
                receive(_OPEN),
                accept,
                command("close", code="BAD_CHAIN"),
                receive(data(b"\x02hi", end=True)),
                receive(encode_number_frame(FrameType.CLOSE, 1, 0)),
            ),
            _valid("the remote side closes", receive(_OPEN), accept, receive(encode_number_frame(FrameType.CLOSE, 1, 13))),
            _valid("a proof before the answer", receive(_OPEN_WITH_PROOF), receive(data(b"\x05proof", end=True)), accept),
            _valid("credit given back", receive(_OPEN), accept, receive(encode_number_frame(FrameType.RETURN, 1, 1000))),
            _valid(
                "live before bulk",
                receive(_OPEN),
                accept,
                command("send", message="aa", bulk=True, hold=True),
                command("send", message="bb", bulk=False),
            ),
        ],
        "invalid": [
            _invalid("a gap in the numbers", CloseCode.PROTOCOL, receive(encode_frame(FrameType.OPEN, 3))),
            _invalid("a number of the other side", CloseCode.PROTOCOL, receive(encode_frame(FrameType.OPEN, 2))),
            _invalid("opened twice", CloseCode.PROTOCOL, receive(_OPEN), receive(_OPEN)),
            _invalid("data on no channel", CloseCode.PROTOCOL, receive(data(b"\x01x", end=True))),
            _invalid(
                "data before the answer without a proof", CloseCode.PROTOCOL, receive(_OPEN), receive(data(b"\x01x", end=True))
            ),
            _invalid(
                "an answer nobody asked for", CloseCode.PROTOCOL, receive(_OPEN), receive(encode_frame(FrameType.ACCEPT, 1))
            ),
            _invalid(
                "beyond the first credit",
                CloseCode.CREDIT,
                receive(_OPEN),
                accept,
                receive(data(large + bytes(_FIRST_MAX_BYTES + 1), end=False)),
            ),
            _invalid(
                "the cost of short messages", CloseCode.CREDIT, receive(_OPEN), accept, receive(data(b"\x01x", end=True) * 32)
            ),
            _invalid(
                "more returned than there is",
                CloseCode.CREDIT,
                receive(_OPEN),
                accept,
                receive(encode_number_frame(FrameType.RETURN, 1, CREDIT_FIRST_BYTES + 1)),
            ),
            _invalid("an empty message", CloseCode.MALFORMED, receive(_OPEN), accept, receive(data(b"\x00", end=True))),
            _invalid("shorter than it said", CloseCode.MALFORMED, receive(_OPEN), accept, receive(data(b"\x03xx", end=True))),
            _invalid("longer than it said", CloseCode.MALFORMED, receive(_OPEN), accept, receive(data(b"\x01xx", end=True))),
            _invalid("complete and not ended", CloseCode.MALFORMED, receive(_OPEN), accept, receive(data(b"\x01x", end=False))),
            _invalid("a length cut off", CloseCode.MALFORMED, receive(_OPEN), accept, receive(data(b"\x80", end=False))),
            _invalid(
                "a message too large",
                CloseCode.TOO_LARGE,
                receive(_OPEN),
                accept,
                receive(data(encode_varint(MESSAGE_BYTES_MAX + 1) + b"x", end=False)),
            ),
            _invalid(
                "a proof too large",
                CloseCode.TOO_LARGE,
                receive(_OPEN_WITH_PROOF),
                receive(data(encode_varint(PROOF_BYTES_MAX + 1) + b"x", end=False)),
            ),
            _invalid(
                "no credit in CREDIT",
                CloseCode.MALFORMED,
                receive(_OPEN),
                accept,
                receive(encode_number_frame(FrameType.CREDIT, 1, 0)),
            ),
        ],
    }
