"""Training: from files to batches, and from batches to a better model."""
