-- The logs of a group, as one replica holds them. Applications never see these tables.

-- What the store is: keys are `format` (1), `group` (the group's id), `data_heads` and `act_heads` (canonical arrays of the
-- hashes of entries that no other entry names yet, or an empty blob where that is the entry at the greatest position alone),
-- `epoch` (that this device writes in); `local_…` is this device's own.
CREATE TABLE IF NOT EXISTS _peers_meta (
  key TEXT PRIMARY KEY,
  value ANY
) STRICT, WITHOUT ROWID;

-- One row a log. `kind` is 1 identity, 2 control, 3 data; `user` (32 bytes) is empty but for identity logs.
CREATE TABLE IF NOT EXISTS _peers_log (
  id INTEGER PRIMARY KEY,
  kind INTEGER NOT NULL,
  user BLOB NOT NULL,
  device BLOB NOT NULL,
  epoch BLOB NOT NULL,
  UNIQUE (kind, user, device, epoch)
) STRICT;

-- One row a branch of a log, but for the first one, branch 0, which begins with the log. A log that never forked has no row here.
-- `first` is the sequence of its first entry; `parent` the branch on which the entry before that stands (NULL: there is none).
CREATE TABLE IF NOT EXISTS _peers_branch (
  log INTEGER NOT NULL REFERENCES _peers_log,
  branch INTEGER NOT NULL,
  parent INTEGER,
  first INTEGER NOT NULL,
  PRIMARY KEY (log, branch)
) STRICT, WITHOUT ROWID;

-- Acting users, so that an entry names its own by a small number. `user` is 32 bytes, or empty in a user's own genesis.
CREATE TABLE IF NOT EXISTS _peers_author (
  id INTEGER PRIMARY KEY,
  user BLOB NOT NULL UNIQUE
) STRICT;

-- Who has entries in which log, void ones included: a device may belong to several users.
CREATE TABLE IF NOT EXISTS _peers_log_author (
  log INTEGER NOT NULL REFERENCES _peers_log,
  author INTEGER NOT NULL REFERENCES _peers_author,
  PRIMARY KEY (log, author)
) STRICT, WITHOUT ROWID;

-- One row an entry, but for those in segments: what a log ends with, and what may not stand in a segment. `id` is its position: the
-- order in which this replica took entries in, which is causal. `prev` is the id of the entry before it in its log (0: none),
-- `branch` numbers the log's branches in the order in which they came up here. `hlc` is the stamp as one integer (milliseconds << 16
-- | counter). `deps` and `heads` are canonical arrays of hashes, NULL when empty; `ext` likewise. `signature` (64 bytes) is kept where
-- a run ends. `body` is the body's canonical form as in a run. `state`: 0 void, 1 applied, 2 kept aside, 3 held as an ancestor, 4
-- counts and its body, or one before it on its branch, is missing.
CREATE TABLE IF NOT EXISTS _peers_entry (
  id INTEGER PRIMARY KEY,
  log INTEGER NOT NULL REFERENCES _peers_log,
  branch INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  prev INTEGER NOT NULL,
  author INTEGER NOT NULL REFERENCES _peers_author,
  state INTEGER NOT NULL,
  hlc INTEGER NOT NULL,
  hash BLOB NOT NULL,
  deps BLOB,
  heads BLOB,
  ext BLOB,
  signature BLOB,
  body BLOB NOT NULL
) STRICT;

CREATE UNIQUE INDEX IF NOT EXISTS _peers_entry_by_log ON _peers_entry (log, branch, seq);
CREATE INDEX IF NOT EXISTS _peers_entry_by_hash ON _peers_entry (hash);
CREATE INDEX IF NOT EXISTS _peers_entry_with_heads ON _peers_entry (log, branch, seq) WHERE heads IS NOT NULL;

-- Few entries are neither applied nor aside; queries for them repeat the condition, so that SQLite sees that this index has them.
CREATE INDEX IF NOT EXISTS _peers_entry_odd ON _peers_entry (log, branch, state, seq) WHERE state IN (0, 3, 4);

-- Entries that stand in no row of their own, since they came together or their log has grown beyond them: many small ones that follow
-- one another in a log and in position, each applied, with an inline body of one block, no deps, heads or ext. `id`, `seq`, `hlc` and
-- `hash` are those of the last one, `signature` is over it or NULL, `prev` the hash of the entry before the first. `packed` is one
-- zstd frame of the canonical array [stamps, blocks], each stamp but the first less the one before.
CREATE TABLE IF NOT EXISTS _peers_segment (
  id INTEGER PRIMARY KEY,
  log INTEGER NOT NULL REFERENCES _peers_log,
  branch INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  count INTEGER NOT NULL,
  author INTEGER NOT NULL REFERENCES _peers_author,
  hlc INTEGER NOT NULL,
  hash BLOB NOT NULL,
  prev BLOB NOT NULL,
  signature BLOB,
  packed BLOB NOT NULL
) STRICT;

CREATE UNIQUE INDEX IF NOT EXISTS _peers_segment_by_log ON _peers_segment (log, branch, seq);

-- Where entries in segments stand, by the first 6 bytes of their hashes as a number; `id` is a position.
CREATE TABLE IF NOT EXISTS _peers_segment_hash (
  prefix INTEGER NOT NULL,
  id INTEGER NOT NULL,
  PRIMARY KEY (prefix, id)
) STRICT, WITHOUT ROWID;

-- Blocks of detached bodies, by the hash of their entry and their index in the body. Those of an entry with a row in _peers_staged
-- are not complete.
CREATE TABLE IF NOT EXISTS _peers_block (
  entry BLOB NOT NULL,
  idx INTEGER NOT NULL,
  data BLOB NOT NULL,
  PRIMARY KEY (entry, idx)
) STRICT, WITHOUT ROWID;

-- Runs whose one entry's detached body is under way: the packed run, kept until its blocks are complete. `at` counts up, so that the
-- oldest gives way where too many are under way.
CREATE TABLE IF NOT EXISTS _peers_staged (
  at INTEGER PRIMARY KEY,
  entry BLOB NOT NULL UNIQUE,
  run BLOB NOT NULL
) STRICT;
