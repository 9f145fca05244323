"""`peers sql`: statements from the command line, a file or standard input; rows out as a table, CSV or JSON."""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from peersd.cli.input import read_input
from peersd.cli.output import Output, UsageError
from peersd.cli.sql_text import parse_params, split_statements
from peersd.cli.tables import escape, format_cell, format_table
from peersd.client import Peers, PeersError

SCRIPT_BYTES_MAX: Final = 256 * 1024 * 1024
"""A file of SQL; each statement of it must fit a line of 16 MiB (guess: what is still read at once without harm)."""


async def sql(peers: Peers, arguments: argparse.Namespace) -> Output:
    """`peers sql`."""
    statements = _statements(arguments)
    try:
        params = parse_params(arguments.param)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if params is not None and len(statements) > 1:
        raise UsageError("--param needs a single statement")
    if arguments.transaction:
        return await _run_transaction(peers, arguments, statements, params)
    answers: list[dict[str, Any]] = []
    for number, statement in enumerate(statements, 1):
        try:
            answers.append(await _run_one(peers, arguments, statement, params))
        except PeersError as error:
            if len(statements) > 1:
                error.message = f"statement {number} of {len(statements)}: {error.message} (those before it are done)"
            raise
    return Output(
        answers[0] if len(answers) == 1 else answers,
        "".join(_format(answer, as_csv=arguments.csv) for answer in answers),
        "".join(_note(answer) for answer in answers),
    )


async def _run_one(peers: Peers, arguments: argparse.Namespace, statement: str, params: Any) -> dict[str, Any]:
    # Whether a statement writes is the daemon's to say, not ours to guess from its text: it refuses in a query what does.
    asked: dict[str, Any] = {"group": arguments.group, "sql": statement, "params": params, "timeout_s": arguments.timeout}
    answer: dict[str, Any]
    try:
        answer = await peers.call("sql.query", limit=arguments.limit, **asked)
    except PeersError as error:
        if error.code != "sql_refused" or error.data.get("kind") not in ("write", "schema"):
            raise
        answer = await peers.call("sql.execute", **asked)
    return answer


async def _run_transaction(peers: Peers, arguments: argparse.Namespace, statements: list[str], params: Any) -> Output:
    listed = [{"sql": statement} if params is None else {"sql": statement, "params": params} for statement in statements]
    answer = await peers.call("sql.transaction", group=arguments.group, statements=listed, timeout_s=arguments.timeout)
    return Output(answer, "", f"{_count(sum(answer['changes']), 'row')} changed by {_count(len(statements), 'statement')}\n")


def _statements(arguments: argparse.Namespace) -> list[str]:
    if (arguments.sql is None) == (arguments.file is None):
        raise UsageError("give SQL, or -f FILE, or - for standard input")
    if arguments.sql not in (None, "-"):
        text = str(arguments.sql)
    elif arguments.file in (None, "-"):
        text = read_input("SQL", SCRIPT_BYTES_MAX)
    else:
        text = _read_file(Path(arguments.file))
    statements = split_statements(text)
    if not statements:
        raise UsageError("there is no SQL statement")
    return statements


def _read_file(file: Path) -> str:
    try:
        if file.stat().st_size > SCRIPT_BYTES_MAX:
            raise UsageError(f"{file}: longer than {SCRIPT_BYTES_MAX} bytes")
        return file.read_text("utf-8")
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror or error}") from error
    except UnicodeDecodeError:
        raise UsageError(f"{file}: not UTF-8") from None


def _format(answer: dict[str, Any], *, as_csv: bool) -> str:
    if not answer["columns"]:
        return ""
    if as_csv:
        return _format_csv(answer["columns"], answer["rows"])
    return format_table(answer["columns"], answer["rows"])


def _format_csv(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    # A file gets the text as it is; a terminal must not be spoken to by other people's rows.
    cell = _escaped_csv_cell if sys.stdout.isatty() else _csv_cell
    writer.writerow([cell(column) for column in columns])
    writer.writerows([cell(value) for value in row] for row in rows)
    return written.getvalue()


def _csv_cell(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else format_cell(value)


def _escaped_csv_cell(value: object) -> str:
    return escape(_csv_cell(value))


def _note(answer: dict[str, Any]) -> str:
    if answer.get("schema_version") is not None:
        return f"schema version {answer['schema_version']}\n"
    if "changes" in answer:
        return f"{_count(answer['changes'], 'row')} changed\n"
    if answer["truncated"]:
        return f"only the first {_count(len(answer['rows']), 'row')}; more with --limit\n"
    return ""


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
