"""Every way in: the sensor fleet, the server fleet, replay of recordings."""
