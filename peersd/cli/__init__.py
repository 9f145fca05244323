"""The command `peers`: a pure client of the local API."""
