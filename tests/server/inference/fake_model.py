"""A stand-in for `picochat_trainer serve`: same command line, OpenAI's shapes, no model. Run by the tests' command.

What the weights file says decides how it behaves: `fail` ends at once, `leak` with its key in the log, `slow` never
gets healthy, `crash` dies in the middle of an answer, `endless` streams until the reader goes away and then writes
`closed` into its log.
"""

import argparse
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

WORDS = ("Picochat ", "trains ", "small ", "models.")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    mode = ""
    model = ""
    key = ""

    def log_message(self, format, *args):
        pass

    def do_GET(self):
        self._json(200, {"status": "ok"})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["Authorization"] != f"Bearer {self.key}":
            return self._json(
                401, {"error": {"message": "wrong key", "type": "auth", "code": "unauthenticated"}}
            )
        if body["model"] != self.model:
            return self._json(
                404, {"error": {"message": body["model"], "type": "x", "code": "model_not_found"}}
            )
        if body.get("max_tokens", 1) < 1:
            return self._json(
                400,
                {
                    "error": {
                        "message": "max_tokens must be 1 or more",
                        "type": "x",
                        "code": "invalid_request",
                    }
                },
            )
        if self.mode == "crash":
            print("out of memory, says the fake", flush=True)
            os._exit(1)
        if body.get("stream"):
            return self._stream(self.path.endswith("chat/completions"))
        return self._json(200, self._answer(self.path.endswith("chat/completions"), "".join(WORDS)))

    def _answer(self, chat, text):
        choice = {"index": 0, "finish_reason": "stop"}
        choice |= (
            {"message": {"role": "assistant", "content": text}} if chat else {"text": text, "logprobs": None}
        )
        return {
            "id": "cmpl-1",
            "object": "chat.completion" if chat else "text_completion",
            "created": 1,
            "model": self.model,
            "choices": [choice],
            "usage": {"prompt_tokens": 1, "completion_tokens": 4, "total_tokens": 5},
        }

    def _stream(self, chat):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        try:
            for word in WORDS:
                self._event(chat, word)
            while self.mode == "endless":
                self._event(chat, "on ")
                time.sleep(0.02)
        except OSError:
            print("closed", flush=True)
            return
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def _event(self, chat, word):
        choice = {"index": 0, "finish_reason": None}
        choice |= {"delta": {"content": word}} if chat else {"text": word, "logprobs": None}
        chunk = {
            "id": "cmpl-1",
            "object": "chat.completion.chunk" if chat else "text_completion",
            "created": 1,
            "model": self.model,
            "choices": [choice],
        }
        self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        self.wfile.flush()

    def _json(self, status, data):
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main():
    parser = argparse.ArgumentParser()
    for name in ("--checkpoint", "--tokenizer", "--host", "--model-name", "--api-key-env"):
        parser.add_argument(name, required=True)
    parser.add_argument("--port", type=int, required=True)
    args = parser.parse_args()
    Handler.mode = (Path(args.checkpoint) / "model.safetensors").read_text(errors="replace").strip()
    Handler.model = args.model_name
    Handler.key = os.environ[args.api_key_env]
    print(f"pid {os.getpid()} serves {args.model_name}", flush=True)
    print("inherited:", sorted(name for name in os.environ if name.startswith("PICOCHAT_")), flush=True)
    Path(args.tokenizer).read_text()
    if Handler.mode == "leak":
        sys.exit(f"the key is {Handler.key}, says the fake")
    if Handler.mode == "fail":
        sys.exit("the checkpoint is unreadable, says the fake")
    if Handler.mode == "slow":
        time.sleep(60)
    ThreadingHTTPServer((args.host, args.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
