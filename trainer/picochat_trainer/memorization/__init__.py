"""What a base model keeps of its training text by heart: planted canaries, training spans, free samples."""
