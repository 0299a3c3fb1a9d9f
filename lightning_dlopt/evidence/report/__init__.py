"""A study as Markdown, pictures and one page that opens alone."""

from lightning_dlopt.evidence.report.write import write_report

__all__ = ["write_report"]
