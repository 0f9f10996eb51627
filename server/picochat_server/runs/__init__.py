"""Runs: submit, read, cancel, events, metrics; the chain from one stage to the next."""
