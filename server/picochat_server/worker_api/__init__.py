"""The HTTP face of the lease core."""
