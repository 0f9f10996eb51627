"""Alembic's folder: env.py and the revisions. `picochat_server.bootstrap` runs them; see `picochat-server db`."""
