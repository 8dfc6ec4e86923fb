"""Run the tests under every Python from 3.11 up that this machine has; each in a virtual environment of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST = 11


def interpreters() -> dict[str, str]:
    """Version (``"3.12"``) to command, for every interpreter that starts."""
    candidates = [f"python3.{minor}" for minor in range(OLDEST, OLDEST + 10)]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates += sorted(str(p) for p in pyenv.glob("3.*/bin/python3"))
    found: dict[str, str] = {}
    for command in candidates:
        if shutil.which(command) is None:
            continue
        query = "import sys; print('%d.%d' % sys.version_info[:2])"
        answer = subprocess.run([command, "-c", query], capture_output=True, text=True)
        version = answer.stdout.strip()
        if answer.returncode == 0 and int(version.split(".")[1]) >= OLDEST:
            found.setdefault(version, command)
    return dict(sorted(found.items(), key=lambda item: int(item[0].split(".")[1])))


def main() -> int:
    failed = []
    for version, command in interpreters().items():
        print(f"== Python {version} ({command})", flush=True)
        arguments = ["make", "tests", f"PYTHON={command}", f"VENV=.venv-{version}", *sys.argv[1:]]
        if subprocess.run(arguments, cwd=ROOT).returncode:
            failed.append(version)
    print(f"failed: {', '.join(failed)}" if failed else "all passed")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
