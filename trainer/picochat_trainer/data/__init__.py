"""From source files to `corpus.txt`, its manifest, and the honesty report."""
