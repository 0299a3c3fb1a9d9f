"""Writing a report: all of its files or none."""

import os
from pathlib import Path

from lightning_dlopt.core.errors import UserError, one_line
from lightning_dlopt.evidence.analysis import Analysis, analyze
from lightning_dlopt.evidence.report.figures import DRAWINGS, draw
from lightning_dlopt.evidence.report.markdown import write_markdown
from lightning_dlopt.evidence.report.page import write_page
from lightning_dlopt.evidence.runs import Study


def write_report(study: Study, folder: Path, analysis: Analysis | None = None) -> list[Path]:
    """Write ``report.md``, its pictures and ``report.html``, and return their paths.

    Args:
        study: what was run.
        folder: made if it isn't there; an older report in it is replaced, whole.
        analysis: of the study; None to make it.

    Raises:
        UserError: the files can't be written. An older report is as it was.
    """
    if analysis is None:
        analysis = analyze(study)
    files = {"report.md": write_markdown(study, analysis).encode("utf-8", "backslashreplace")}
    wide = {name: draw(name, study, analysis) for name in DRAWINGS}
    files |= {f"{name}.png": data for name, data in wide.items()}
    files["report.html"] = write_page(study, analysis, wide).encode("utf-8", "backslashreplace")
    return replace_files(folder, files)


def replace_files(folder: Path, files: dict[str, bytes]) -> list[Path]:
    """Write files, by name, so that a full disk leaves the old ones; return their paths.

    Each is written beside its place first, and only when the last is on the disk do they take
    their names.
    """
    paths = [folder / name for name in files]
    drafts = [folder / f".{name}.{os.getpid()}.part" for name in files]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in paths:
            if path.is_dir():
                raise IsADirectoryError(f"{path.name} is a folder")
        for draft, data in zip(drafts, files.values(), strict=True):
            with draft.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        for draft, path in zip(drafts, paths, strict=True):
            draft.replace(path)
    except OSError as error:
        raise UserError(f"the report can't be written to {folder}: {one_line(error)}") from error
    finally:
        for draft in drafts:
            if draft.parent.is_dir():
                draft.unlink(missing_ok=True)
    return paths
