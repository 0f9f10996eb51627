"""Checks of a machine before a long training is paid for: kernels, numerics, loaders, resume, ranks, memory, disk."""
