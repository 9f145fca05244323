"""The Python client of the local API, for trio programs. Of peersd it imports the local socket, and nothing else.

async with open_client() as peers:
    await peers.execute("INSERT INTO note (text) VALUES (?)", ["hello"])
    print((await peers.query("SELECT text FROM note")).rows)
"""

from peersd.client.errors import NoDaemon, PeersError
from peersd.client.events import EventStream
from peersd.client.paths import resolve_data_folder, resolve_socket_path
from peersd.client.peers import Peers, QueryResult, SqlParams, SqlValue, Statement, open_client

__all__ = [
    "EventStream",
    "NoDaemon",
    "Peers",
    "PeersError",
    "QueryResult",
    "SqlParams",
    "SqlValue",
    "Statement",
    "open_client",
    "resolve_data_folder",
    "resolve_socket_path",
]
