-- What this device remembers for its own convenience, beside the groups' files: node.db. None of it is replicated, and the file may
-- be deleted while the daemon is stopped. Ids are 32 bytes each; times are milliseconds since 1970 by this device's clock.

-- One row a group that was opened here: what is known of it without opening its file. `body` is the node's to read. `clean` is 1 if
-- `body` is true of the file with this `inode`, `size` (bytes) and `mtime_ns` (nanoseconds since 1970): it is cleared before the
-- first commit after the file was opened and set when it has been closed. With `clean` 0 the other three say nothing.
CREATE TABLE IF NOT EXISTS summary (
  group_id BLOB PRIMARY KEY,
  body BLOB NOT NULL,
  clean INTEGER NOT NULL,
  inode INTEGER NOT NULL DEFAULT 0,
  size INTEGER NOT NULL DEFAULT 0,
  mtime_ns INTEGER NOT NULL DEFAULT 0
) STRICT;

-- The latest beacon of each device in each group, whose signature was checked when it came. `packed` is its canonical array.
CREATE TABLE IF NOT EXISTS beacon (
  group_id BLOB NOT NULL,
  device BLOB NOT NULL,
  counter INTEGER NOT NULL,
  packed BLOB NOT NULL,
  PRIMARY KEY (group_id, device)
) STRICT, WITHOUT ROWID;

-- Where devices can be reached. `id` ascends in the order in which a device's addresses are to be tried, and from the device of
-- which nothing was heard for the longest time to the one of which something was heard last. `answered_ms` is when the device
-- proved to be at `url`, as of the last change of its addresses; NULL if it was only stated.
CREATE TABLE IF NOT EXISTS address (
  id INTEGER PRIMARY KEY,
  device BLOB NOT NULL,
  url TEXT NOT NULL,
  answered_ms INTEGER,
  UNIQUE (device, url)
) STRICT;

-- What is known of a device's copy of a group: when it was last known to hold exactly what this device held, and when a session
-- with it last ran; NULL for never.
CREATE TABLE IF NOT EXISTS view (
  group_id BLOB NOT NULL,
  device BLOB NOT NULL,
  last_equal_ms INTEGER,
  last_seen_ms INTEGER,
  PRIMARY KEY (group_id, device)
) STRICT, WITHOUT ROWID;
