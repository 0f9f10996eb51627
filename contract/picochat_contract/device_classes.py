"""Kinds of devices: the peak of each by its maker's data sheet, and the speed that training is assumed to reach on it."""

from dataclasses import dataclass
from typing import Final

from picochat_contract.errors import Code, SpecError
from picochat_contract.preflight_facts import GpuFacts, MachineFacts

GB: Final = 10**9


@dataclass(frozen=True, kw_only=True)
class DeviceClass:
    """A kind of device, and the speed that training is assumed to reach on it."""

    pattern: str
    """Part of the device's name, in lower case."""
    peak_flops: float
    """bf16 without sparsity, per second, by the maker's data sheet."""
    memory_bytes: int = 0
    """By the data sheet; 0 where each machine has its own."""
    capability: int = 0
    """Major CUDA compute capability."""
    utilisation: float = 0.35
    """Share of the peak that training is assumed to reach; nanochat and GPT-2 reproductions report 0.38 to 0.50."""
    layer_seconds: float = 4e-4
    """Shortest time of one layer, forward and backward: the launches of its kernels."""

    @property
    def is_cpu(self) -> bool:
        return self.pattern == "cpu"


GPU_CLASSES: Final = (  # the first whose pattern is in the name
    DeviceClass(pattern="b200", peak_flops=2250e12, memory_bytes=180 * GB, capability=10),
    DeviceClass(pattern="h200", peak_flops=989e12, memory_bytes=141 * GB, capability=9),
    DeviceClass(pattern="h100 pcie", peak_flops=756e12, memory_bytes=80 * GB, capability=9),
    DeviceClass(pattern="h100", peak_flops=989e12, memory_bytes=80 * GB, capability=9),
    DeviceClass(pattern="a100", peak_flops=312e12, memory_bytes=80 * GB, capability=8),
    DeviceClass(pattern="l40s", peak_flops=362e12, memory_bytes=48 * GB, capability=8),
    DeviceClass(pattern="rtx 4090", peak_flops=165e12, memory_bytes=24 * GB, capability=8),
    DeviceClass(pattern="a10", peak_flops=125e12, memory_bytes=24 * GB, capability=8),
    DeviceClass(pattern="l4", peak_flops=121e12, memory_bytes=24 * GB, capability=8),
)
# Per core, a little under what training reached on an AMD EPYC with AVX-512 (docs/log.md); no peak, so the share is 1.
CPU_BF16: Final = DeviceClass(pattern="cpu", peak_flops=150e9, utilisation=1.0, layer_seconds=0.0)
CPU_FLOAT32: Final = DeviceClass(pattern="cpu", peak_flops=45e9, utilisation=1.0, layer_seconds=0.0)


def device_class(machine: MachineFacts, *, on_gpu: bool, bf16: bool) -> DeviceClass | None:
    """None for a GPU that is not in the table."""
    if not on_gpu:
        return CPU_BF16 if bf16 else CPU_FLOAT32
    name = machine.gpus[0].name.lower()
    return next((kind for kind in GPU_CLASSES if kind.pattern in name), None)


def planned_machine(device: str, num_devices: int) -> MachineFacts:
    """A machine that is only planned: `num_devices` of the GPU named `device`, or `cpu`, a desktop with 8 cores."""
    if device.lower() == "cpu":
        return MachineFacts(cpu_count=8, ram_bytes=32 * GB, free_disk_bytes=500 * GB, world_size=num_devices)
    kind = next((kind for kind in GPU_CLASSES if kind.pattern == device.lower()), None)
    if kind is None:
        known = ", ".join(["cpu", *(kind.pattern for kind in GPU_CLASSES)])
        raise SpecError(Code.INVALID_VALUE, f"unknown device {device!r}; known: {known}", param="device")
    gpu = GpuFacts(
        name=kind.pattern.upper(), memory_bytes=kind.memory_bytes, has_bf16=True, capability=kind.capability
    )
    return MachineFacts(
        gpus=(gpu,) * num_devices,
        cpu_count=16 * num_devices,
        cpu_has_bf16=True,
        ram_bytes=128 * GB * num_devices,
        free_disk_bytes=1_000 * GB,
        world_size=num_devices,
    )
