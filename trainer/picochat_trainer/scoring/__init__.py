"""Judging replies by transparent rules, and counting them into evidence."""
