"""One group's SQLite file: capture of local writes, logs, merge. It never sees the network."""
