"""Scale presets: values that a run spec's `scale` fills in below the user's own.

Each passes its own preflight with status `ready` on a corpus and a machine that fit it; a test runs them all.
"""

from typing import Any, Final

from picochat_contract.scales_gpu import GPU_SCALES
from picochat_contract.scales_local import LOCAL_SCALES

SCALES: Final[dict[str, dict[str, Any]]] = {**LOCAL_SCALES, **GPU_SCALES}
