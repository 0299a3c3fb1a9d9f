"""A method card for each technique, made of its docstring and of measured results."""
