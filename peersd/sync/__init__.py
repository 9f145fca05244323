"""Replication of groups over channels: runners of the machine in peersd_protocol.replication."""
