"""The lease core: claim, heartbeat, fencing, reports of a worker, the end of an attempt."""
