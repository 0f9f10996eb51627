"""Takes rows of Hugging Face datasets into local files, one record per document, and says what became of each row."""
