"""The published sets: what is known of them, where they are downloaded, how they are read."""
