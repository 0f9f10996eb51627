"""`python -m picochat_trainer <stage> --config stage.json --out RUN`; also serve, chat, generate."""

import sys

from picochat_trainer.process import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
