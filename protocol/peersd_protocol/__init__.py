"""The peersd wire protocol: a sans-I/O reference implementation of SPEC.md.

Nothing in this package does I/O, reads a clock, draws entropy or logs: keys, nonces and times are arguments.
"""
