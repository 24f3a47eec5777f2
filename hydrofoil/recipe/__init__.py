"""Recipes: the schema, reading with overrides, error messages, and the shipped ones."""
