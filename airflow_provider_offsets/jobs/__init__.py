"""How a driver is launched, found and watched."""
