"""Hundreds of devices as bare machines under virtual time: their links, and replication over them, without stores and frames.

What is left out (stores, frames, lanes, beacons) the simulator has; what is here runs sizes that it cannot.
"""
