"""A swarm's view as a table and a line, in the words of the design."""

from __future__ import annotations

import time
from collections.abc import Sequence

from peersd.testing.process_swarm import Plan
from peersd.testing.process_swarm_views import DeviceView, SwarmView

GROUP_COLUMNS_MAX = 6
"""Groups with a column each; of more, the rows are summed up."""
REASONS_SHOWN_MAX = 2


def format_bytes(number: int) -> str:
    """`1.2 MB`, three digits or so."""
    size, units = float(number), ["B", "kB", "MB", "GB"]
    while size >= 999.5 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.0f} {units[0]}" if size >= 99.5 or units[0] == "B" else f"{size:.1f} {units[0]}"


def format_rows(plan: Plan, view: SwarmView) -> list[str]:
    """The table: a header and one line for each device."""
    names = list(plan.groups) if len(plan.groups) <= GROUP_COLUMNS_MAX else None
    header = ["device", "process", "links", "groups", *(names or ["rows"]), "lag", "memory", "handles", "bytes in", "bytes out"]
    lines = [header, *(_row(plan, names, device) for device in view.devices)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(header))]
    formatted = []
    for name, *figures in lines:
        aligned = [figure.rjust(width) for figure, width in zip(figures, widths[1:], strict=True)]
        formatted.append("  ".join([name.ljust(widths[0]), *aligned]))
    return formatted


def _row(plan: Plan, names: Sequence[str] | None, device: DeviceView) -> list[str]:
    own = plan.groups_of(device.name)
    if names is None:
        rows = [f"{sum(device.rows.values()):,}"]
    else:
        rows = [f"{device.rows.get(name, 0):,}" if name in own else "-" for name in names]
    lag = "-" if device.lag_entries is None else f"{device.lag_entries:,}"
    if device.state != "runs":
        figures = ["-", str(len(own)), *rows, lag, "-", "-"]
    else:
        memory = format_bytes(device.memory_bytes)
        figures = [str(len(device.links)), str(len(own)), *rows, lag, memory, str(device.file_handles)]
    process = device.state if device.pid is None else str(device.pid)
    return [device.name, process, *figures, format_bytes(device.bytes_in), format_bytes(device.bytes_out)]


def format_footer(plan: Plan, view: SwarmView) -> str:
    """Links, rows, and whether it has converged and since when, or what it waits for."""
    links, pairs = len(view.links), plan.pairs()
    parts = [f"{links} link{'s' * (links != 1)} for {pairs} pair{'s' * (pairs != 1)} that may have one"]
    parts.append(f"{sum(view.written.values()):,} rows written")
    if view.doubled:
        parts.append(f"MORE THAN ONE LINK: {', '.join('-'.join(pair) for pair in sorted(view.doubled))}")
    if view.converged_s is not None:
        since = time.strftime("%H:%M:%S", time.localtime(time.time() - view.converged_s))
        parts.append(f"converged since {since}")
    else:
        shown = list(view.waiting_for[:REASONS_SHOWN_MAX])
        if len(view.waiting_for) > REASONS_SHOWN_MAX:
            shown.append(f"and {len(view.waiting_for) - REASONS_SHOWN_MAX} more")
        parts.append(f"not converged ({'; '.join(shown)})")
    return " · ".join(parts)
