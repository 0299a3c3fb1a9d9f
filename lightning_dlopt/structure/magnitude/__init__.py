"""Weights that become and stay zero."""
