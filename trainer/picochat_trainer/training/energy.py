"""Energy that the GPU of this rank took, from NVIDIA's management library, which comes with every driver.

The counter is the whole device's: what other processes on it take is in it.
"""

import ctypes
from typing import Final

import torch

_LIBRARY: Final = "libnvidia-ml.so.1"
_OK: Final = 0


class EnergyMeter:
    """Joules of the device from when this was made."""

    def __init__(self, device: str) -> None:
        self._uuid, self._note = _uuid_of(device)
        self._start = self._read()

    def joules(self) -> tuple[float | None, str | None]:
        """(joules, None), or (None, why there is no figure)."""
        end = self._read()
        if self._start is None or end is None:
            return None, self._note
        return (end - self._start) / 1000, None

    def _read(self) -> int | None:
        if self._uuid is None:
            return None
        try:
            return total_millijoules(ctypes.CDLL(_LIBRARY), self._uuid)
        except OSError as error:
            self._note = f"no energy counter: {error}"
            return None


def total_millijoules(nvml: ctypes.CDLL, uuid: str) -> int:
    """The counter of a device since the driver was loaded; raise OSError where it has none.

    NVML's functions return 0 on success: https://docs.nvidia.com/deploy/nvml-api/
    """
    handle, total = ctypes.c_void_p(), ctypes.c_ulonglong()
    calls = (
        ("nvmlInit_v2", ()),
        ("nvmlDeviceGetHandleByUUID", (uuid.encode(), ctypes.byref(handle))),
        ("nvmlDeviceGetTotalEnergyConsumption", (handle, ctypes.byref(total))),
    )
    for name, arguments in calls:
        if (code := getattr(nvml, name)(*arguments)) != _OK:
            raise OSError(f"{name} gave {code}")
    return total.value


def _uuid_of(device: str) -> tuple[str | None, str | None]:
    if device == "cpu":
        return None, "no energy counter: training ran on the CPU"
    return f"GPU-{torch.cuda.get_device_properties(torch.device(device)).uuid}", None
