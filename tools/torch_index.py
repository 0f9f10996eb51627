"""Print the pip option that selects the CPU build of torch, or nothing.

A machine without an NVIDIA GPU should not download gigabytes of CUDA wheels. PyTorch keeps its CPU builds in an
index of its own; where that cannot be reached, pip's own configuration decides.
"""

import shutil
import sys
import urllib.error
import urllib.request

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
TIMEOUT_SECONDS = 5


def main() -> None:
    if sys.platform != "linux" or shutil.which("nvidia-smi"):
        return
    try:
        urllib.request.urlopen(f"{CPU_INDEX}/", timeout=TIMEOUT_SECONDS).close()
    except (urllib.error.URLError, TimeoutError):
        return
    sys.stdout.write(f"--extra-index-url {CPU_INDEX}\n")


if __name__ == "__main__":
    main()
