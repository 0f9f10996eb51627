"""Background rounds: outbox, reaper, reconciler."""
