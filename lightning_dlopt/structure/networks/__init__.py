"""The networks of the source document."""
