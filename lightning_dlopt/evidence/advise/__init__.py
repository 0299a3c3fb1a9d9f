"""Advice from cheap probes of a module and its data: a prior, to be tested by a comparison."""
