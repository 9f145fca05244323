"""The local API: JSON-RPC 2.0 on a Unix socket, in front of one node."""
