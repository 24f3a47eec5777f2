"""The run folder: its files, its lock, its manifest and its environment."""
