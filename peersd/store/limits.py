"""Bounds on what a local client's SQL may use; those that a remote party influences are in peersd_protocol.constants."""

from __future__ import annotations

from typing import Final

from peersd_protocol.constants import BODY_BYTES_MAX, KIB, MIB

VALUE_BYTES_MAX: Final = BODY_BYTES_MAX
"""One string, blob or row inside SQLite. What is larger could not travel in one body (DESIGN 6)."""

SQL_BYTES_MAX: Final = 1 * MIB
"""Text of one statement (SQLite's own default is 1 GB). Rows in bulk belong into parameters."""

SCHEMA_SQL_BYTES_MAX: Final = 64 * KIB
"""Text of one CREATE or ALTER statement (guess)."""

EXPRESSION_DEPTH_MAX: Final = 200
"""Nesting of an expression; SQLite's default of 1,000 costs a megabyte of C stack at worst (guess)."""

COMPOUND_SELECT_MAX: Final = 100
"""SELECTs joined by UNION; a VALUES list does not count here (guess)."""

FUNCTION_ARGUMENTS_MAX: Final = 127
"""Precedent: SQLite's default before 3.50."""

LIKE_PATTERN_BYTES_MAX: Final = 1000
"""LIKE and GLOB take quadratic time; precedent: sqlite.org/security.html asks for a small number."""

VDBE_OPERATIONS_MAX: Final = 1_000_000
"""Instructions of one prepared statement, some 24 bytes each (guess)."""

PROGRESS_STEPS: Final = 1000
"""VDBE steps between looks at the clock and the memory: no measurable cost (DESIGN 12)."""

CLIENT_MEMORY_BYTES_MAX: Final = 192 * MIB
"""Growth of SQLite's memory during one client statement: three times the greatest value, since SQLite copies to concatenate.

The counter is the process's own, so a busy neighbour can make it look larger than it is; it never looks smaller."""

RETURNING_ROWS_MAX: Final = 10_000
"""Rows that one write answers (API.md gives sql.query the same default)."""

ANSWER_BYTES_MAX: Final = 10 * MIB
"""Values of one answer: as JSON with base64 they stay within the 16 MiB of a line (API.md)."""

BATCH_REQUESTS_MAX: Final = 256
"""Requests in one commit (DESIGN 8), one signed run at most."""

BUSY_TIMEOUT_MS: Final = 5000
"""How long a lock of another process (a backup tool, a checkpoint) is waited out (guess)."""
