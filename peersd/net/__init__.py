"""Links over the network: transports, the listener, the dialer and the runner of a link. It never sees a store."""
