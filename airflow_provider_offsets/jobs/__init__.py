"""Launching, finding and watching drivers."""
