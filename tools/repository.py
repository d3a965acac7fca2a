"""What the guards share: the files that are, or would be, committed, and the way they report."""

import argparse
import subprocess
import sys
from pathlib import Path


def files(root):
    """Paths relative to `root` that git tracks or would add; every file where there is no git."""
    git = subprocess.run(
        ["git", "-C", str(root), "ls-files", "-co", "--exclude-standard", "-z"],
        capture_output=True,
    )
    if git.returncode == 0:
        names = [Path(name.decode()) for name in git.stdout.split(b"\0") if name]
    else:
        names = [path.relative_to(root) for path in root.rglob("*")]
    return sorted(name for name in set(names) if (root / name).is_file())


def main(check, description):
    """Runs `check(root)`, an iterable of complaints; exits 1 if there are any."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parent.parent)
    complaints = list(check(parser.parse_args().root))
    for complaint in complaints:
        print(complaint)
    sys.exit(1 if complaints else 0)
