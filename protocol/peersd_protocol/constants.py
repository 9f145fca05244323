"""Every bound on what a remote party influences, in one place, with where the number came from (DESIGN 12).

Units stand last in each name. A number marked `guess` has no measurement behind it yet.
"""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * 1024

# --- Entries and bodies (SPEC: E) ---

BLOCK_BYTES_MAX: Final = 256 * KIB
"""A block of a body, raw and encoded alike (DESIGN 6)."""

BODY_BYTES_MAX: Final = 64 * MIB
"""A whole body, raw: one transaction is one entry (DESIGN 6). Larger is refused with `too_large` before it commits."""

LINKS_PER_ENTRY_MAX: Final = 256
"""Hashes in `deps`, and in `control_heads`, of one entry (DESIGN 6)."""

RUN_ENTRIES_MAX: Final = 256
"""Entries between two signatures: the size of the greatest commit batch (DESIGN 8)."""

INLINE_BODY_BYTES_MAX: Final = 128 * KIB
"""Blocks of one entry above this in sum travel detached, after their run."""

BLOCKS_PER_BODY_MAX: Final = 264
"""Blocks of one body: BODY_BYTES_MAX in blocks of BLOCK_BYTES_MAX is 256; the rest is room for blocks that are not full
(guess)."""

COMPRESS_BYTES_MIN: Final = 128
"""A body below this is never compressed (measured: the changeset of one row of the bulk benchmark, 104 bytes, grows to 105 and
costs 10 µs)."""

CHANGESET_CELLS_MAX: Final = 4 * MIB
"""Elements of all arrays of one changeset. As Python objects a cell takes some 60 bytes and may come from a single one, so that
BODY_BYTES_MAX alone would admit gigabytes (guess: a million rows of four columns)."""

PACKED_CELLS_MIN: Final = 16
"""Values that a packed column has at least: unpacking one takes some 10 turns of a loop, whatever it has (guess)."""

CHANGESET_ARRAYS_MAX: Final = 65_536
"""Arrays in one changeset: an array for each column of each table and of each group of updates (guess)."""

BRANCHES_MAX: Final = 8
"""Branches of one log after forks; beyond that everything after the first fork is void (DESIGN 6)."""

SEQ_MAX: Final = 2**53
"""Positions in a log; far beyond any disk (guess)."""

# --- Messages of a session (SPEC: R) ---

MESSAGE_BYTES_MAX: Final = 1 * MIB
"""DESIGN 5."""

MESSAGE_ARRAYS_MAX: Final = 65_536
"""Arrays in one message, and in the runs that it packs. One takes some 64 bytes of memory and may come from a single byte, an
entry some 1,000 from seven: MESSAGE_BYTES_MAX alone admitted 144 MiB and 2 s (measured; now 20 MiB). Honest messages have 20,000
at most: 2,048 logs of a vector with 8 tips each."""

RUN_BYTES_MAX: Final = 512 * KIB
"""One run as it travels. It is passed on as it came, behind STREAM_MESSAGE_BYTES of others, in one message. An author ends a run
at INLINE_BODY_BYTES_MAX."""

STREAM_MESSAGE_BYTES: Final = 192 * KIB
"""What a server of catch-up aims at for one RUNS message: DESIGN 9 asks for 64 to 256 KiB."""

RUNS_COMPRESS_BYTES_MIN: Final = 512
"""Below this a RUNS message is not worth compressing (guess)."""

WANT_ITEMS_MAX: Final = 4096
"""Branches asked for in one WANT; more go into the next one (guess)."""

ASKED_MAX: Final = 16_384
"""Logs asked of one session at once, and gaps noted of it: as many as its vector may name. The rest comes up again later."""

WANT_SAMPLES_MAX: Final = 64
"""Samples of a log in one WANT item: exponential spacing reaches position 1 of any log of SEQ_MAX entries in 54."""

ASK_HASHES_MAX: Final = 256
"""Hashes in one ASK: as many as one entry may name (DESIGN 6)."""

STAGED_BODIES_MAX: Final = 4
"""Detached bodies under way in one group; each is at most BODY_BYTES_MAX on disk (guess)."""

VECTOR_LOGS_MAX: Final = 16_384
"""Logs in a whole vector: 1,024 devices in 16 epochs each (guess). What is known of a session takes some 1,000 bytes a log: four
times as many took 73 MiB of a link's 32 (measured)."""

VECTOR_TIPS_MAX: Final = 32_768
"""Tips in a whole vector: room for some forks, which few logs have (guess)."""

PARKED_RUNS_MAX: Final = 1000
"""Runs that wait for their dependencies, a session (DESIGN 9)."""

PARKED_BYTES_MAX: Final = 8 * MIB
"""The same in bytes, a link (DESIGN 9)."""

PARKED_HASH_BYTES: Final = 150
"""What each entry that a parked run lacks counts as, and the run itself beside its payload (measured: 65 bytes of a hash, 84 of
its place in a set of 100)."""

HAVE_DELAY_MS: Final = 50
"""HAVE is coalesced for at most this long (DESIGN 9)."""

GAP_DELAY_MS: Final = 200
"""A gap that is open for this long and that no WANT covers is asked for (DESIGN 9)."""

WANT_TIMEOUT_MS: Final = 5_000
"""A WANT without progress for this long goes to another session (DESIGN 9)."""

ASK_WAIT_MS_MAX: Final = 5_000
"""The longest wait between two ASKs of a session: who does not know where something stands may learn it later (guess)."""

LEAVE_WAIT_MS: Final = 20_000
"""How long the leave of a device that brings it itself waits for what it names, while nothing comes (guess: several times
WANT_TIMEOUT_MS, so that all who hold it were asked)."""

ORIGINS_MAX: Final = 4096
"""Entries of which a group remembers by which session they came first: those of some seconds under load (guess). Of older ones
duplicates prune nothing."""

PRUNE_INTERVAL_MS: Final = 1_000
"""How often PRUNE is said again, at most, on a session that goes on pushing duplicates: it has heard of the first (guess)."""

# --- Beacons (SPEC: B) ---

BEACON_INTERVAL_MS: Final = 5_000
"""A device publishes at most one beacon a group in this time, and no more than one of a device is passed on in it (DESIGN 9)."""

COUNTERS_INTERVAL_MS: Final = 1_000
"""COUNTERS is sent, and looked at, at most once in this time a session: what it makes the other side send may be megabytes
(guess)."""

BEACON_COUNTER_MAX: Final = 2**53 - 1
"""The greatest counter: as milliseconds since 1970 it lasts for 285,000 years."""

BEACON_ADDRESSES_MAX: Final = 8
"""Addresses in a beacon: as many as in a ticket (guess)."""

HOLDINGS_MAX: Final = 1_500
"""Logs named by a beacon: 64 devices with some twenty logs each (guess)."""

BEACON_BYTES_MAX: Final = 32 * KIB
"""An encoded beacon: HOLDINGS_MAX holdings of at most 20 bytes, BEACON_ADDRESSES_MAX addresses and 140 bytes."""

BEACONS_MAX: Final = 4096
"""Beacons of a group: those of as many devices as VECTOR_LOGS_MAX allows for in four epochs each."""

# --- Handshake and links (SPEC: N, L) ---

NOISE_MESSAGE_BYTES_MAX: Final = 65_535
"""A Noise message with its tag (Noise Protocol Framework, 3)."""

NOISE_TAG_BYTES: Final = 16
"""Poly1305's tag on each Noise message."""

HANDSHAKE_PAYLOAD_BYTES_MAX: Final = 512
"""The payload of a handshake message; version 1 needs at most 157, the rest is room for later versions (guess)."""

HANDSHAKE_MESSAGE_BYTES_MAX: Final = 608
"""The longest handshake message: two keys of 32 bytes, two tags of 16, and HANDSHAKE_PAYLOAD_BYTES_MAX."""

BOOT_ID_BYTES: Final = 16
"""Random bytes that a process draws once and states in its handshakes."""

PAST_BOOT_IDS_MAX: Final = 16
"""Boot ids remembered per remote device, to tell a clone from a restart (guess: more restarts than this between two of a clone's
links go unnoticed, and the next pair is caught)."""

DEVICES_REMEMBERED_MAX: Final = 4096
"""Remote devices without a link whose past is remembered. Anyone can make up a device key, so this is bounded (guess)."""

# --- Dialing (SPEC: L) ---

DIAL_DELAY_MS: Final = 500
"""Wait after the first round of failed dials to a device: long enough for a daemon to restart (guess)."""

DIAL_DELAY_MS_MAX: Final = 60_000
"""The longest such wait. A device that comes back is met within a minute even if nothing told of it; precedent: syncthing's
reconnection interval of 60 s."""

DIAL_LIVED_MS: Final = 30_000
"""A link that lived this long starts the waits over: two pings' time, so a link that comes up but carries nothing does not
(guess)."""

DIALS_IN_FLIGHT_MAX: Final = 64
"""Dials at once over all devices, so that hundreds of absent devices do not use up file handles (guess: 1,024 is a usual
limit)."""

ADDRESSES_PER_DEVICE_MAX: Final = 16
"""Addresses kept of one device; the newest push out the oldest (guess)."""

DIAL_REFUSED_MS: Final = 10_000
"""The shortest wait, but for its random part, after the other side ended a link because it wants none: as LINK_AGE_MIN_MS, before
which a full device cannot make room."""

# --- Wanted links (SPEC: L) ---

LINKS_MAX: Final = 30
"""Links with devices of shared groups, unless the user chose another number (DESIGN 9 speaks of a device with 30 links)."""

OWN_LINKS_MAX: Final = 8
"""Own devices that a link is wanted to (guess: more than most people have)."""

GROUP_LINKS_MAX: Final = 5
"""Users of a group that a link is wanted to: two close the ring, the others keep ways short (simulated: 200 devices are at most 6
steps apart, tests/protocol/test_mesh.py)."""

STRANGER_LINKS_MAX: Final = 32
"""Links to devices that no group is shared with, such as of those who come with a ticket (guess)."""

GUEST_LINKS_MAX: Final = 8
"""Links beside LINKS_MAX, for LINK_AGE_MIN_MS each, with devices that have no other in some group (guess: a guest learns where
others are, and is soon none any more)."""

IDLE_LINK_MS: Final = 60_000
"""A link to a device that no group is shared with ends after this long without a channel (guess)."""

LINK_AGE_MIN_MS: Final = 10_000
"""A link gives way to a better one only after this long: a device that comes and goes does not make links flap (guess)."""

# --- Names ---

NAME_CHARS_MAX: Final = 64
"""Code points in the name of a device: more than any list shows in one line (guess)."""

# --- Frames, multiplexer, links (SPEC: F, M, L) ---

FRAME_PAYLOAD_BYTES_MAX: Final = 65_507
"""What a DATA frame in a full Noise message has room for: a sender of bulk makes one frame of it (ADR 0022)."""

OPEN_PAYLOAD_BYTES_MAX: Final = 512
"""Payload of OPEN, ACCEPT and REFUSE: a token, a digest, beacon bytes and a redemption take about 300."""

VARINT_BYTES_MAX: Final = 8
"""Channel numbers, lengths and credits stay below 2**56: at OPENS_PER_S no link lives long enough to use up the numbers."""

TRANSPORT_MESSAGE_BYTES_MAX: Final = 256 * KIB
"""One transport message: with 1 MiB read buffers this size moved about 200 MB/s, smaller ones less (DESIGN 3)."""

CHANNELS_MAX: Final = 4096
"""Channels of a link, both sides' together (DESIGN 5): with first credits of 2 KiB they pin at most 8 MiB."""

OPENS_BURST: Final = 4096
OPENS_PER_S: Final = 50
"""OPEN frames a side may send at once, and then a second (DESIGN 5)."""

CREDIT_FIRST_BYTES: Final = 2 * KIB
"""Credit of each direction of a channel from the start, outside the pool (DESIGN 5): most live messages fit."""

MESSAGE_COST_BYTES: Final = 64
"""What a message costs in credit beside its bytes: the memory of a short message's object and its place in a queue
(measured, sys.getsizeof: 41 to 60). Without it 2 KiB of credit would hold 2,048 messages of one byte."""

CREDIT_WINDOW_BYTES_MAX: Final = 1 * MIB
"""Credit beyond the open message: 15 MB/s at a round trip of 50 ms, 6 with half of it (measured, scripts/bench, ADR 0022)."""

POOL_BYTES: Final = 12 * MIB
"""All credit and unconsumed bytes of a link beyond the first credits (DESIGN 5)."""

POOL_WINDOWS_BYTES: Final = 8 * MIB
"""Credit beyond open messages is granted only below this, so that at least 3 MiB always turn over in whole messages (SPEC:
M-12)."""

POOL_SMALL_MESSAGES_BYTES: Final = 1 * MIB
"""The last part of the pool, kept for messages of at most SMALL_MESSAGE_BYTES: a live message never queues behind bulk."""

SMALL_MESSAGE_BYTES: Final = 64 * KIB
"""A message that may use the kept part of the pool (guess)."""

PROOF_BYTES_MAX: Final = 256 * KIB
"""Messages that an opener sends before ACCEPT, in sum (DESIGN 5)."""

CONTROL_QUEUE_BYTES_MAX: Final = 4 * MIB
"""Control frames that wait to be sent: twice a full burst of OPENs. Beyond, the remote side asks and never reads."""

SLOW_MESSAGE_BYTES_PER_S: Final = 1 * KIB
SLOW_MESSAGE_SLACK_MS: Final = 60_000
"""A message comes at this rate at least (DESIGN 5), judged with a slack longer than it takes to find a dead network (45 s)."""

UPKEEP_INTERVAL_MS: Final = 1_000
"""How often slow messages, unused credit and unanswered CLOSE frames are looked for, while there are any (guess)."""

CREDIT_IDLE_MS: Final = 1_000
"""A sender with nothing to send for this long gives back its credit above CREDIT_FIRST_BYTES (guess)."""

CLOSE_ANSWER_MS: Final = 60_000
"""A CLOSE or REFUSE is answered within this; later than a dead network is found (guess)."""

HANDSHAKE_TIMEOUT_MS: Final = 10_000
PING_INTERVAL_MS: Final = 15_000
PINGS_MISSED_MAX: Final = 3
"""DESIGN 5: dead after 45 s of silence."""

SOCKETS_UNAUTHENTICATED_MAX: Final = 32
SOCKETS_PER_ADDRESS_MAX: Final = 4
"""Sockets in the handshake, in all and of one address; more of one address queue (DESIGN 5)."""

# --- Acts (SPEC: A, U) ---

ACT_BYTES_MAX: Final = 256 * KIB
"""The body of a control or identity act: one block. An avatar or the cuts of a large group fit; data belongs in changesets
(guess)."""

TITLE_CHARS_MAX: Final = 128
"""Code points in the name of a user or a group (guess: four times the longest that lists show whole)."""

DESCRIPTION_BYTES_MAX: Final = 4 * KIB
"""A group's description, UTF-8 (guess: a page of text)."""

BAN_REASON_BYTES_MAX: Final = 512
"""The reason of a ban, UTF-8 (guess: a few sentences)."""

AVATAR_BYTES_MAX: Final = 64 * KIB
"""A group's picture (guess: 256 by 256 pixels as PNG)."""

INVITE_USES_MAX: Final = 1_000_000
"""The greatest `max_uses` of an invite: "everyone" for any real group (guess)."""

EXPIRES_MS_MAX: Final = 2**48
"""The greatest time of expiry; what an HLC can hold."""

RECOVERY_KEYS_MAX: Final = 8
"""Recovery keys of a user or a group (guess)."""

USER_DEVICES_MAX: Final = 64
"""Live devices of a user (DESIGN 4)."""

IDENTITY_ACTS_MAX: Final = 1024
"""Acts of an identity log that count (DESIGN 4)."""

CUT_USERS_MAX: Final = 64
"""Users that one act's cuts name; an act takes rights from one (guess)."""

CUT_LOGS_MAX: Final = 2048
"""Logs that one act's cuts name in all; about 90 bytes each, so that they fit ACT_BYTES_MAX (guess)."""

LEAVE_ROUNDS_MAX: Final = 8
"""How often a group is evaluated anew because an admin's leave proved to be the last one, before all leaves of those concerned
fall. Two admins that leave at once need one round; only someone who writes such leaves on purpose needs more (guess)."""

# --- Schema (SPEC: A) ---

TABLES_MAX: Final = 1000
"""Tables of a group, and indexes too (guess; SQLite reads all of its schema when a connection opens)."""

COLUMNS_MAX: Final = 200
"""Columns of a table, added ones included (guess; SQLite's own bound is 2,000)."""

SCHEMA_OPS_MAX: Final = 1000
"""Operations in one schema act."""

IDENTIFIER_CHARS_MAX: Final = 128
"""Code points in the name of a table, column or index as its author gave it (guess)."""

TYPE_CHARS_MAX: Final = 64
"""Characters of a column's declared type (guess)."""

REFERENCES_CHARS_MAX: Final = 640
"""A REFERENCES clause: two quoted identifiers, doubled quotes included, and two actions."""

LITERAL_BYTES_MAX: Final = 4 * KIB
"""A default's literal, text or blob (guess)."""

# --- Lanes (SPEC: O) ---

LISTENER_WAIT_MS: Final = 500
"""How long a link's listener leaves it to the dialler to open what they share: some round trips (guess)."""

LANE_RETRY_MS: Final = 1_000
"""Wait before a group whose channel was refused or ended early is opened again; doubles each time (guess)."""

LANE_RETRY_MS_MAX: Final = 60_000
"""The longest such wait, as between dials."""

LANE_LIVED_MS: Final = 10_000
"""A session that lived this long starts the waits over (guess)."""

LANE_ASK_WHY_MS: Final = 100
"""Wait before a group whose channel was closed with NOT_MEMBER is opened once for the farewell: the other side is done with the
old channel by then (guess)."""

PLEAS_MAX: Final = 3
"""Pleas in one group on one link until what is known of its members changes. The first is looked at, unless another one of that
group on that link was a moment ago; the others are there for that (guess)."""

PLEA_ACTS_MAX: Final = 4_096
"""Acts in a plea: a group that a thousand users have been in. All of them are evaluated before any is known to be worth anything,
and again to see whether something is to be said against them: 0.3 and 0.5 s for so many that were made for it (measured)."""

ADMISSIONS_MAX: Final = 8
"""OPENs of one link whose proofs are looked at at once: each may keep its place for HANDSHAKE_TIMEOUT_MS. A device proves for one
of its users after the other in a group, so that more are wanted only by one that joins many groups at once (guess)."""

# --- Opening and tickets (SPEC: O) ---

TICKET_ADDRESSES_MAX: Final = 8
"""Addresses in a ticket (guess: several members, two addresses each)."""

ADDRESS_CHARS_MAX: Final = 200
"""Characters of one address (guess)."""

TICKET_BYTES_MAX: Final = 4 * KIB
"""A ticket's bytes: 8 addresses, a name and 100 bytes of ids."""

OPEN_BYTES_MAX: Final = 512
"""The payload of OPEN: 40 bytes and, with a redemption, 270 more."""
