"""The probes of ``dlopt advise``: one file each, a pure part and a thin ``Probe``."""
