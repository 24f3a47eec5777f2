"""From a set's name to batches: sources, pictures, split, batches."""
