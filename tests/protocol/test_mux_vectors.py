"""The implementation against protocol/vectors/mux.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from peersd_protocol.errors import CloseCode, RemoteProtocolError
from peersd_protocol.frames import decode_frames
from peersd_protocol.link_effects import ChannelClosed, Effect, MessageReceived, OpenRequested
from peersd_protocol.mux import Mux

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[2] / "protocol" / "vectors" / "mux.json").read_text())


def run(mux: Mux, step: dict[str, Any]) -> None:
    if "receive" in step:
        for kind, channel, payload in decode_frames(bytes.fromhex(step["receive"])):
            mux.receive(kind, channel, payload, 0)
        return
    {
        "accept": lambda: mux.accept(1, b"accept"),
        "refuse": lambda: mux.refuse(1, b"", 0),
        "want": lambda: mux.want(1, wanted=True),
        "consumed": lambda: mux.consumed(1, step["bytes"]),
        "close": lambda: mux.close_channel(1, CloseCode[step["code"]], 0),
        "send": lambda: mux.send(1, bytes.fromhex(step["message"]), bulk=step["bulk"]),
    }[step["command"]]()


def text_of(effect: Effect) -> str:
    if isinstance(effect, OpenRequested):
        return f"open {effect.channel} {effect.payload.hex()}{' proof' if effect.proof_follows else ''}"
    if isinstance(effect, MessageReceived):
        return f"message {effect.channel} {len(effect.message)} bytes"
    assert isinstance(effect, ChannelClosed)
    return f"closed {effect.channel} {effect.code.name}"


@pytest.mark.parametrize("case", VECTORS["valid"], ids=lambda case: case["name"])
def test_valid_steps_report_and_send_this(case: dict[str, Any]) -> None:
    mux = Mux(is_dialler=False, now_ms=0)
    for step in case["steps"]:
        run(mux, step)
        assert [text_of(effect) for effect in mux.effects] == step["events"]
        mux.effects.clear()
        if not step.get("hold"):
            assert mux.pull(65_519, 0).hex() == step["sends"]


@pytest.mark.parametrize("case", VECTORS["invalid"], ids=lambda case: case["name"])
def test_invalid_steps_end_the_link_with_their_code(case: dict[str, Any]) -> None:
    mux = Mux(is_dialler=False, now_ms=0)
    for step in case["steps"][:-1]:
        run(mux, step)
    with pytest.raises(RemoteProtocolError) as caught:
        run(mux, case["steps"][-1])
    assert caught.value.close_code is CloseCode[case["error"]]
