"""Starters: first SFT, eval and preference rows for an own corpus. Scaffolding that a person reviews, not a benchmark."""
