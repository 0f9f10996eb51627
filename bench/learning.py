"""How much a token teaches: our AdamW and our Muon beside a nanoGPT-style AdamW, at equal tokens, on real text.

    python bench/learning.py [--data ../shared/data] [--folder F] [--quick] [--steps 300] [--seeds 1337 1 2]

Text: WikiText-2's validation split and tinyshakespeare, a tenth of the documents held out. All runs train the same model
class and shape (3.2M parameters with a byte-pair vocabulary of 4,096), from the same weights, on the same batches in the
same order, so only the recipe differs:

- nanoGPT: its `train.py` in a plain torch loop of this file: AdamW with betas 0.9 and 0.95, decay 0.1 on matrices, clip
  1.0, linear warm-up over --nanogpt-warmup steps (a twentieth of all; its own runs have a fiftieth and less), cosine down to
  a tenth; run at each of --nanogpt-rates, the best of which is the baseline. With the warm-up that ours derives (40), its
  schedule is all but ours, and what is left of the difference is not warm-up.
- ours: the base stage as it is without settings (derived learning rate and warm-up, decay 0.1, cosine down to a tenth); with
  AdamW, with Muon, and with Muon on a schedule of --muon-part of the steps. `--derived` derives the decay too and goes
  linearly to zero. The step at which Muon's curve crosses AdamW's last bits per byte is a strict measure, since its rate
  is still high there; the short run ends its schedule, as a user's would.

With several --seeds, each gives other weights, batches and held-out documents; curves are means over them, and the difference
of AdamW to the baseline is paired by seed, with its standard error.

Bits per byte of all are measured alike, on the same held-out text. About 12 minutes a seed on two quiet cores. A run that is
finished in --folder is not run again, one that was stopped goes on; --fresh begins anew. Prints one table and writes learning.json.
"""

import argparse
import hashlib
import json
import math
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from picochat_contract import layout
from picochat_contract.configs import BaseConfig, ModelConfig, Resources
from picochat_contract.data_configs import TokenizerConfig
from picochat_contract.manifest import code_version
from picochat_contract.spec import validated
from picochat_contract.stages import StageName
from picochat_contract.states import StageState
from picochat_trainer.atomic import write_json
from picochat_trainer.data.corpus_store import CorpusStore
from picochat_trainer.local_run import LocalRun
from picochat_trainer.model import GPT
from picochat_trainer.model.gpt import choose_backend
from picochat_trainer.tokenizer import Tokenizer
from picochat_trainer.tokenizer.training import save_tokenizer, train_tokenizer
from picochat_trainer.tokens import TokenStore, build_token_store
from picochat_trainer.training.bpb import BpbValidator
from picochat_trainer.training.compiled import LossModule, compile_pieces, eager
from picochat_trainer.training.hardware import autocast, autocast_dtype, describe, set_threads
from picochat_trainer.training.pretraining_data import read_pretraining_data, split_for

BASELINE = "nanoGPT"
NUM_POINTS = 10
PLAY_CHARACTERS = 4_000  # of a document that is made of Shakespeare's lines
TITLE = re.compile(r"^ = [^=].* = $", re.MULTILINE)
INPUTS = (layout.TOKENS_DIR, layout.TOKENIZER, layout.TOKENIZER_CONFIG, layout.CORPUS_MANIFEST)

Curve = dict[int, float]  # bits per byte after so many steps


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir()) / "picochat-bench-learning"
    )
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--nanogpt-rates", type=float, nargs="+", default=[1e-3, 2e-3, 3e-3])
    parser.add_argument("--nanogpt-warmup", type=int, help="Steps; a twentieth of --steps unless given.")
    parser.add_argument("--muon-part", type=float, default=0.75)
    parser.add_argument("--seeds", type=int, nargs="+", default=[BaseConfig.model_fields["seed"].default])
    parser.add_argument("--only-adamw", action="store_true", help="Leave Muon out.")
    parser.add_argument("--derived", action="store_true", help="Derived decay, linear down to zero.")
    parser.add_argument("--muon-rate", type=float, help="Instead of the derived one.")
    parser.add_argument("--fresh", action="store_true", help="Forget what --folder holds.")
    parser.add_argument(
        "--quick", action="store_true", help="A smoke test on a tiny model: no figure means anything."
    )
    args = parser.parse_args()
    if args.quick:
        args.steps, args.folder = 20, args.folder / "quick"
    if args.nanogpt_warmup is None:
        args.nanogpt_warmup = max(2, args.steps // 20)
    if args.fresh or args.quick:
        shutil.rmtree(args.folder, ignore_errors=True)
    args.folder.mkdir(parents=True, exist_ok=True)
    _prepare(args.data, args.folder / "data", quick=args.quick)
    _report(args, _run_all(args))


def _run_all(args: argparse.Namespace) -> dict[str, list[Curve]]:
    """The curves of each recipe, one for each seed."""
    curves: dict[str, list[Curve]] = {}
    for seed in args.seeds:
        for name, curve in _run_seed(args, seed):
            curves.setdefault(name, []).append(curve)
    return curves


def _run_seed(args: argparse.Namespace, seed: int) -> Iterator[tuple[str, Curve]]:
    for rate in args.nanogpt_rates:
        yield f"{BASELINE} {rate:g}", _nanogpt(args, seed, rate)
    yield "AdamW", _ours(args, "adamw", args.steps, {"optimizer": "adamw", "seed": seed})
    if args.only_adamw:
        return
    muon = {"optimizer": "muon", "learning_rate": args.muon_rate, "seed": seed}
    yield "Muon", _ours(args, "muon", args.steps, muon)
    yield "Muon, short", _ours(args, "muon_short", round(args.muon_part * args.steps), muon)


def _config(args: argparse.Namespace, num_steps: int, **changes: Any) -> BaseConfig:
    model = ModelConfig(n_layer=6, n_head=3, n_kv_head=1, n_embd=192, sequence_len=256)
    if args.quick:
        model = ModelConfig(n_layer=1, n_head=2, n_embd=32, sequence_len=64)
    settings: dict[str, Any] = {
        "model": model,
        "max_steps": num_steps,
        "device_batch_size": 4 if args.quick else 32,
        "learning_rate": None,
        "eval_every": max(1, num_steps // NUM_POINTS),
        "checkpoint_every": 100,
        "log_every": 25,
        "canary_count": 0,
        "sample_tokens": 0,
        "compile": "off" if args.quick else "on",
        **{name: value for name, value in changes.items() if value is not None},
    }
    if args.derived:
        settings |= {"weight_decay": None, "lr_decay": "linear", "min_lr_ratio": 0.0}
    return validated(BaseConfig, settings)


# -- our recipes


def _ours(args: argparse.Namespace, name: str, num_steps: int, changes: dict[str, Any]) -> Curve:
    name = f"{name}_{changes['seed']}"
    run_dir, data = args.folder / name, args.folder / "data"
    start = time.perf_counter()
    [row] = LocalRun(
        run_dir=run_dir,
        stages={StageName.BASE: _config(args, num_steps, **changes)},
        resources=Resources(device="cpu"),
        on_event=lambda _: None,
        paths={path: str((data / path).absolute()) for path in INPUTS},
    ).run()
    if row.state not in (StageState.SUCCEEDED, StageState.CACHED):
        raise SystemExit(f"{name}: {row.message}; see {run_dir / 'stages/base/log.txt'}")
    report = json.loads((run_dir / layout.BASE_REPORT).read_text("utf-8"))
    _say(name, row.state.value, start)
    return {point["step"]: point["val_bpb"] for point in report["losses"] if "val_bpb" in point}


# -- the baseline


def _nanogpt(args: argparse.Namespace, seed: int, rate: float) -> Curve:
    name = f"nanogpt_{rate:g}_{args.nanogpt_warmup}_{args.steps}_{seed}"
    path = args.folder / f"{name}_{_what_it_trains_on(args.folder / 'data')}.json"
    start = time.perf_counter()
    if path.exists():
        _say(name, "cached", start)
        return {int(step): bpb for step, bpb in json.loads(path.read_text("utf-8")).items()}
    curve = _train_nanogpt(args, seed, rate)
    write_json(path, curve)
    _say(name, "done", start)
    return curve


def _what_it_trains_on(data: Path) -> str:
    """Model, loss and readers are those of the base stage, so a change of its code or of the text makes another run."""
    whole = hashlib.sha256(code_version(StageName.BASE).encode())
    for name in (layout.CORPUS, layout.TOKENIZER):
        whole.update((data / name).read_bytes())
    return whole.hexdigest()[:12]


def _train_nanogpt(args: argparse.Namespace, seed: int, rate: float) -> Curve:
    """nanoGPT's loop. Only model, batches and validation are ours."""
    config = _config(args, args.steps, seed=seed)
    set_threads(Resources(device="cpu"))
    tokenizer = Tokenizer.load(args.folder / "data")
    store = TokenStore.open(args.folder / "data" / layout.TOKENS_DIR)
    data = read_pretraining_data(store, config, split_for(store, config))
    validator = BpbValidator(
        data.val,
        [len(raw) for raw in tokenizer.token_bytes],
        sequence_len=config.model.sequence_len,
        batch_rows=config.device_batch_size,
    )
    model, dtype = GPT(config.model, tokenizer.vocab_size), autocast_dtype("auto", "cpu")
    model.init_weights(config.seed)
    with autocast("cpu", dtype):
        choose_backend(model, config.attn_backend, "cpu")
    if config.compile == "on":
        compile_pieces(model)
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": 0.1},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=rate,
        betas=(0.9, 0.95),
        fused=True,
    )
    module, curve = LossModule(model), Curve()
    for step in range(args.steps):
        for group in optimizer.param_groups:
            group["lr"] = _nanogpt_rate(step, args.steps, args.nanogpt_warmup, rate)
        [(tokens_BT, targets_BT)] = data.batches.next_step().micro_batches
        with autocast("cpu", dtype):
            loss = module(tokens_BT, targets_BT)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if (step + 1) % config.eval_every == 0 or step + 1 == args.steps:
            model.eval()
            with eager(), autocast("cpu", dtype):
                bpb = validator(model).bpb
            model.train()
            assert bpb is not None
            curve[step + 1] = bpb
    return curve


def _nanogpt_rate(step: int, num_steps: int, warmup: int, peak: float) -> float:
    """`get_lr` of its train.py, with `min_lr` a tenth of the peak and the decay as long as the run."""
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    ratio = (step - warmup) / (num_steps - warmup)
    return peak * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * ratio)))


# -- text


def _prepare(source: Path, folder: Path, *, quick: bool) -> None:
    """Corpus, tokenizer and token store, unless they are there."""
    if (folder / "ready").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    wiki, plays = source / "wikitext2_valid.txt", source / "tinyshakespeare.txt"
    for path in (wiki, plays):
        if not path.is_file():
            raise SystemExit(f"expected {path}; name the folder with both texts by --data")
    documents = [*_articles(wiki.read_text("utf-8")), *_scenes(plays.read_text("utf-8"))]
    if quick:
        documents = documents[::10]
    _write_corpus(folder, documents)
    config = TokenizerConfig(type="bpe", vocab_size=512 if quick else 4096)
    save_tokenizer(
        train_tokenizer(config, documents), folder / layout.TOKENIZER, folder / layout.TOKENIZER_CONFIG
    )
    store = build_token_store(
        CorpusStore.at(folder), Tokenizer.load(folder), folder / layout.TOKENS_DIR
    ).store
    (folder / "ready").touch()
    print(f"{store.num_documents:,} documents, {store.num_tokens:,} tokens\n", flush=True)


def _articles(text: str) -> Iterator[str]:
    starts = [match.start() for match in TITLE.finditer(text)]
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        yield text[start:end].strip()


def _scenes(text: str) -> Iterator[str]:
    scene = ""
    for speech in text.split("\n\n"):
        scene += f"{speech}\n\n"
        if len(scene) >= PLAY_CHARACTERS:
            yield scene.strip()
            scene = ""
    if scene:
        yield scene.strip()


def _write_corpus(folder: Path, documents: list[str]) -> None:
    """corpus.txt and its manifest as the dataset stage leaves them."""
    text, spans = "", []
    for index, document in enumerate(documents):
        spans.append(
            {
                "document_id": f"{index:08x}",
                "path": f"document-{index}",
                "char_start": len(text),
                "char_end": len(text) + len(document),
            }
        )
        text += f"{document}\n\n"
    (folder / layout.CORPUS).write_text(text, encoding="utf-8", newline="")
    manifest = {
        "format": "picochat-corpus",
        "version": 2,
        "shards": [],
        "stats": {"num_documents": len(documents)},
        "documents": spans,
    }
    write_json(folder / layout.CORPUS_MANIFEST, manifest)


# -- what came out


def crossing(curve: Curve, target: float) -> float | None:
    """The step at which a curve, taken as straight between its points, first reaches `target`; None where it never does."""
    points = sorted(curve.items())
    for (step, bpb), (next_step, next_bpb) in zip([(0, math.inf), *points], points, strict=False):
        if next_bpb <= target:
            if not math.isfinite(bpb):
                return float(next_step)
            return step + (next_step - step) * (bpb - target) / (bpb - next_bpb)
    return None


def _mean(curves: list[Curve]) -> Curve:
    return {step: statistics.fmean(curve[step] for curve in curves) for step in curves[0]}


def _last(curve: Curve) -> float:
    return curve[max(curve)]


def _report(args: argparse.Namespace, curves: dict[str, list[Curve]]) -> None:
    means = {name: _mean(of_seeds) for name, of_seeds in curves.items()}
    last = {name: _last(mean) for name, mean in means.items()}
    baseline = min((name for name in curves if name.startswith(BASELINE)), key=last.__getitem__)
    config = _config(args, args.steps)
    pairs = zip(curves["AdamW"], curves[baseline], strict=True)
    differences = [_last(ours) - _last(theirs) for ours, theirs in pairs]
    figures: dict[str, float | None] = {
        "adamw_bpb_over_nanogpt_bpb": last["AdamW"] / last[baseline],
        "adamw_bpb_minus_nanogpt_bpb": statistics.fmean(differences),
        "its_standard_error_over_seeds": _standard_error(differences),
    }
    if "Muon" in curves:
        reached = crossing(means["Muon"], last["AdamW"])
        figures |= {
            "muon_bpb_over_adamw_bpb": last["Muon"] / last["AdamW"],
            "muon_short_bpb_over_adamw_bpb": last["Muon, short"] / last["AdamW"],
            "muon_short_part_of_steps": args.muon_part,
            "muon_steps_to_adamw_bpb_over_steps": None if reached is None else reached / args.steps,
        }
    _print_curves(means)
    by_seed = {name: [round(_last(curve), 4) for curve in of_seeds] for name, of_seeds in curves.items()}
    print(f"\nlast, by seed {args.seeds}: {by_seed}\nbaseline: {baseline}, {last[baseline]:.4f}")
    for name, value in figures.items():
        print(f"{name:<38} {'none' if value is None else format(value, '.4f')}")
    write_json(
        args.folder / "learning.json",
        {
            "quick": args.quick,
            "device": describe("cpu"),
            "steps": args.steps,
            "seeds": args.seeds,
            "nanogpt_warmup_steps": args.nanogpt_warmup,
            "tokens_per_step": config.device_batch_size * config.model.sequence_len,
            "model": config.model.model_dump(mode="json"),
            "baseline": baseline,
            "figures": figures,
            "curves": curves,
        },
    )


def _standard_error(values: list[float]) -> float | None:
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None


def _print_curves(means: dict[str, Curve]) -> None:
    print("\nbits per byte on held-out text\n")
    print("step".rjust(6) + "".join(name.rjust(15) for name in means))
    for step in sorted({step for curve in means.values() for step in curve}):
        cells = (f"{curve[step]:.4f}" if step in curve else "" for curve in means.values())
        print(f"{step:6d}" + "".join(cell.rjust(15) for cell in cells))


def _say(name: str, what: str, start: float) -> None:
    print(f"{name}: {what}, {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
