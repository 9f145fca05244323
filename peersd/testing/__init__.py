"""The test kit that ships: simulator, oracle, proxies, real processes. Nothing in production imports it."""
