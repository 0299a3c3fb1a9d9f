"""Parameters that several layers have in common."""
