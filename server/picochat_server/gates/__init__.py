"""Verdicts: decided again from stored evidence, signed, and only as long as nothing they rest on changes."""
