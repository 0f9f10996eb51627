"""Find Chromium for the browser tests; install Debian's package where that is allowed; else say so loudly."""

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome")


def main() -> None:
    if any(shutil.which(name) for name in NAMES):
        return
    if sys.platform == "linux" and shutil.which("apt-get") and os.geteuid() == 0:
        sys.stdout.write("Installing chromium for the browser tests\n")
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "chromium"]):
            subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False)
    if not any(shutil.which(name) for name in NAMES):
        sys.stdout.write(
            "*** No Chromium found: the browser tests will be SKIPPED. Install chromium to run them. ***\n"
        )


if __name__ == "__main__":
    main()
