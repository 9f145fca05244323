-- Where the application's tables come from and which write each of their cells shows. Applications never see these tables.
-- `tbl` is an id of _peers_table, `entry` an id of _peers_entry, `rid` a local row id, `col` a column's position from 0.

-- One row a table that exists here. `act` (16 bytes) and `op` name the schema operation that created it; `name` is its name as SQL
-- knows it; `definition` is the canonical array that it was made from, to tell an appended column from any other change.
CREATE TABLE IF NOT EXISTS _peers_table (
  id INTEGER PRIMARY KEY,
  act BLOB NOT NULL,
  op INTEGER NOT NULL,
  name TEXT NOT NULL UNIQUE,
  definition BLOB NOT NULL,
  UNIQUE (act, op)
) STRICT;

-- One row an index that exists here; columns as above.
CREATE TABLE IF NOT EXISTS _peers_index (
  act BLOB NOT NULL,
  op INTEGER NOT NULL,
  name TEXT NOT NULL UNIQUE,
  definition BLOB NOT NULL,
  PRIMARY KEY (act, op)
) STRICT, WITHOUT ROWID;

-- Which columns an insert wrote: one made under an older schema does not write columns added later. `columns` is a bit mask, bit n
-- for column n, as little-endian bytes.
CREATE TABLE IF NOT EXISTS _peers_shape (
  id INTEGER PRIMARY KEY,
  tbl INTEGER NOT NULL,
  columns BLOB NOT NULL,
  UNIQUE (tbl, columns)
) STRICT;

-- The greatest insert of living rows: those with row ids `first` to `last`, both included, were inserted by `entry` where `step` is
-- 0, and each by an entry of its own where it is 1: by `entry` the first, by `entry` + 1 the next. They wrote the columns in `shape`.
-- Spans do not overlap. They may still name ids of rows that are gone; nothing asks for those.
CREATE TABLE IF NOT EXISTS _peers_span (
  tbl INTEGER NOT NULL,
  first INTEGER NOT NULL,
  last INTEGER NOT NULL,
  entry INTEGER NOT NULL,
  step INTEGER NOT NULL,
  shape INTEGER NOT NULL,
  PRIMARY KEY (tbl, first)
) STRICT, WITHOUT ROWID;

-- A cell of a living row whose greatest write is not its row's insert: a later update, or, in a column that the insert did not
-- write, any write above the row's greatest delete.
CREATE TABLE IF NOT EXISTS _peers_cell (
  tbl INTEGER NOT NULL,
  rid INTEGER NOT NULL,
  col INTEGER NOT NULL,
  entry INTEGER NOT NULL,
  PRIMARY KEY (tbl, rid, col)
) STRICT, WITHOUT ROWID;

-- The greatest delete of a key, kept also while the row is alive again. `key` is the canonical array of the key's values.
CREATE TABLE IF NOT EXISTS _peers_delete (
  tbl INTEGER NOT NULL,
  key BLOB NOT NULL,
  entry INTEGER NOT NULL,
  PRIMARY KEY (tbl, key)
) STRICT, WITHOUT ROWID;

-- The greatest write above the greatest delete, for each cell of a row that is not alive, so that a late insert finds it.
CREATE TABLE IF NOT EXISTS _peers_aside (
  tbl INTEGER NOT NULL,
  key BLOB NOT NULL,
  col INTEGER NOT NULL,
  entry INTEGER NOT NULL,
  value ANY,
  PRIMARY KEY (tbl, key, col)
) STRICT, WITHOUT ROWID;

-- Tables without usable row ids (WITHOUT ROWID, or all names of the row id taken by columns) have a locator _peers_rid_N beside
-- them, N being their id: (k0, k1, …: the key's values; rid: the number that clocks know the row by).
