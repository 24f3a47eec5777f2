"""A search for better values of a recipe's fields, judged on validation images alone."""
