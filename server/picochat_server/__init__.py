"""The control plane: runs, leases, artifacts, gates, releases, pages and the /v1 proxy. No torch."""
