"""RunSpec: what a user asks for, in YAML or JSON, and how it becomes stage configs.

Unknown keys are refused with the nearest known name. `scale` fills in a preset below the user's own values.
"""

import difflib
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from picochat_contract.batch_size import stage_config
from picochat_contract.config_base import Config
from picochat_contract.configs import (
    AuditConfig,
    BaseConfig,
    BaseSection,
    EvalConfig,
    FitConfig,
    GateConfig,
    PreflightConfig,
    ReportConfig,
    Resources,
    RunPlan,
    SftConfig,
)
from picochat_contract.data_configs import DatasetConfig, FileSource, HonestyConfig, TokenizerConfig
from picochat_contract.errors import Code, SpecError
from picochat_contract.scales import SCALES
from picochat_contract.stages import STAGES, StageName

M = TypeVar("M", bound=BaseModel)
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$"


class RunSpec(Config):
    """One run: a section for each stage, and what they run on."""

    name: str = Field(default="run", pattern=NAME_PATTERN)
    """Display name: letters, digits, '.', '_', '-'."""
    scale: str = "custom"
    """A preset (see `picochat_contract.scales`); values given below win over it."""
    dataset: DatasetConfig = DatasetConfig()
    honesty: HonestyConfig = HonestyConfig()
    preflight: PreflightConfig = PreflightConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    base: BaseSection = BaseSection()
    sft: SftConfig = SftConfig()
    fit: FitConfig = FitConfig()
    eval: EvalConfig = EvalConfig()
    audit: AuditConfig = AuditConfig()
    gate: GateConfig = GateConfig()
    report: ReportConfig = ReportConfig()
    resources: Resources = Resources()
    until: StageName = StageName.REPORT
    """Last stage to run; the stages that it does not need are left out."""
    max_attempts: int = Field(default=3, ge=1, le=20)
    """Tries per stage where the cause is the machine's, not the data's."""
    confirm_paid_launch: bool = False
    """Somebody has seen what a long run on GPUs takes and wants it; such a run does not start without."""

    @model_validator(mode="after")
    def _plan_is_ours(self) -> "RunSpec":
        if self.preflight.plan is not None:
            raise SpecError(
                Code.INVALID_VALUE,
                "preflight.plan is filled in from the rest of the spec; leave it out",
                param="preflight.plan",
            )
        return self

    @model_validator(mode="after")
    def _has_the_gate_that_it_ends_with(self) -> "RunSpec":
        if self.until is StageName.GATE and self.gate.profile == "none":
            raise SpecError(
                Code.INVALID_VALUE,
                "until is gate, but gate.profile is none: no gate is asked for; name a profile, or end with "
                "until: eval",
                param="until",
            )
        return self

    @model_validator(mode="after")
    def _batch_can_be_settled(self) -> "RunSpec":
        try:
            stage_config(self.base, self.resources.num_ranks)
        except SpecError as error:
            raise SpecError(error.code, f"base.{error.message}", param=f"base.{error.param}") from error
        return self

    @property
    def base_config(self) -> BaseConfig:
        """What the base stage gets: `base` with its batch settled for the ranks of `resources`."""
        return stage_config(self.base, self.resources.num_ranks)


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that is given twice: of the two values one would vanish."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen and isinstance(key, yaml.ScalarNode) and key.value != "<<":
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} is given twice", key.start_mark
                )
            if isinstance(key, yaml.ScalarNode):
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_mapping(text: str, what: str = "run spec") -> dict[str, Any]:
    """YAML or JSON text as the mapping that it must be; nothing in it is checked yet. Messages call it `what`."""
    try:
        raw = yaml.load(text, _UniqueKeys)  # noqa: S506  a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise SpecError(Code.NOT_YAML, f"the {what} is not valid YAML or JSON{where}: {error}") from error
    except RecursionError as error:
        raise SpecError(
            Code.NOT_YAML, f"the {what} is nested too deeply; it has four levels at most"
        ) from error
    if raw is None:
        raw = {}
    if not isinstance(raw, dict):
        raise SpecError(
            Code.NOT_YAML, f"a {what} is a mapping of keys to values; this is a {type(raw).__name__}"
        )
    return raw


def parse_mapping(raw: dict[str, Any]) -> RunSpec:
    """Validate a mapping, after filling in the preset named by `scale`; raise SpecError."""
    scale = raw.get("scale", "custom")
    if not isinstance(scale, str) or scale not in ("custom", *SCALES):
        raise SpecError(
            Code.INVALID_VALUE,
            f"unknown scale {scale!r}{_nearest(str(scale), ['custom', *SCALES])}",
            param="scale",
        )
    return validated(RunSpec, _merge(_preset(scale, raw), raw))


def validated(model: type[M], raw: Any) -> M:
    """Validate `raw`; the first problem becomes a SpecError that names the key and the nearest known one."""
    try:
        return model.model_validate(raw)
    except SpecError:
        raise
    except ValidationError as error:
        raise _spec_error(model, error) from error


def expand(spec: RunSpec) -> dict[StageName, Config]:
    """The stages of this run in order, each with its config."""
    configs: dict[StageName, Config] = {name: getattr(spec, name.value) for name in _wanted(spec, spec.until)}
    if StageName.BASE in configs:
        configs[StageName.BASE] = spec.base_config
    if StageName.PREFLIGHT in configs:
        # A run that ends with preflight asks about the whole run that could follow.
        last = StageName.REPORT if spec.until is StageName.PREFLIGHT else spec.until
        plan = RunPlan(
            scale=spec.scale,
            dataset=spec.dataset,
            tokenizer=spec.tokenizer,
            base=spec.base_config,
            sft=spec.sft,
            gate=spec.gate,
            resources=spec.resources,
            stages=tuple(name.value for name in _wanted(spec, last)),
        )
        configs[StageName.PREFLIGHT] = spec.preflight.model_copy(update={"plan": plan})
    return configs


def stage_needs(spec: RunSpec, stage: StageName) -> tuple[StageName, ...]:
    """The stages of this run that `stage` waits for."""
    present = expand(spec)
    return tuple(name for name in STAGES[stage].needs if name in present)


def check_uploadable(spec: RunSpec) -> None:
    """Refuse file paths in a spec that came over HTTP: a server never opens a path that a client names."""
    for source in spec.dataset.references:
        if isinstance(source, FileSource):
            raise SpecError(
                Code.SOURCE_NOT_UPLOADED,
                f"dataset source {source.path!r} is a file path; upload it first and give its digest, or let "
                "`picochat-client submit` do both; `picochat-client data push` gives it a name as a dataset",
                param="dataset.sources",
            )


def check_claimable(spec: RunSpec) -> None:
    """Refuse a run that no worker could claim: a claim is one machine's."""
    if spec.resources.nnodes > 1:
        raise SpecError(
            Code.INVALID_VALUE,
            f"resources.nnodes is {spec.resources.nnodes}, and a worker claims a stage for one machine; set it to 1 and "
            "resources.nproc_per_node to that machine's GPUs, or give `picochat run tiny --nnodes` on each of the machines "
            "with a folder that they share (docs/distributed.md)",
            param="resources.nnodes",
        )


def json_schema() -> dict[str, Any]:
    """JSON Schema of a run spec, for editors."""
    schema = RunSpec.model_json_schema()
    # Only the client knows this key: it puts the pack's values in its place before the spec goes anywhere.
    schema["$defs"]["DatasetConfig"]["properties"]["pack"] = {
        "type": "string",
        "description": "Path of a dataset pack or corpus recipe; what this section gives itself wins over it.",
    }
    return {
        **schema,
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "picochat run spec",
    }


def _wanted(spec: RunSpec, until: StageName) -> tuple[StageName, ...]:
    """The stages of a run that ends with `until`, in order."""
    wanted = _closure(until)
    if spec.gate.profile == "none":
        wanted -= {StageName.GATE, StageName.REPORT} - {until}
    return tuple(name for name in STAGES if name in wanted)


def _closure(stage: StageName) -> set[StageName]:
    found = {stage}
    for name in STAGES[stage].needs:
        found |= _closure(name)
    return found


def _preset(scale: str, above: dict[str, Any]) -> dict[str, Any]:
    """The values of a preset; without its accumulation where `above` says the batch in tokens."""
    preset, base = dict(SCALES.get(scale, {})), above.get("base")
    if isinstance(base, dict) and base.get("global_batch_tokens") is not None and "base" in preset:
        preset["base"] = {key: value for key, value in preset["base"].items() if key != "grad_accum_steps"}
    return preset


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        inner = merged.get(key)
        merged[key] = _merge(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return merged


def _spec_error(model: type[BaseModel], error: ValidationError) -> SpecError:
    problems = error.errors()
    # A misspelt key often leaves another one missing; the misspelt one is the cause.
    first = next((problem for problem in problems if problem["type"] == "extra_forbidden"), problems[0])
    path = [str(part) for part in first["loc"]]
    where = ".".join(path)
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, SpecError):
        message = f"{where}: {cause.message}" if where else cause.message
        return SpecError(cause.code, message, param=where or cause.param)
    if first["type"] == "extra_forbidden":
        known = _known_keys(model, path[:-1])
        return SpecError(Code.UNKNOWN_KEY, f"unknown key {where!r}{_nearest(path[-1], known)}", param=where)
    if first["type"] == "value_error":
        return SpecError(Code.INVALID_VALUE, f"{where}: {cause}", param=where)
    got = first.get("input")
    shown = "" if isinstance(got, dict | list) else f"; got {got!r}"
    return SpecError(Code.INVALID_VALUE, f"{where}: {first['msg']}{shown}", param=where)


def _known_keys(model: type[BaseModel], path: list[str]) -> list[str]:
    """Field names at `path` below `model`; where the path runs through a union, those of all its members."""
    models: list[type[BaseModel]] = [model]
    for part in path:
        inner: list[type[BaseModel]] = []
        for candidate in models:
            field = candidate.model_fields.get(part)
            inner += _models_in(field.annotation) if field else []
        models = inner or models
    return sorted({name for candidate in models for name in candidate.model_fields})


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]


def _nearest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"
