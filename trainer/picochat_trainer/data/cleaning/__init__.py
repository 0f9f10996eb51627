"""What is done to a document between source and corpus, one noun per file. Nothing here keeps state between
documents, so that any number of processes gives the same text. No torch."""
