"""A real browser, without a window."""

import shutil
import subprocess
import tempfile
from pathlib import Path


def chromium(*arguments: str | Path) -> str:
    """Run chromium with a new profile and return what it prints."""
    program = shutil.which("chromium")
    if program is None:
        raise AssertionError("the report is tested in a browser: apt-get install chromium")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        done = subprocess.run(
            [
                *(program, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
                *("--disable-background-networking", "--disable-component-update"),
                *("--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars"),
                *(f"--user-data-dir={profile}", *map(str, arguments)),
            ],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    return done.stdout
