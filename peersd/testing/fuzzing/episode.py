"""Episodes: a victim with its files as at the beginning, and some hundred frames; and whole campaigns of them."""

from __future__ import annotations

import traceback
import tracemalloc
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

import apsw

from peersd.store.log import State
from peersd.store.store import Store
from peersd.testing.fuzzing import frames, handshakes, messages
from peersd.testing.fuzzing.author import Author
from peersd.testing.fuzzing.forgeries import REFUSED, Turns
from peersd.testing.fuzzing.frames import GOOD, Frames
from peersd.testing.fuzzing.handshakes import Handshakes
from peersd.testing.fuzzing.hostile import Hostile
from peersd.testing.fuzzing.messages import Messages
from peersd.testing.fuzzing.tally import GROWTH_BYTES_MAX, Tally
from peersd.testing.fuzzing.victim import Victim
from peersd.testing.fuzzing.world import Clock, World, write_note
from peersd.testing.simulator.entries import feed, pieces_of
from peersd.testing.simulator.stored import check_chain
from peersd_protocol import canonical
from peersd_protocol.constants import STAGED_BODIES_MAX
from peersd_protocol.errors import RemoteProtocolError
from peersd_protocol.handshake import Role
from peersd_protocol.messages import Runs, decode_message, decode_runs, encode_runs
from peersd_protocol.roles import Role as Roles
from peersd_protocol.runs import run_value

KINDS: Final = (*handshakes.KINDS, *frames.KINDS, *messages.KINDS)
"""All types. Messages of a session come more often than frames: there is more behind them."""

_WEIGHTS: Final = (*(2 for _ in handshakes.KINDS), *(2 for _ in frames.KINDS), *(4 for _ in messages.KINDS))

EPISODE_FRAMES: Final = 200
"""More let the files grow to where a frame costs more than what is saved at the beginning and the end."""

FILE_CHECKED_EVERY: Final = 16
"""Of so many episodes one has its file taken in whole by another store."""


class FuzzFailed(AssertionError):
    """Something that no frame may bring about; says where, and how to see it again."""


@dataclass(frozen=True)
class Campaign:
    """What is to be sent.

    Attributes:
        seed: everything follows from it.
        kinds: the types to be sent.
        measured_every: of so many episodes one has its memory measured; 0 for none.
    """

    seed: int = 0
    kinds: tuple[str, ...] = KINDS
    measured_every: int = 64

    def replay(self, episode: int, count: int = 1) -> str:
        """The command that runs some episodes again, `count` from that one on."""
        types = "" if self.kinds == KINDS else "".join(f" --type '{kind}'" for kind in self.kinds)
        return f"scripts/sim --frames {count * EPISODE_FRAMES} --seed {self.seed} --episode {episode}{types}"


def run_campaign(world: World, folder: Path, campaign: Campaign, episodes: Iterable[int], tally: Tally) -> None:
    """Runs episodes one after another.

    Raises:
        FuzzFailed: at the first fault.
    """
    for number in episodes:
        is_measured = bool(campaign.measured_every) and number % campaign.measured_every == 0
        path = folder / "victim.db"
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        clock = Clock()
        store = world.open_victim(path, clock)
        try:
            episode = Episode(world, store, clock, campaign, number, tally)
            _measure(episode, tally) if is_measured else episode.run()
            if is_measured or number % FILE_CHECKED_EVERY == 0:
                episode.check_file(folder / "fresh.db")
        finally:
            store.close()


def _measure(episode: Episode, tally: Tally) -> None:
    """Runs an episode and takes how far memory grew meanwhile: of the victim, and of the little that its driver keeps."""
    apsw.memory_high_water(True)
    before_sqlite = apsw.memory_used()
    tracemalloc.start()
    try:
        episode.run()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    where = f"episode {episode.number}"
    tally.growth_bytes.note(peak, where)
    tally.sqlite_bytes.note(apsw.memory_high_water(False) - before_sqlite, where)
    if peak > GROWTH_BYTES_MAX:
        raise FuzzFailed(f"memory grew by {peak} bytes in {where}\n{episode.campaign.replay(episode.number)}")


class Episode:
    """Some frames to one victim.

    Args:
        world: the group.
        store: the victim's.
        clock: the wall.
        campaign: what is to be sent.
        number: which episode.
        tally: gets what became of it.
    """

    def __init__(self, world: World, store: Store, clock: Clock, campaign: Campaign, number: int, tally: Tally) -> None:
        self.campaign = campaign
        self.number = number
        self._world = world
        self._store = store
        self._tally = tally
        self._random = random = Random(f"{campaign.seed}/{number}")
        self._victim = Victim(world, store, clock, random.randbytes(16))
        self._hostile = Hostile(world, self._victim, random.choice((Role.DIALLER, Role.LISTENER)), random)
        self._hostile.is_reading = random.random() < 0.8
        self._author = Author(world)
        self._void: list[bytes] = []
        self._bad: list[bytes] = []
        turns = Turns(number)
        self._messages = Messages(world, self._author, turns)
        self._frames = Frames(world, self._hostile, self._victim, turns)
        self._handshakes = Handshakes(world, self._victim)
        self._kinds = [(kind, weight) for kind, weight in zip(KINDS, _WEIGHTS, strict=True) if kind in campaign.kinds]

    def run(self) -> None:
        """Sends all frames, and then looks at what is left.

        Raises:
            FuzzFailed: a fault of the victim's.
        """
        names, weights = zip(*self._kinds, strict=True)
        for index in range(EPISODE_FRAMES):
            if not self._store.state.is_member_device(self._world.hostile.keys.device):
                break  # an act that was changed before it was signed may be one by which its author goes
            (kind,) = self._random.choices(names, weights)
            try:
                self._case(index, kind)
            except FuzzFailed:
                raise
            except Exception as error:
                raise self._failure(f"frame {index} ({kind}): {type(error).__name__}: {error}") from error
        try:
            self._check()
        except Exception as error:
            raise self._failure(f"at the end: {type(error).__name__}: {error}") from error

    def _failure(self, what: str) -> FuzzFailed:
        campaign = self.campaign
        trace = "".join(traceback.format_exc().splitlines(keepends=True)[-12:])
        where = f"seed {campaign.seed}, episode {self.number}"
        return FuzzFailed(f"{where}, {what}\n{campaign.replay(self.number)}\n{trace}")

    # --- Cases ------------------------------------------------------------------------------------------------------------------

    def _case(self, index: int, kind: str) -> None:
        victim = self._victim
        victim.advance(self._random.choice((0, 1, 10, 60, 300, 2_000)))
        if kind in frames.KINDS:
            self._frames.prepare(kind)
        elif kind in messages.KINDS:
            self._hostile.open_channel()
        else:
            self._hostile.forget()
        victim.refusals.clear()
        began_s = victim.busy_s
        is_good, change = self._send(kind)
        took_s = victim.busy_s - began_s
        refusals = [f"{one.scope} {one.code.name}" for one in victim.refusals]
        if is_good and self._is_blamed():
            raise self._failure(f"frame {index} ({kind}): a good one is refused: {victim.refusals}")
        if change in REFUSED and not self._is_blamed():
            raise self._failure(f"frame {index} ({kind}): what is {change} is not refused")
        if self._void:
            self._check_void(self._void[-1])
        where = f"episode {self.number}, frame {index}"
        self._tally.add(kind, is_good=is_good, change=change, refusals=refusals, took_s=took_s, where=where)

    def _send(self, kind: str) -> tuple[bool, str]:
        if kind in messages.KINDS:
            return self._say(kind)
        if kind in handshakes.KINDS:
            change = self._handshakes.send(self._random, kind)
        else:
            change = self._frames.send(self._random, kind)
            if self._victim.down is None and kind in ("OPEN", "OPEN_WITH_PROOF") and change == GOOD:
                assert self._hostile.refused_opens == 0 and self._hostile.channel is not None, "a good OPEN is not accepted"
        if change != GOOD or kind in ("DATA", "RETURN", "CREDIT") or kind in handshakes.KINDS:
            self._hostile.forget()  # what the own multiplexer knows may differ from what was sent
        return change == GOOD, change

    def _say(self, kind: str) -> tuple[bool, str]:
        said = self._messages.make(self._random, kind)
        if said.void:
            self._void.append(said.void)
        if not said.is_good:
            self._bad += said.messages
        for message in said.messages:
            self._hostile.send(message)
        if said.run is not None and not self._is_blamed():
            self._author.note_taken(said.run)
        if self._victim.refusals:
            draw = self._random.random()
            if draw < 0.25:
                self._hostile.forget()
            elif draw < 0.9:
                self._hostile.wait_out()  # else it asks for the channel anew at once, and is refused
        return said.is_good, said.change

    def _is_blamed(self) -> bool:
        """Whether something is refused, and not for a bad run that was said before, and waited for what came now."""
        late = [one.late for one in self._victim.refusals]
        waited = [run for message in self._bad for run in _as_parked(message, self._world.group)] if any(late) else []
        return any(one not in waited for one in late)

    def _check_void(self, hash_: bytes) -> None:
        found = self._store.log.find(hash_)
        assert found is None or found.state in (State.VOID, State.ANCESTOR), f"a forged entry counts: {hash_[:4].hex()}"

    # --- What is left -----------------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        """The link ends, the bystander's session has felt nothing, and the file is what its logs say."""
        world, store, victim = self._world, self._store, self._victim
        victim.refusals.clear()
        self._hostile.forget()
        fresh = next(piece for piece in world.pieces if store.log.find(piece.run.last.hash) is None or piece is world.pieces[-1])
        if store.log.find(fresh.run.last.hash) is None and not fresh.blocks:
            name = f"written in episode {self.number}"
            victim.check_bystander(lambda: write_note(store, world.victim.user, name), encode_runs([fresh.run]))
        for hash_ in self._void:
            self._check_void(hash_)
        for person, role in ((world.victim, Roles.FOUNDER), (world.bystander, Roles.OWNER)):
            assert store.state.role_of(person.user) == role, f"the {person.name} has another role"
            assert store.state.is_member_device(person.keys.device), f"the {person.name}'s device is no member's any more"
        assert store.state.role_of(world.hostile.user) <= Roles.ADMIN, "the hostile has risen"  # it may lower itself, and go
        before = store.dump(), store.dump_clocks()
        store.rebuild()
        assert (store.dump(), store.dump_clocks()) == before, "the rows are not what the logs say"

    def check_file(self, path: Path) -> None:
        """Whatever the file holds is taken by another store whole, and comes to the same there."""
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        fresh = self._world.open_fresh(path, Clock())
        try:
            feed(fresh, pieces_of(self._store), STAGED_BODIES_MAX)  # of more, the blocks would come too late
            assert fresh.vector() == self._store.vector(), "another store holds something else"
            wrong = check_chain(self._store, set())
            assert wrong is None, wrong
            assert fresh.dump() == self._store.dump(), "another store shows something else"
        except Exception as error:
            raise self._failure(f"the file: {type(error).__name__}: {error}") from error
        finally:
            fresh.close()


def _as_parked(message: bytes, group: bytes) -> list[Runs]:
    """The runs of a message, each as it is kept where it has to wait; none of what is no message of runs."""
    try:
        decoded = decode_message(message)
        runs = decode_runs(decoded, group) if isinstance(decoded, Runs) else ()
    except RemoteProtocolError:
        return []
    return [Runs(0, canonical.encode([run_value(run)])) for run in runs]


def episodes_for(frames_count: int, first: int = 0) -> range:
    """The numbers of as many episodes as it takes."""
    return range(first, first + -(-frames_count // EPISODE_FRAMES))


__all__ = ["EPISODE_FRAMES", "KINDS", "Campaign", "Episode", "FuzzFailed", "episodes_for", "run_campaign"]
