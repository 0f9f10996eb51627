"""Files by content: the store, uploads, downloads, and which project may read what."""
