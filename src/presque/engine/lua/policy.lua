-- The policy of a queue: the settings that were changed, in the field `policy` of meta, as MessagePack.
-- commands/policies.py checks them and translates the names used outside. Here are the defaults and the units.
local DEFAULTS = {
  lease = 60000,          -- ms
  max_attempts = 5,
  backoff_first = 15000,  -- ms
  backoff_factor = 2,
  backoff_most = 3600000, -- ms
  backoff_jitter = 0.1,
  ttl = 0,                -- ms, 0 for none
  keep = 0,               -- s
  dead_most = 10000,
  max_length = 0,         -- 0 for no limit, here and below
  max_leased = 0,
  rate_count = 0,
  rate_ms = 0,
  group_leased = 0,
  expires = 0,            -- ms, 0 for never
}

local with_defaults = {__index = DEFAULTS}

-- The policy of an open queue.
local function policy_of(q)
  if not q.policy then return DEFAULTS end
  if not q.policy_read then q.policy_read = setmetatable(cmsgpack.unpack(q.policy), with_defaults) end
  return q.policy_read
end
