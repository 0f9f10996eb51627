"""Base pretraining: a GPT from nothing on the token store, with whole documents held out.

Writes base/{checkpoint,best_checkpoint}/, train_report.json (evidence for the gate), memorization_report.json,
holdout.json, report.md, curves.csv, curves.png, sample.txt, samples.jsonl and canary_probe.txt.
"""

from collections.abc import Sequence
from typing import Any

from picochat_contract import layout
from picochat_contract.configs import BaseConfig
from picochat_contract.errors import Code, ContractError
from picochat_contract.holdout import MAX_VAL_TOKENS, tokens_in_training
from picochat_contract.learning_rates import rows_per_step
from picochat_contract.stages import StageName

from picochat_trainer.atomic import PREVIOUS, file_sha256, write_json, write_text
from picochat_trainer.context import StageContext
from picochat_trainer.inference.engine import Engine
from picochat_trainer.inference.sampling import SamplingParams
from picochat_trainer.memorization.canaries import CanaryPlan, check_canary_room, plan_canaries
from picochat_trainer.memorization.exposure import canary_text
from picochat_trainer.memorization.markdown import memorization_lines
from picochat_trainer.memorization.probe import measure_memorization
from picochat_trainer.memorization.samples import write_samples
from picochat_trainer.model import GPT
from picochat_trainer.tokenizer import Tokenizer
from picochat_trainer.tokens import TokenStore
from picochat_trainer.training import distributed
from picochat_trainer.training.bpb import BpbValidator
from picochat_trainer.training.checkpoint import (
    LossPoint,
    Metadata,
    Weights,
    load_weights,
    losses_of,
    save_weights,
)
from picochat_trainer.training.curves import write_curves
from picochat_trainer.training.diagnosis import (
    curve_lines,
    loss_diagnostics,
    loss_table,
    optimization,
    training_lines,
    with_error,
)
from picochat_trainer.training.fingerprint import training_fingerprint
from picochat_trainer.training.first_weights import build_model, drawn
from picochat_trainer.training.hardware import autocast_dtype, describe
from picochat_trainer.training.loop import Outcome, train
from picochat_trainer.training.pretraining_data import PretrainingData, read_pretraining_data, split_for
from picochat_trainer.training.resume import Training

LAST = f"{layout.BASE_DIR}/checkpoint"
RESUME = f"{layout.BASE_DIR}/{layout.RESUME_CHECKPOINT}"
PACKING_PLAN = f"{layout.BASE_DIR}/packing_plan"
MIN_VAL_TOKENS = 16  # fewer give no number worth printing
SAMPLE_TEMPERATURE = 0.8
SAMPLE_TOP_K = 50


def run(context: StageContext, config: BaseConfig) -> dict[str, float]:
    tokenizer = Tokenizer.load(context.path(layout.TOKENIZER))
    data, plan = context.main_first(lambda: _read_data(context, config, tokenizer))
    model = build_model(
        config.model,
        tokenizer.vocab_size,
        drawn(config.seed),
        device=context.device,
        strategy=context.strategy,
        dtype=autocast_dtype(config.precision, context.device),
    )
    if config.document_mask:
        model.document_token = tokenizer.bos_id
    step_tokens = rows_per_step(config, context.world_size) * config.model.sequence_len
    validator = _validator(
        config,
        data,
        tokenizer,
        rank=context.rank,
        world_size=context.world_size,
        max_tokens=tokens_in_training(config, step_tokens),
    )
    outcome = train(
        context,
        Training(
            model=model,
            batches=data.batches,
            validator=validator,
            config=config,
            fingerprint=_fingerprint(context, config, data, tokenizer),
            best=layout.BASE_BEST,
            resume=RESUME,
        ),
    )
    weights = Weights(config=config.model, vocab_size=model.vocab_size, tensors=outcome.weights)
    distributed.finish()
    if not context.is_main:
        return {}
    last = Metadata(kind="last", step=outcome.state.step, losses=losses_of(outcome.state.losses[-1]))
    save_weights(context.output(LAST), weights, last)
    return _report(context, config, tokenizer, data, plan, outcome, validator.num_targets)


def _read_data(
    context: StageContext, config: BaseConfig, tokenizer: Tokenizer
) -> tuple[PretrainingData, CanaryPlan]:
    store = TokenStore.open(context.path(layout.TOKENS_DIR))
    manifest = context.path(layout.CORPUS_MANIFEST)
    store.refuse_other(
        corpus_sha256=file_sha256(manifest) if manifest.is_file() else None,
        tokenizer_sha256=tokenizer.digest,
    )
    split = split_for(store, config)
    plan = plan_canaries(
        config.canary_count, config.canary_repeats, config.seed, tokenizer, split.corpus_train.num_tokens
    )
    check_canary_room(plan.canaries, tokenizer, config.model.sequence_len)
    data = read_pretraining_data(
        store,
        config,
        split.with_extra(plan.documents, config.seed),
        rank=context.rank,
        world_size=context.world_size,
        plan_dir=context.scratch(PACKING_PLAN),
    )
    for note in filter(None, (split.note, plan.note)):
        context.events.log("warning", note)
    num_tokens = len(data.val) - len(split.held_out)  # each begins with a BOS, which is no text
    if num_tokens < MIN_VAL_TOKENS:
        raise ContractError(
            Code.CORPUS_TOO_SMALL,
            f"the held-out text has {num_tokens} tokens, at least {MIN_VAL_TOKENS} are needed; give "
            "more text or raise base.val_fraction",
            param="val_fraction",
        )
    context.events.log("info", data.describe())
    return data, plan


def _validator(
    config: BaseConfig,
    data: PretrainingData,
    tokenizer: Tokenizer,
    *,
    rank: int = 0,
    world_size: int = 1,
    max_tokens: int = MAX_VAL_TOKENS,
) -> BpbValidator:
    return BpbValidator(
        data.val,
        [len(raw) for raw in tokenizer.token_bytes],
        sequence_len=config.model.sequence_len,
        batch_rows=config.device_batch_size,
        rank=rank,
        world_size=world_size,
        document_starts=data.val_document_starts,
        max_tokens=max_tokens,
    )


def _fingerprint(
    context: StageContext, config: BaseConfig, data: PretrainingData, tokenizer: Tokenizer
) -> dict[str, Any]:
    digests = {"tokens": data.store.sha256}
    return training_fingerprint(StageName.BASE, context, config, data=digests, tokenizer=tokenizer.digest)


def _report(
    context: StageContext,
    config: BaseConfig,
    tokenizer: Tokenizer,
    data: PretrainingData,
    plan: CanaryPlan,
    outcome: Outcome,
    tokens_chosen_on: int,
) -> dict[str, float]:
    """Measure the best checkpoint in float32 and write everything down."""
    best_dir = context.output(layout.BASE_BEST)
    for name in (LAST, layout.BASE_BEST):
        context.scratch(f"{name}{PREVIOUS}")
    model = GPT(config.model, tokenizer.vocab_size)
    model.load_state_dict(load_weights(best_dir)[2])
    model.to(context.device).eval()
    if config.document_mask:
        model.document_token = tokenizer.bos_id
    validator = _validator(config, data, tokenizer)
    final = validator(model)
    unigram_bpb = validator.unigram_bpb(data.train)
    engine = Engine(model, tokenizer, context.device)
    prompt, sample = _sample(context, config, tokenizer, engine)
    write_samples(engine, context.output(layout.BASE_SAMPLES), config.seed)
    subject = file_sha256(best_dir / layout.WEIGHTS)
    memorization = measure_memorization(engine, tokenizer, data, plan, subject=subject)
    state = outcome.state
    evidence: dict[str, Any] = {
        "subject": subject,
        "val_bpb": final.bpb,
        "val_bpb_stderr": final.bpb_stderr,
        "unigram_bpb": unigram_bpb,
        "split_mode": data.split.mode,
        "val_tokens": validator.num_targets,
        "num_nonfinite_steps": state.num_nonfinite_steps,
        "loss_spikes": state.spike_steps,
        "num_parameters": model.num_parameters(),
        "tokens_seen": state.tokens_seen,
        **memorization.evidence,
    }
    report = {
        **evidence,
        "val_loss": final.loss,
        "val_loss_stderr": final.loss_stderr,
        "val_stderr_over": validator.clusters,
        "val_tokens_in_training": tokens_chosen_on,
        "best_step": state.best_step,
        "num_steps": state.step,
        "stop_reason": state.stop_reason,
        "dataset": data.facts(),
        "coverage": {"epochs": state.tokens_seen / len(data.train)},
        "loss_diagnostics": loss_diagnostics(state.losses),
        "losses": [point.model_dump(exclude_none=True) for point in state.losses],
        "optimization": optimization(config, context.world_size),
        "throughput": {**outcome.throughput, "device": describe(context.device)},
        "memorization": memorization.summary,
        "sample": {"prompt": prompt, "text": sample},
        "config": config.model_dump(mode="json"),
    }
    write_json(context.output(layout.BASE_REPORT), report)
    write_json(context.output(layout.HOLDOUT), data.holdout())
    write_json(context.output(layout.MEMORIZATION_REPORT), memorization.report)
    write_text(context.output(f"{layout.BASE_DIR}/report.md"), _markdown(report, state.losses))
    write_curves(
        state.losses,
        context.output(f"{layout.BASE_DIR}/{layout.CURVES}"),
        context.output(f"{layout.BASE_DIR}/{layout.CURVES_PNG}"),
    )
    write_text(
        context.output(f"{layout.BASE_DIR}/canary_probe.txt"),
        canary_text(memorization.canaries, memorization.num_candidates),
    )
    metrics = {"val_loss": final.loss, "val_bpb": final.bpb or 0.0, "unigram_bpb": unigram_bpb}
    context.events.metric(state.step, **metrics)
    return {
        **metrics,
        "num_parameters": model.num_parameters(),
        "tokens_seen": state.tokens_seen,
        "steps": state.step,
    }


def _sample(
    context: StageContext, config: BaseConfig, tokenizer: Tokenizer, engine: Engine
) -> tuple[str, str]:
    """Continue the prompt as the beginning of a document, and write sample.txt."""
    text = ""
    # Words carry the space before them, so a prompt that ends with one would be cut off its next word.
    prompt = config.sample_prompt.rstrip()
    prompt_ids = [tokenizer.bos_id, *tokenizer.encode(prompt)]
    room = min(config.sample_tokens, config.model.sequence_len - len(prompt_ids))
    if room > 0:
        params = SamplingParams(
            max_new_tokens=room,
            temperature=SAMPLE_TEMPERATURE,
            top_k=SAMPLE_TOP_K,
            seed=config.seed,
            stop_ids=engine.control_ids,
        )
        text = engine.generate([prompt_ids], params)[0].text
    context.events.sample("base", prompt, text)
    write_text(context.output(f"{layout.BASE_DIR}/sample.txt"), f"{prompt}{text}\n")
    return prompt, text


def _markdown(report: dict[str, Any], losses: Sequence[LossPoint]) -> str:
    data, diagnosis = report["dataset"], report["loss_diagnostics"]
    ratio = 100 * report["val_bpb"] / report["unigram_bpb"]
    lines = [
        "# Base pretraining",
        "",
        f"- Validation: **{with_error(report['val_bpb'], report['val_bpb_stderr'])} bits per byte** (standard error over "
        f"{report['val_stderr_over']}, {report['val_tokens']:,} tokens), {ratio:.0f} % of the unigram baseline "
        f"{report['unigram_bpb']:.3f}; best checkpoint at step {report['best_step']} of {report['num_steps']}, chosen on "
        f"{report['val_tokens_in_training']:,} tokens of the same text, stopped by {report['stop_reason']}.",
        f"- Model: {report['num_parameters']:,} parameters; {report['tokens_seen']:,} tokens seen, "
        f"{report['coverage']['epochs']:.1f} epochs.",
        f"- Split by {data['split_mode']}: {data['num_train_documents']} training documents "
        f"({data['train_tokens']:,} tokens), {data['num_val_documents']} held out ({data['val_tokens']:,} tokens); "
        f"read as {data['dataset_mode']}.",
        *([f"- Note: {data['split_note']}."] if data["split_note"] else []),
        f"- Loss curves: {diagnosis['status']} - {diagnosis['message']}.",
        f"- Canaries: {report['canary_hits']} of {report['canary_count']} that were inserted once came out.",
        *training_lines(report),
        "",
        "## Losses",
        "",
        *curve_lines(),
        "",
        *loss_table(losses),
        "",
        "## Memorization",
        "",
        *memorization_lines(report["memorization"]),
        "",
        "## Sample",
        "",
        "```text",
        f"{report['sample']['prompt']}{report['sample']['text']}",
        "```",
        "",
    ]
    return "\n".join(lines)
