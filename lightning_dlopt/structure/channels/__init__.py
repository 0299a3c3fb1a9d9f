"""Channels that are really removed."""
