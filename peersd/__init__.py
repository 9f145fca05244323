"""peersd shares SQLite databases between devices and people, without a server."""
