"""The verbs as functions that print nothing."""
