"""The node: stores, links and sync of one device, in one nursery."""

from peersd.node.node import Node, open_node

__all__ = ["Node", "open_node"]
