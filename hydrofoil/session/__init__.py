"""What a verb does, without its words."""
