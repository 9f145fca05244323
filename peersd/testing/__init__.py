"""The test kit that ships: simulator, swarms, oracle, proxies, real processes. Nothing in production imports it."""
