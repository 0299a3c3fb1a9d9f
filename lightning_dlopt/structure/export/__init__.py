"""Files that run without a module's code."""
