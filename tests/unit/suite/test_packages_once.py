"""What the test cluster needs is installed once, whichever of several workers comes first on a bare machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_INSTALL = """
import sys
from pathlib import Path
from tests.cluster import packages
packages._PROGRAMS = {"penstock-needs-this": "needed"}
packages._CNI = Path("/")
packages.ensure(lambda line: None)
"""
_APT_GET = """#!/bin/sh
# As apt-get: whoever comes while another is at work is turned away.
mkdir "$0.lock" || exit 100
sleep 0.2
[ "$1" = install ] && printf '#!/bin/sh\\n' > "$(dirname "$0")/penstock-needs-this" && chmod +x "$(dirname "$0")/penstock-needs-this"
echo "$1" >> "$0.log"
rmdir "$0.lock"
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root installs packages")
def test_workers_that_come_at_once_install_once(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    apt_get = programs / "apt-get"
    apt_get.write_text(_APT_GET)
    apt_get.chmod(0o755)
    environment = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    workers = [
        subprocess.Popen([sys.executable, "-c", _INSTALL], env=environment, cwd=Path(__file__).parents[3])
        for _ in range(3)
    ]
    assert [each.wait(60) for each in workers] == [0, 0, 0]
    assert (programs / "apt-get.log").read_text().split() == ["update", "install"]
