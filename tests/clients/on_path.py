"""Importing this puts the packages of the clients behind those of the running environment."""

from __future__ import annotations

import subprocess
import sys

from tests.clients.environments import python_of

_ASK = "import sysconfig; print(sysconfig.get_path('purelib'), end='')"

sys.path.append(subprocess.check_output([python_of("common"), "-c", _ASK], text=True))
