"""`python manage.py presque_worker`: does the tasks of the shop."""

from argparse import ArgumentParser

from django.core.management.base import BaseCommand

from shop.tasks import app


class Command(BaseCommand):
    """The command."""

    help = "Do the tasks of the shop."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Some of the settings of workers; the others stand in PRESQUE_WORKER_…"""
        parser.add_argument("--burst", action="store_true", help="end when nothing is left to do")
        parser.add_argument("--concurrency", type=int, help="how many tasks at once")

    def handle(self, burst: bool, concurrency: int | None, **_: object) -> None:
        """Work until told to stop."""
        app.worker(burst=burst, concurrency=concurrency).start()
