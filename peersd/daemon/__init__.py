"""The daemon: the life of the process that holds one node and answers the local API."""
