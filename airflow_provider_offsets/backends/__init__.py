"""How a driver is launched, found and stopped."""
