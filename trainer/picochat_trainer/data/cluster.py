"""The tasks of a corpus build on a Ray cluster instead of this machine's processes.

    ray start --head --num-cpus 0                       # where `picochat data build --engine ray` runs
    ray start --address HEAD:6379                       # on every machine that shall work

The build stays the same, and so does what it writes: both passes hand their tasks to `Workers`, in order, and only the
executor behind it differs (docs/decisions/0006). The sources are read by the process that builds. The output folder must be one that all
machines share, for batches on their way lie in it. Ray repeats the tasks of a machine that is lost; doing one twice does no harm.
"""

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Final

from picochat_contract.errors import Code, ContractError
from picochat_contract.version import __version__

from picochat_trainer.data.workers import Workers

CONNECT_SECONDS: Final = 5.0
"""Ray itself would try for minutes."""


class Engine(StrEnum):
    LOCAL = "local"  # processes of this machine
    RAY = "ray"  # tasks of a Ray cluster


@contextmanager
def open_workers(
    engine: Engine, *, count: int, shared: Path, address: str | None = None
) -> Iterator[Workers]:
    """Workers of an engine: `count` processes here, or all CPUs of the Ray cluster at `address` (host:port).

    Without an address Ray is started on this machine with `count` CPUs, and stopped at the end. `shared` is the folder that
    tasks write to; every machine of the cluster must have it, and this version of picochat.
    """
    if engine is Engine.LOCAL:
        if address is not None:
            raise ContractError(
                Code.INVALID_VALUE,
                f"--ray-address {address} says where a Ray cluster is, but the engine is local; add --engine ray",
                param="--ray-address",
            )
        with Workers(count) as workers:
            yield workers
        return
    ray = _ray()
    _connect(ray, address, count)
    try:
        nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
        num_cpus = int(sum(node["Resources"]["CPU"] for node in nodes))
        if not num_cpus:
            raise ContractError(
                Code.INVALID_VALUE,
                f"the Ray cluster at {address} has no CPU to work with; add machines with `ray start --address`",
                param="--ray-address",
            )
        _check_nodes(ray, nodes, shared)
        with Workers(num_cpus, pool_after_bytes=0, start_pool=lambda: _RayExecutor(ray)) as workers:
            yield workers
    finally:
        ray.shutdown()


class _RayExecutor(Executor):
    """Futures over Ray tasks of one CPU each."""

    def __init__(self, ray: Any) -> None:
        self._remote = ray.remote(_call).options(num_cpus=1, max_retries=3)

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return self._remote.remote(function, *args, **kwargs).future()


def _call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ContractError(
            Code.MISSING_DEPENDENCY,
            "--engine ray needs Ray, which is not installed: pip install 'picochat[cluster]'",
            param="--engine",
        ) from error
    return ray


def _connect(ray: Any, address: str | None, count: int) -> None:
    quiet = {
        "include_dashboard": None if address else False,
        "log_to_driver": False,
        "logging_level": "ERROR",
    }
    if address is None:
        ray.init(num_cpus=count, **quiet)
        return
    try:
        host, _, port = address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS):
            pass
        ray.init(address=address, **quiet)
    except (OSError, ValueError) as error:
        raise ContractError(
            Code.INVALID_VALUE,
            f"no Ray cluster answers at {address!r} ({error}); expected the host:port of a head started with "
            "`ray start --head`",
            param="--ray-address",
        ) from error


def _check_nodes(ray: Any, nodes: list[dict[str, Any]], shared: Path) -> None:
    """Refuse a machine that lacks the shared folder or has another picochat, before any work is done."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    shared.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=shared, prefix=".seen-by-all-") as marker:
        look = ray.remote(_look)
        found = ray.get(
            [
                look.options(
                    scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                ).remote(Path(marker.name).resolve())
                for node in nodes
            ]
        )
    for node, (is_there, version) in zip(nodes, found, strict=True):
        if not is_there:
            raise ContractError(
                Code.INVALID_VALUE,
                f"machine {node['NodeManagerAddress']} does not see {shared.resolve()}: the output must lie in a "
                "folder that all machines of the cluster share, under the same path",
                param="--out",
            )
        if version != __version__:
            raise ContractError(
                Code.INVALID_VALUE,
                f"machine {node['NodeManagerAddress']} has picochat {version}, this one {__version__}; install the "
                "same version on all",
                param="--ray-address",
            )


def _look(marker: Path) -> tuple[bool, str]:
    return marker.is_file(), __version__
