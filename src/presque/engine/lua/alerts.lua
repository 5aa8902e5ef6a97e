-- The alerts that people asked for, see xmpp/alerts.py. They belong to no queue and are kept in one key:
--
--   ns:{:alerts}:wanted  hash  id -> MessagePack that is never read here

-- alerts_put: keep an alert that somebody asked for.
--
-- keys   of the alerts
-- args   id, value, how many there may be
-- reply  1; 0 if there are too many
local function alerts_put(keys, args)
  local known = redis.call('HEXISTS', keys[1], args[1]) == 1
  if not known and redis.call('HLEN', keys[1]) >= tonumber(args[3]) then return 0 end
  redis.call('HSET', keys[1], args[1], args[2])
  return 1
end

-- alerts_remove: somebody no longer wants this alert.
--
-- args   id
-- reply  1, or 0 if it was not there
local function alerts_remove(keys, args)
  return redis.call('HDEL', keys[1], args[1])
end

-- alerts_all: all alerts.
--
-- reply  id, value, id, …
local function alerts_all(keys)
  return redis.call('HGETALL', keys[1])
end

offer('alerts_put', alerts_put, {})
offer('alerts_remove', alerts_remove, {'allow-oom'})
offer('alerts_all', alerts_all, {'no-writes'})
