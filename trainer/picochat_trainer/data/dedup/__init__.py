"""Duplicates among documents: `exact` (equal text) and `near` (similar sets of word shingles). No torch."""
