"""Packs: generated and imported tuning rows for a dataset, judged before they are written."""
