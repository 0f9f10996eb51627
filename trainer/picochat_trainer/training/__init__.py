"""Training: token files, batches, optimizer, one loop for base and SFT, checkpoints."""
