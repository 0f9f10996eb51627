"""What each preset comes to on the device that it is for: all computed, nothing typed."""

from dataclasses import dataclass

from picochat_contract.configs import PreflightConfig, RunPlan
from picochat_contract.device_classes import GPU_CLASSES, planned_machine
from picochat_contract.plan_figures import PlanFigures, plan_figures
from picochat_contract.spec import RunSpec, expand, parse_mapping
from picochat_contract.stages import StageName


@dataclass(frozen=True, kw_only=True)
class ScaleFacts:
    """One preset and its figures."""

    scale: str
    spec: RunSpec
    device: str
    """Device class that it is named after, or cpu."""
    figures: PlanFigures


def scale_facts(scale: str) -> ScaleFacts:
    """Raise SpecError for an unknown preset."""
    spec = parse_mapping({"scale": scale})
    device = device_of(scale)
    figures = plan_figures(run_plan(spec), planned_machine(device, spec.resources.nproc_per_node))
    return ScaleFacts(scale=scale, spec=spec, device=device, figures=figures)


def device_of(scale: str) -> str:
    """The device class that a preset is named after; cpu where it is named after none."""
    named = (kind.pattern for kind in GPU_CLASSES if scale.startswith(f"{kind.pattern}-"))
    return next(named, "cpu")


def run_plan(spec: RunSpec) -> RunPlan:
    """The whole plan of a spec that has a preflight stage."""
    config = expand(spec)[StageName.PREFLIGHT]
    assert isinstance(config, PreflightConfig) and config.plan is not None
    return config.plan
