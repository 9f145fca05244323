"""The node: stores, links and sync of one device, in one nursery."""

from peersd.node.api_node import ApiNode, open_node

__all__ = ["ApiNode", "open_node"]
