"""Swarms under virtual time: many real nodes in one process, for tests of peersd and of applications.

For authors of applications: docs/testing-applications.md.

Daemons as processes are another thing: `peersd.testing.process_swarm`.
"""

from peersd.testing.swarm.device import Settings
from peersd.testing.swarm.running import run_virtually, virtual_clock
from peersd.testing.swarm.swarm import Swarm, SwarmFailed, open_swarm
from peersd.testing.swarm.wires import Conditions

__all__ = ["Conditions", "Settings", "Swarm", "SwarmFailed", "open_swarm", "run_virtually", "virtual_clock"]
