"""What users need to test their own jobs: run a worker on a value, without a server.

    def test_a_letter_without_an_address_is_dead():
        outcome = perform(Mailer, {"text": "hello"})
        assert outcome.state == "dead"

and clients whose pushes are done at once, in the same thread or task:

    client = InlineClient({"mail": Mailer, "video_*": Transcoder})
    client.push("mail", {"to": "ana"})
    assert client.outcomes[-1].state == "done"

A worker is given as a class that derives from `Worker`, as an instance of one, or as anything to call with
the job, as for `presque worker MODULE:NAME`. Work that is async and work that is not can both be tested in an
async test and in any other: `await perform_async(…)` and `AsyncInlineClient` use the loop of the test.

With a server, and all that it does to a job, `Presque` runs the jobs that are due; the fixture `presque` of
the plugin for pytest is one.
"""

from presque.testing.inline import AsyncInlineClient, InlineClient
from presque.testing.kit import Clock, Presque, Pushed, Run
from presque.testing.trying import Outcome, Works, perform, perform_async
from presque.worker.alone import BODY_MOST

__all__ = [
    "BODY_MOST",
    "AsyncInlineClient",
    "Clock",
    "InlineClient",
    "Outcome",
    "Presque",
    "Pushed",
    "Run",
    "Works",
    "perform",
    "perform_async",
]
