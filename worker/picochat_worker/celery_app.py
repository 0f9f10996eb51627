"""Celery on Redis as a doorbell: a message is a stage id that may be worth claiming, nothing more.

Redis repeats, delays and loses messages, so none of them owns work: they are acknowledged early, carry no
result, and losing all of them costs one fall-back poll. The pool is `solo`: tasks run in this one process, so
nothing is forked from a process with threads, kill -9 of the worker takes the stage along in one hop, and
while a stage runs no further message is taken from the queue. A blocked consumer does not matter: heartbeats
go to the server from a thread of their own, and Redis wants none.
"""

from collections.abc import Callable

from celery import Celery, signals

TASK_NAME = "picochat.run_stage"


def make_app(broker_url: str, queue: str, run_stage: Callable[[str], None]) -> Celery:
    """The app with its one task, which calls `run_stage(stage_id)` and returns when that is over."""
    app = Celery("picochat", broker=broker_url, set_as_current=False)
    app.conf.update(
        task_default_queue=queue,
        task_acks_late=False,
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_enable_remote_control=False,  # cancelling is the database's; its reply keys never expire
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={"socket_keepalive": True},
    )

    @app.task(name=TASK_NAME, ignore_result=True)
    def run_stage_task(stage_id: str) -> None:
        run_stage(stage_id)

    return app


def serve(app: Celery, *, name: str, on_stop: Callable[[], None]) -> int:
    """Consume hints in this (the main) thread until SIGTERM or SIGINT; each of these calls `on_stop`."""

    def stopping(**_details: object) -> None:
        on_stop()

    signals.worker_shutting_down.connect(stopping, weak=False)
    try:
        worker = app.Worker(
            hostname=f"picochat@{name}",
            pool="solo",
            concurrency=1,
            queues=[app.conf.task_default_queue],
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
            loglevel="INFO",
        )
        worker.start()
        return int(worker.exitcode or 0)
    finally:
        signals.worker_shutting_down.disconnect(stopping)
