"""The worker: claims stages over HTTP and supervises their processes. No torch, no database."""
