"""Releases: names for checkpoints that an approved verdict covers."""
