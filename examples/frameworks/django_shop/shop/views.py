"""What the shop answers."""

import functools

from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_POST

from shop.models import Order
from shop.tasks import confirm


@require_POST
def place(request: HttpRequest) -> JsonResponse:
    """Take an order. The task is pushed once the row can be seen by others, and not if it is rolled back."""
    with transaction.atomic():
        order = Order.objects.create(to=request.POST["to"])
        transaction.on_commit(functools.partial(confirm.push, order.pk))
    return JsonResponse({"order": order.pk}, status=202)
