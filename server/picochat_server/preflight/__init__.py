"""Preflight: judged again from stored facts before anything that needs a GPU may be claimed."""
