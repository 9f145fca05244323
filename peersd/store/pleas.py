"""Pleas: acts by which one side of a link shows the other, to which one of the two is no member's device, why it is (SPEC: O-14).

They come from who may be no member, so they are weighed before anything of them is kept: whoever was removed can write what it
wants, but nothing of that stands.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import islice

from peersd_protocol.act_bodies import decode_acts
from peersd_protocol.act_index import bits_of
from peersd_protocol.constants import PLEA_ACTS_MAX, PROOF_BYTES_MAX
from peersd_protocol.entries import Act, Kind
from peersd_protocol.errors import CloseCode, LocalProtocolError, RemoteProtocolError
from peersd_protocol.group_state import GroupState
from peersd_protocol.membership import evaluate
from peersd_protocol.messages import Runs, decode_message, decode_runs
from peersd_protocol.runs import BodyForm, Run


def as_plea(group: bytes, messages: Sequence[bytes]) -> bytes | None:
    """The plea that these messages of a group's acts make, if they are one that may be sent before the answer to an OPEN."""
    if len(messages) != 1 or len(messages[0]) > PROOF_BYTES_MAX:
        return None
    try:
        _read(group, messages[0])
    except RemoteProtocolError:
        return None  # who gets it would refuse it
    return messages[0]


def weigh(state: GroupState, message: bytes, device: bytes) -> tuple[list[Run], frozenset[bytes]]:
    """What of a plea is to be taken in, and, if nothing is, the acts that show its sender what it has not heard of.

    Args:
        state: of the group, by the acts that are here.
        message: the plea.
        device: who sent it.

    Returns:
        If by these acts and the plea other devices or users are members, or in other roles: of its control acts those that stand,
        and what they rest on, in runs the signatures of which are still to be verified. Else none; and the hashes of acts that
        are here: the farewell of the device, and those by which other acts in the plea do not stand. Neither of these unless the
        device is a member's by its plea alone, its farewell, if it has one, among that: who leaves that out learns no more than
        it.

    Raises:
        RemoteProtocolError: it does not consist of acts with their bodies, or rests on others; or a signature in it is not good,
            nothing is to be taken and something would be said.
    """
    runs, acts = _read(state.group_id, message)
    here = state.evaluation.index.acts if state.evaluation else []
    known = {act.hash for act in here}
    new = {act.hash: at for at in range(len(runs)) for act in acts[at] if act.hash not in known}
    union = _evaluate(state.group_id, here, acts) if new else state
    if union.evaluation is not None and union.membership != state.membership:
        index = union.evaluation.index
        standing = [act.hash for act in index.acts if act.hash in union.standing and act.header.kind is Kind.CONTROL]
        chosen = _closure(new, acts, index.hashes(index.closure(standing)))
        # What is left out is void and decides nothing; but acts that mean something else without it are not taken.
        if _evaluate(state.group_id, here, [acts[at] for at in chosen]).membership == union.membership:
            return [runs[at] for at in chosen], frozenset()
    said = _rebut(state, union, [act for some in acts for act in some], device) & known
    for run in runs if said else ():
        if not known.issuperset(run.hashes):  # or anybody could make up what others wrote, and hear who took their rights
            run.check_signature()
    return [], said


def _rebut(state: GroupState, union: GroupState, acts: Sequence[Act], device: bytes) -> frozenset[bytes]:
    """The hashes of acts that show a device what it has not heard of, as `weigh` says; some may be of the plea.

    Args:
        state: of the group, by the acts that are here.
        union: by these and the plea.
        acts: of the plea.
        device: who sent it.
    """
    if union.evaluation is None or state.is_member_device(device) or union.is_member_device(device):
        return frozenset()
    index = union.evaluation.index
    shown = index.closure([act.hash for act in acts])
    claim = _evaluate(state.group_id, [index.acts[position] for position in bits_of(shown)], [])
    own = state.farewell(device)
    if not claim.is_member_device(device) or not own <= index.hashes(shown):
        return frozenset()
    return own | union.rebuttal(claim)


def _read(group: bytes, message: bytes) -> tuple[list[Run], list[list[Act]]]:
    """The runs of a plea and the acts in each, within its bounds; signatures are not looked at."""
    packed = decode_message(message)
    if not isinstance(packed, Runs):
        raise RemoteProtocolError(CloseCode.PROTOCOL, "a plea is one RUNS message")
    runs = decode_runs(packed, group)
    if sum(len(run.entries) for run in runs) > PLEA_ACTS_MAX:
        raise RemoteProtocolError(CloseCode.TOO_LARGE, "acts in a plea")
    entries = [entry for run in runs for entry in run.entries]
    if any(entry.header.kind is Kind.DATA or entry.body.form is not BodyForm.INLINE for entry in entries):
        raise RemoteProtocolError(CloseCode.PROTOCOL, "a plea holds more than acts, or less")
    acts = iter(decode_acts(entries))
    return runs, [list(islice(acts, len(run.entries))) for run in runs]


def _evaluate(group: bytes, here: Iterable[Act], acts: Iterable[Iterable[Act]]) -> GroupState:
    try:
        return evaluate(group, [*here, *(act for some in acts for act in some)])
    except LocalProtocolError as error:
        raise RemoteProtocolError(CloseCode.BAD_CHAIN, "a plea rests on acts that are neither in it nor here") from error


def _closure(new: dict[bytes, int], acts: Sequence[Sequence[Act]], wanted: Collection[bytes]) -> list[int]:
    """The runs, by index, that hold acts which are wanted and new, and those on which these runs rest; in their order."""
    chosen: set[int] = set()
    left = [hash_ for hash_ in wanted if hash_ in new]
    while left:
        at = new[left.pop()]
        if at not in chosen:
            chosen.add(at)
            left += [parent for act in acts[at] for parent in act.parents if parent in new]
    return sorted(chosen)
