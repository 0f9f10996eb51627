"""Speed and memory of the token store: building, packing and reading, each beside a plain way in the same run.

    python bench/tokens.py [--megabytes 100] [--vocab-size 8192] [--context 512]

The text is the source code of Python's standard library, cut into documents with log-normal lengths (real text that every
machine has); a corpus over that size repeats it with other numbers in it. Every build runs in a process of its own, so that
its peak memory is its own. Packing and reading use one core, and are measured in its seconds. Prints one table; measures no
disk that is slower than the page cache, and no GPU.
"""

import argparse
import json
import random
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tokenizers
from picochat_contract.data_configs import TokenizerConfig
from picochat_trainer.atomic import file_sha256
from picochat_trainer.data.corpus_store import CorpusStore
from picochat_trainer.tokenizer import Tokenizer
from picochat_trainer.tokenizer.sample import sample_texts
from picochat_trainer.tokenizer.training import save_tokenizer, train_tokenizer
from picochat_trainer.tokens import TokenStore, build_token_store
from picochat_trainer.training.packing import pack
from picochat_trainer.training.split import split_store
from picochat_trainer.training.tokens import ArrayTokens, Spans

MEAN_LOG, SIGMA_LOG = 7.0, 1.1  # characters of a document: median 1,100, mean 2,000, some over 30,000
ROWS_PER_SHARD = 10_000
DEVICE_ROWS = 64
READ_SECONDS = 2.0
PACKED_DOCUMENTS = 2_000_000
ENCODERS = ("tokenizers", "tiktoken", "gigatoken")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--vocab-size", type=int, default=8192)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--encoders", nargs="+", choices=ENCODERS, default=list(ENCODERS))
    parser.add_argument("--build", choices=("plain", *ENCODERS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.build:
        print(json.dumps(_build_here(args.folder, args.build)))
        return
    with tempfile.TemporaryDirectory() as folder:
        _measure(Path(folder), args)


def _measure(folder: Path, args: argparse.Namespace) -> None:
    size = _write_corpus(folder, args.megabytes * 1_000_000)
    corpus = CorpusStore.at(folder)
    config = TokenizerConfig(vocab_size=args.vocab_size)
    save_tokenizer(
        train_tokenizer(config, sample_texts(corpus, 1, max_bytes=8_000_000)),
        folder / "tokenizer.json",
        folder / "tokenizer_config.json",
    )
    print(f"{size / 1e6:.0f} MB of text, {corpus.num_documents:,} documents, vocabulary {args.vocab_size}\n")
    print(f"{'what':<42} {'Mtok/s':>8} {'MB/s':>7} {'ratio':>7}  {'peak MB':>8}  notes")
    plain = _build(folder, "plain")
    _line("tokenizers.encode_batch, nothing written", plain, size, plain)
    for encoder in args.encoders:
        _line(f"token store, encoder {encoder}", _build(folder, encoder), size, plain)
    store = TokenStore.open(folder / "tokens")
    _measure_packing(store, args.context)
    _measure_reading(store, args.context)
    print(f"\npeak memory of this process: {_peak_mb():,.0f} MB")


def _build(folder: Path, what: str) -> dict[str, float | str]:
    command = [sys.executable, __file__, "--build", what, "--folder", str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, float | str] = json.loads(done.stdout)
    return result


def _build_here(folder: Path, what: str) -> dict[str, float | str]:
    """One build, in a process of its own; `plain` is what a script without a store would do."""
    tokenizer, corpus = Tokenizer.load(folder), CorpusStore.at(folder)
    before = _peak_mb()
    if what == "plain":
        backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        texts = [document.text for document in corpus.documents()]
        start, num_tokens = time.perf_counter(), 0
        for first in range(0, len(texts), 1000):
            encoded = backend.encode_batch(texts[first : first + 1000], add_special_tokens=False)
            num_tokens += sum(len(item.ids) for item in encoded)
        return {"seconds": time.perf_counter() - start, "tokens": num_tokens, "peak": _peak_mb(), "notes": ""}
    start = time.perf_counter()
    built = build_token_store(corpus, tokenizer, folder / "tokens", encoder=what)  # type: ignore[arg-type]
    seconds = time.perf_counter() - start
    compared = built.store.manifest["encoder"]["sample_documents"]
    notes = f"{built.encoder}, {compared} documents compared; {before:,.0f} MB before"
    return {"seconds": seconds, "tokens": built.store.num_tokens, "peak": _peak_mb(), "notes": notes}


def _measure_packing(store: TokenStore, context: int) -> None:
    lengths = np.random.default_rng(1).choice(np.diff(store.offsets), PACKED_DOCUMENTS)
    documents = Spans(addresses=np.cumsum(lengths) - lengths, lengths=lengths)
    start = time.process_time()
    rows = pack(documents, context + 1, seed=1)
    seconds = time.process_time() - start
    sample = Spans(addresses=documents.addresses[:20_000], lengths=lengths[:20_000])
    start = time.process_time()
    cropped = _crop_best_fit(sample.lengths.tolist(), context + 1)
    plain = sample.num_tokens / (time.process_time() - start)
    speed = documents.num_tokens / seconds
    print(f"{'best-fit with cropping, buffer of 1,024':<42} {plain / 1e6:>8.1f} {'':>7} {1:>7.2f}  {'':>8}  "
          f"{cropped / sample.num_tokens:.1%} of the tokens used")  # fmt: skip
    print(f"{f'packing {PACKED_DOCUMENTS:,} documents':<42} {speed / 1e6:>8.1f} {'':>7} {speed / plain:>7.2f}  "
          f"{'':>8}  {rows.used_tokens / rows.num_tokens:.2%} of the tokens used, rows {rows.filled_fraction:.2%} full")  # fmt: skip


def _crop_best_fit(lengths: list[int], row_len: int) -> int:
    """Tokens that are used by the common way: take the longest that fits, else crop the shortest to fill the row."""
    waiting = lengths[::-1]
    buffer: list[int] = []
    used = 0
    while waiting or buffer:
        room = row_len
        while room and (waiting or buffer):
            while waiting and len(buffer) < 1024:
                buffer.append(waiting.pop())
            fitting = [length for length in buffer if length <= room]
            chosen = max(fitting) if fitting else min(buffer)
            buffer.remove(chosen)
            used += min(chosen, room)
            room -= min(chosen, room)
    return used


def _measure_reading(store: TokenStore, context: int) -> None:
    # Imported here because it needs torch, which would count as peak memory of every build.
    from picochat_trainer.training.reader import Batching, PackedReader, RowReader, WindowReader

    split = split_store(store, val_fraction=0.1, mode="document", seed=1)
    batching = Batching(sequence_len=context, device_batch_size=DEVICE_ROWS, seed=1)
    array = ArrayTokens(split.train_tokens.to_array())
    plan = pack(split.train, context + 1, 1)
    readers: dict[str, RowReader] = {
        "memory": WindowReader(array, batching),
        "sharded": WindowReader(split.train_tokens, batching),
        "packed": PackedReader(split.space, plan, batching, pad_id=store.bos_id),
    }
    rng = np.random.default_rng(1)
    shard, window = store.arrays[0], np.arange(context + 1)
    starts = rng.integers(0, len(shard) - context - 1, size=(1000, DEVICE_ROWS))
    turn = iter(range(10**9))
    plain = _tokens_per_second(lambda: shard[starts[next(turn) % 1000][:, None] + window], context)
    print(f"{'numpy gather from a mapped shard':<42} {plain / 1e6:>8.1f} {'':>7} {1:>7.2f}")
    for mode, reader in readers.items():
        speed = _tokens_per_second(reader.next_step, context)
        print(
            f"{f'reader, {mode}: int64 tensors, targets':<42} {speed / 1e6:>8.1f} {'':>7} {speed / plain:>7.2f}"
        )


def _tokens_per_second(step: Callable[[], object], context: int) -> float:
    for _ in range(20):
        step()
    steps, start = 0, time.process_time()
    while time.process_time() - start < READ_SECONDS:
        step()
        steps += 1
    return steps * DEVICE_ROWS * context / (time.process_time() - start)


def _line(what: str, run: dict[str, float | str], size: int, plain: dict[str, float | str]) -> None:
    seconds, tokens, peak = (float(run[name]) for name in ("seconds", "tokens", "peak"))
    ratio = float(plain["seconds"]) / seconds
    print(f"{what:<42} {tokens / seconds / 1e6:>8.2f} {size / seconds / 1e6:>7.1f} {ratio:>7.2f}  {peak:>8,.0f}  "
          f"{run['notes']}")  # fmt: skip


def _write_corpus(folder: Path, wanted: int) -> int:
    """Parquet shards and a manifest as the dataset stage writes them; return the bytes of text."""
    (folder / "corpus").mkdir()
    shards, size, number = [], 0, 0
    rows: list[dict[str, object]] = []

    def write() -> None:
        path = folder / "corpus" / f"part-{len(shards):05d}.parquet"
        pq.write_table(pa.Table.from_pylist(rows), path, compression="zstd")
        num_bytes = sum(len(str(row["text"]).encode()) for row in rows)
        entry = {"path": f"corpus/{path.name}", "sha256": file_sha256(path), "num_documents": len(rows)}
        shards.append({**entry, "num_bytes": num_bytes})
        rows.clear()

    for text in _documents():
        rows.append({"document_id": f"{number:08x}", "text": text, "path": f"{number}.py", "label": None,
                     "license": None, "source": 0, "quality_score": 100})  # fmt: skip
        size, number = size + len(text.encode()), number + 1
        if size >= wanted:
            break
        if len(rows) == ROWS_PER_SHARD:
            write()
    write()
    manifest = {
        "format": "picochat-corpus",
        "version": 2,
        "shards": shards,
        "stats": {"num_documents": number},
    }
    (folder / "corpus_manifest.json").write_text(json.dumps(manifest))
    return size


def _documents() -> Iterator[str]:
    library = Path(sysconfig.get_path("stdlib"))
    files = sorted(path for path in library.rglob("*.py") if "site-packages" not in path.parts)
    text = "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in files)
    rng, repeat = random.Random(1), 0
    while True:
        start = 0
        shown = text if not repeat else text.replace("1", f"{repeat + 1}")
        while start < len(shown):
            length = max(20, int(rng.lognormvariate(MEAN_LOG, SIGMA_LOG)))
            yield shown[start : start + length]
            start += length
        repeat += 1


def _peak_mb() -> float:
    """Linux's VmHWM; ru_maxrss of a child begins with what its parent held when it was started."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


if __name__ == "__main__":
    main()
