"""How much a request may ask for, and how long each text in it may be."""

from __future__ import annotations

HOUR, DAY, YEAR = 3600, 24 * 3600, 365 * 24 * 3600

WAIT_MOST = 60
BATCH, BATCH_MOST = 10, 1000
DELAY_MOST = 10 * YEAR
KEEP_MOST = YEAR
ATTEMPTS_MOST = 1000
KEY_MOST = 255
LEASE_MOST = 12 * HOUR
SETTLE_MOST = 1000
TEXT_MOST = 64 * 1024
ATTEMPT_ID_MOST = 128
PAGE, PAGE_MOST = 100, 500
PEEK, PEEK_MOST = 10, 1000
QUEUES_PAGE = 1000
COUNT_MOST = 1_000_000_000
OVER = "1h"
BYTES_MOST = 1_000_000_000_000_000
ACCEPT_MOST = 4096
RETRY_MOST = RATE_MOST = 1_000_000
STREAM_MOST = DAY
COMMANDS_MOST = 1000
SCHEDULE_MOST, ZONE_MOST = 500, 100
RULES_MOST, RULE_MOST, SOURCES_MOST, NETWORK_MOST, TOKEN_MOST = 64, 140, 16, 50, 4096
PRIORITY, PRIORITY_MOST = 5, 9

FIND_MOST = 1000
TASK_RATE_MOST = 100_000

STATES = ("scheduled", "ready", "leased", "done", "dead")
DELIVERIES = ("queue", "broadcast", "roundrobin")
OUTCOMES = ("done", "dead", "fetched", "expired")
"""How a job of a recurring job can have ended."""
