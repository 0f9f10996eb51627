"""Supervised fine-tuning: teaches the base model the chat format and the answers of the chat rows.

Writes sft/checkpoint/ (the weights with the best validation loss: these are evaluated, gated and served),
sft_report.json (evidence for the gate), report.md, curves.csv, curves.png and sample.txt.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from picochat_contract import layout
from picochat_contract.configs import SftConfig
from picochat_contract.errors import Code, ContractError
from picochat_contract.stages import StageName

from picochat_trainer.atomic import PREVIOUS, file_sha256, write_json, write_text
from picochat_trainer.context import StageContext
from picochat_trainer.inference.engine import Engine
from picochat_trainer.inference.sampling import SamplingParams
from picochat_trainer.model import GPT
from picochat_trainer.tokenizer import Tokenizer
from picochat_trainer.training import distributed
from picochat_trainer.training.chat import ChatSplit, Example, families, prepare_chat
from picochat_trainer.training.chat_reader import ChatReader, ChatValidator
from picochat_trainer.training.checkpoint import (
    LossPoint,
    Opened,
    load_weights,
    open_checkpoint,
    shape_of,
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
from picochat_trainer.training.first_weights import build_model, saved
from picochat_trainer.training.hardware import autocast_dtype, describe
from picochat_trainer.training.loop import Outcome, train
from picochat_trainer.training.resume import Training
from picochat_trainer.tuning.rows import read_chat

RESUME = f"{layout.SFT_DIR}/{layout.RESUME_CHECKPOINT}"


def run(context: StageContext, config: SftConfig) -> dict[str, float]:
    tokenizer = Tokenizer.load(context.path(layout.TOKENIZER))
    base, split = context.main_first(lambda: _read_inputs(context, config, tokenizer))
    model_config, vocab_size = shape_of(base)
    sequence_len = model_config.sequence_len
    base_sha256 = base.metadata.files[layout.WEIGHTS]
    if split.skipped_long:
        lines = ", ".join(map(str, split.skipped_long[:10]))
        message = (
            f"{len(split.skipped_long)} rows do not fit {sequence_len} tokens and are left out: lines {lines}"
        )
        context.events.log("warning", message)
    model = build_model(
        model_config,
        vocab_size,
        saved(base),
        device=context.device,
        strategy=context.strategy,
        dtype=autocast_dtype(config.precision, context.device),
    )
    outcome = train(
        context,
        Training(
            model=model,
            batches=_reader(context, config, split, tokenizer, sequence_len),
            validator=ChatValidator(
                split.val,
                pad_id=tokenizer.pad_id,
                sequence_len=sequence_len,
                batch_rows=config.device_batch_size,
                rank=context.rank,
                world_size=context.world_size,
            ),
            config=config,
            fingerprint=_fingerprint(context, config, base_sha256),
            best=layout.SFT_CHECKPOINT,
            resume=RESUME,
        ),
    )
    distributed.finish()
    return _report(context, config, tokenizer, split, outcome, base_sha256) if context.is_main else {}


def _read_inputs(context: StageContext, config: SftConfig, tokenizer: Tokenizer) -> tuple[Opened, ChatSplit]:
    """The base checkpoint, which may be that of `.previous`, and the chat rows that fit its context."""
    directory = context.path(layout.BASE_BEST)
    opened = open_checkpoint(directory)
    model_config, vocab_size = shape_of(opened)
    if vocab_size != tokenizer.vocab_size:
        raise ContractError(
            Code.INVALID_SHAPE,
            f"the base checkpoint {directory} knows {vocab_size} tokens, the tokenizer {tokenizer.vocab_size}; "
            "give the tokenizer that the base was trained with",
            param="tokenizer",
        )
    split = prepare_chat(
        read_chat(context.path(layout.CHAT)),
        tokenizer,
        sequence_len=model_config.sequence_len,
        val_fraction=config.val_fraction,
        seed=config.seed,
        train_on=config.train_on,
    )
    return opened, split


def _reader(
    context: StageContext, config: SftConfig, split: ChatSplit, tokenizer: Tokenizer, sequence_len: int
) -> ChatReader:
    return ChatReader(
        split.train,
        pad_id=tokenizer.pad_id,
        sequence_len=sequence_len,
        device_batch_size=config.device_batch_size,
        grad_accum_steps=config.grad_accum_steps,
        rank=context.rank,
        world_size=context.world_size,
        sampling=config.sampling,
        seed=config.seed,
    )


def _fingerprint(context: StageContext, config: SftConfig, base_sha256: str) -> dict[str, Any]:
    return training_fingerprint(
        StageName.SFT,
        context,
        config,
        data={"chat": file_sha256(context.path(layout.CHAT)), "base_weights": base_sha256},
        tokenizer=file_sha256(context.path(layout.TOKENIZER)),
    )


def _report(
    context: StageContext,
    config: SftConfig,
    tokenizer: Tokenizer,
    split: ChatSplit,
    outcome: Outcome,
    base_sha256: str,
) -> dict[str, float]:
    checkpoint = context.output(layout.SFT_CHECKPOINT)
    context.scratch(f"{layout.SFT_CHECKPOINT}{PREVIOUS}")
    state, best = outcome.state, outcome.best
    prompt, sample = _sample(context, config, tokenizer)
    report = {
        "subject": file_sha256(checkpoint / layout.WEIGHTS),
        "base_subject": base_sha256,
        "split_method": split.method,
        "num_train_rows": len(split.train),
        "num_val_rows": len(split.val),
        "num_nonfinite_steps": state.num_nonfinite_steps,
        "loss_spikes": state.spike_steps,
        "val_loss": best.val_loss,
        "val_loss_stderr": best.val_loss_stderr,
        "best_step": state.best_step,
        "num_steps": state.step,
        "tokens_seen": state.tokens_seen,
        "stop_reason": state.stop_reason,
        "dataset": _dataset(split),
        "coverage": {"epochs": _epochs(context, config, split, state.step)},
        "loss_diagnostics": loss_diagnostics(state.losses),
        "losses": [point.model_dump(exclude_none=True) for point in state.losses],
        "optimization": optimization(config, context.world_size),
        "throughput": {**outcome.throughput, "device": describe(context.device)},
        "sample": {"prompt": prompt, "text": sample},
        "config": config.model_dump(mode="json"),
    }
    write_json(context.output(layout.SFT_REPORT), report)
    write_text(context.output(f"{layout.SFT_DIR}/report.md"), _markdown(report, state.losses))
    write_curves(
        state.losses,
        context.output(f"{layout.SFT_DIR}/{layout.CURVES}"),
        context.output(f"{layout.SFT_DIR}/{layout.CURVES_PNG}"),
    )
    assert best.val_loss is not None
    return {"val_loss": best.val_loss, "steps": state.step, "num_train_rows": len(split.train)}


def _sample(context: StageContext, config: SftConfig, tokenizer: Tokenizer) -> tuple[str, str]:
    """Answer the sample prompt greedily with the best weights, and write sample.txt."""
    model_config, vocab_size, tensors = load_weights(context.path(layout.SFT_CHECKPOINT))
    model = GPT(model_config, vocab_size)
    model.load_state_dict(tensors)
    engine = Engine(model, tokenizer, context.device)
    messages = [{"role": "user", "content": config.sample_prompt}]
    prompt_ids, _ = tokenizer.encode_chat(messages, add_generation_prompt=True)
    room = min(config.sample_tokens, engine.context - len(prompt_ids))
    text = ""
    if room > 0:
        params = SamplingParams(
            max_new_tokens=room, temperature=0.0, seed=config.seed, stop_ids=engine.control_ids
        )
        text = engine.generate([prompt_ids], params)[0].text
    context.events.sample("sft", config.sample_prompt, text)
    sample = f"user: {config.sample_prompt}\nassistant: {text}\n"
    write_text(context.output(f"{layout.SFT_DIR}/sample.txt"), sample)
    return config.sample_prompt, text


def _dataset(split: ChatSplit) -> dict[str, Any]:
    return {
        "train_lines": [example.line for example in split.train],
        "val_lines": [example.line for example in split.val],
        "skipped_long": list(split.skipped_long),
        "supervised_tokens": sum(example.num_targets for example in split.train),
        "masked_prompt_tokens": sum(e.num_inputs - e.num_targets for e in split.train),
        "split_method": split.method,
        "num_groups": len(families((*split.train, *split.val))),
        "train_categories": _count_categories(split.train),
        "val_categories": _count_categories(split.val),
    }


def _count_categories(examples: Sequence[Example]) -> dict[str, int]:
    return dict(sorted(Counter(example.category for example in examples).items()))


def _epochs(context: StageContext, config: SftConfig, split: ChatSplit, steps: int) -> float:
    rows_per_step = config.device_batch_size * config.grad_accum_steps * context.world_size
    return steps * rows_per_step / len(split.train)


def _markdown(report: dict[str, Any], losses: Sequence[LossPoint]) -> str:
    data, diagnosis = report["dataset"], report["loss_diagnostics"]
    lines = [
        "# Chat SFT",
        "",
        f"- Validation loss **{with_error(report['val_loss'], report['val_loss_stderr'])}** at step {report['best_step']} of {report['num_steps']} "
        f"(these weights are `sft/checkpoint`), stopped by {report['stop_reason']}.",
        f"- {report['num_train_rows']} training rows, {report['num_val_rows']} held out by {data['split_method']} "
        f"({data['num_groups']} groups); {len(data['skipped_long'])} rows were too long.",
        f"- {data['supervised_tokens']:,} answer tokens are learned, {data['masked_prompt_tokens']:,} prompt tokens "
        f"are masked; {report['coverage']['epochs']:.1f} epochs.",
        f"- Loss curves: {diagnosis['status']} - {diagnosis['message']}.",
        *training_lines(report),
        "",
        "## Losses",
        "",
        *curve_lines(),
        "",
        *loss_table(losses),
        "",
        "## Sample",
        "",
        "```text",
        f"user: {report['sample']['prompt']}",
        f"assistant: {report['sample']['text']}",
        "```",
        "",
    ]
    return "\n".join(lines)
