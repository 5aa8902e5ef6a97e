"""Tests of the shop, without a server: `python manage.py test`."""

from django.test import TestCase

from shop.models import Order
from shop.tasks import app


class Orders(TestCase):
    """A test runs in a transaction that is never committed, so Django is asked to act as if it were."""

    def test_an_order_is_confirmed(self) -> None:
        """The task is done where it is pushed."""
        with app.inline() as ran, self.captureOnCommitCallbacks(execute=True):
            response = self.client.post("/orders", {"to": "ana"})
        self.assertEqual(response.status_code, 202)
        self.assertEqual(ran.outcomes[0].state, "done")
        self.assertTrue(Order.objects.get(pk=response.json()["order"]).confirmed)
