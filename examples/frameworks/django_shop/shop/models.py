"""What the shop remembers."""

from django.db import models


class Order(models.Model):
    """An order of a customer."""

    to = models.CharField(max_length=100)
    confirmed = models.BooleanField(default=False)
