"""Many devices in one process under virtual time, with seeded faults: the shipped machines and store, and no event loop.

    world = run_seed(7)
    print(world.trace.hash)

The driver here performs the machines' effects and makes faults; it decides nothing that a device decides. The same seed gives the
same trace, to the byte. A failure raises SimulationFailed, which names the check that found it (all are in `checkers`), the seed
and the command that replays it. In a trace devices are called a, b, c, and groups x, y, z.
"""

from peersd.testing.checkers import EXCEPTION, Checker
from peersd.testing.simulator.parts import Parts
from peersd.testing.simulator.plan import Plan
from peersd.testing.simulator.schedule import SimulationFailed
from peersd.testing.simulator.simulation import Simulation, run_seed

__all__ = ["EXCEPTION", "Checker", "Parts", "Plan", "Simulation", "SimulationFailed", "run_seed"]
