"""The two passes of a corpus build. First: read, clean, score, sign (`batches`, `spool`, `selection`). Second: what is
left goes into shards (`shards`), what is not into a list. Imports no torch."""
