"""What to type next when a server is not reached, refuses, or does not hand out a job."""

from __future__ import annotations

from presque.client import ClientError, ServerNotReached
from presque.client.answers import Reason

NOT_REACHED = (
    ("certificate has expired", "renew the certificate of the server, which it reads again by itself"),
    ("certificate is not yet valid", "see whether the clocks of both machines are right"),
    ("Hostname mismatch", "name the server in --url as its certificate does"),
    ("IP address mismatch", "name the server in --url as its certificate does"),
    ("CERTIFICATE_VERIFY_FAILED", "name the authority that signed its certificate: PRESQUE_CA=ca.pem"),
    ("WRONG_VERSION_NUMBER", "it does not speak TLS: use http://"),
    ("record layer failure", "it does not speak TLS: use http://"),
    ("ame or service not known", "correct the name in --url"),
    ("timed out", "see whether a firewall is between, or pass --url"),
)
"""What a reason holds -> what to do, where no connection could be made."""
ALERTS = ("ALERT_CERTIFICATE_REQUIRED", "ALERT_UNKNOWN_CA", "ALERT_CERTIFICATE_EXPIRED")
"""What a server of TLS says that wants another certificate of the client, which it may do late."""
SHOW_ANOTHER = (
    "show a certificate that the server accepts: PRESQUE_CERT=client.pem, and PRESQUE_KEY for its key"
)
NO_SERVER = "start one with `presque serve`, or pass --url"
CUT_OFF = "if it happens again, run `presque doctor` where the server runs, and look at its log"
OF_CODE = {
    "token-missing": "give it with --token or PRESQUE_TOKEN; `presque token new` makes one",
    "token-unknown": "it was revoked or belongs to another server; `presque token new` makes one",
    "token-expired": "`presque token new` makes another; --token or PRESQUE_TOKEN takes it",
    "not-allowed": "`presque token list` shows what each may do",
    "store-unavailable": "run `presque doctor` where the server runs: it says why",
    "disk-full": "make room on the disk of the server; `presque doctor` there shows how much is left",
    "store-full": "fetch or purge jobs, or give the store more memory: --maxmemory",
    "internal": "look at the log of the server",
}
OF_REASON = {
    "stopped": "presque start {queue}",
    "no-worker": "presque workers   shows who is there; presque worker MODULE starts one",
    "busy": "presque workers   shows with what; start more",
    "dead": "presque retry {queue} {id}",
    "leased": "presque workers   shows for how long",
    "rate": "presque queues policy {queue}   shows the rate, and changes it",
    "max-leased": "presque queues policy {queue}   shows `max_leased`, and changes it",
    "group-leased": "presque queues policy {queue}   shows `group_leased`, and changes it",
}


def remedy(error: ClientError) -> str:
    """What to do about a refusal, as the end of a sentence; "" if it says so itself."""
    if not isinstance(error, ServerNotReached):
        return OF_CODE.get(error.code, "")
    said = str(error)
    if any(alert in said for alert in ALERTS):
        return SHOW_ANOTHER
    if error.sent:
        return CUT_OFF
    return next((todo for part, todo in NOT_REACHED if part in said), NO_SERVER)


def for_reason(reason: Reason, queue: str, id: str) -> str:
    """The command for a reason why a job does not run; "" if only time helps."""
    return OF_REASON.get(reason["code"], "").format(queue=queue, id=id)
