"""Frames that a hostile device may send, made by a grammar and changed, and what they must not bring about (DESIGN 9, 12).

Everything follows from a seed. An episode is a device with its files as at the beginning, one link after another to a hostile
member, and EPISODE_FRAMES frames: handshake messages, frames of the multiplexer, messages of a session, good ones and such as
break a rule. Good ones must not be refused; whatever is refused ends that link or that channel and nothing else.
"""

from peersd.testing.fuzzing.episode import EPISODE_FRAMES, KINDS, Campaign, FuzzFailed, episodes_for, run_campaign
from peersd.testing.fuzzing.tally import Tally
from peersd.testing.fuzzing.world import make_world

__all__ = ["EPISODE_FRAMES", "KINDS", "Campaign", "FuzzFailed", "Tally", "episodes_for", "make_world", "run_campaign"]
