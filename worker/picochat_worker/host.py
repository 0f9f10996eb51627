"""What the workers page says about this machine."""

import shutil
import subprocess

from picochat_contract.configs import Device

MAX_DEVICE_TEXT = 120


def describe_device(device: Device) -> str:
    """The GPUs that nvidia-smi lists, or 'cpu'. Does not import torch."""
    program = shutil.which("nvidia-smi")
    if device == "cpu" or program is None:
        return "cpu"
    query = [program, "--query-gpu=name", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return "cpu"
    names = [line.strip() for line in answer.stdout.splitlines() if line.strip()]
    return f"{len(names)} x {names[0]}"[:MAX_DEVICE_TEXT] if names else "cpu"
