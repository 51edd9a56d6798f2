"""Launch, find and watch drivers."""
