-- Access tokens, namespaces and the audit. They belong to no queue. Their keys are:
--
--   ns:{:access}:tokens  hash  id -> what a token allows, and the SHA-256 of its secret: MessagePack that is never read
--                              here, see engine/access.py
--   ns:{:access}:meta    hash  version, renamed, active: how often the tokens, the namespaces and the active ones were
--                              changed; noted: how many notes there were; seal: a secret that the servers share
--   ns:{:access}:acts    zset  the last notes of what was done, scored by their numbers: '<number> <ms> <JSON>'
--   ns:{:access}:refused zset  the same for what was refused. Anybody can cause refusals, so they must not push out acts
--   ns:{:access}:new     sharded channel: the version, at each change of the tokens or the namespaces
--   ns:{:access}:names   hash  name of a namespace -> what is known of it: MessagePack that is never read here
--   ns:{:access}:active  zset  namespaces in which there may be something to do, scored by when they were last used (ms)
--   ns:{:access}:spent   hash  id -> how many requests were counted, of tokens and namespaces with a rate
--   ns:{:access}:ended   zset  sessions that were ended before their time, '<id of the token>:<session>', scored by until
--                              when they would have been valid (ms)
--
-- In a namespace `ns:name` only the audit is used: tokens and namespaces are kept in `ns`.
--
-- The loops that look after namespaces look at the active ones only. A server marks a namespace as used before it asks
-- anything of it, and again at most every USED_MS while it uses it. A namespace with nothing to do is taken off the set
-- once no server has marked it for IDLE_MS. So a namespace with a push under way is never taken off, and namespaces
-- that nobody uses cost nothing, however many there are.

local function version_of(keys)
  local found = redis.call('HMGET', keys[2], 'version', 'renamed')
  return (found[1] or '0') .. '.' .. (found[2] or '0')
end

local function changed(keys, what)
  redis.call('HINCRBY', keys[2], what, 1)
  redis.call('SPUBLISH', keys[4], version_of(keys))
end

-- access_look: whether there was a change of the tokens or the namespaces.
--
-- keys   of the tokens
-- reply  the version, which is another one after each change, and the seal or ''
local function access_look(keys)
  return {version_of(keys), redis.call('HGET', keys[2], 'seal') or ''}
end

-- access_page: some of the tokens or of the namespaces.
--
-- keys   of the tokens
-- args   'tokens' or 'names', where to go on ('0' to begin), how many about
-- reply  where to go on ('0' at the end), then id, record, … or name, record, …; one may come twice
--
-- What is there from the first call to the last one comes. What changes meanwhile changes the version, too.
local function access_page(keys, args)
  local found = redis.call('HSCAN', args[1] == 'tokens' and keys[1] or keys[5], args[2], 'COUNT', args[3])
  return {found[1], unpack(found[2])}
end

-- access_put: keep a new token.
--
-- args   id, record, how many there may be, the namespace that it is for or '', the seal if there is none yet
-- reply  1; 0 if there are too many, -1 if there is one with this id or no such namespace
local function access_put(keys, args)
  redis.call('HGET', keys[2], 'version')
  if args[4] ~= '' and redis.call('HEXISTS', keys[5], args[4]) == 0 then return -1 end
  if redis.call('HEXISTS', keys[1], args[1]) == 1 then return -1 end
  if redis.call('HLEN', keys[1]) >= tonumber(args[3]) then return 0 end
  redis.call('HSET', keys[1], args[1], args[2])
  redis.call('HSETNX', keys[2], 'seal', args[5])
  changed(keys, 'version')
  return 1
end

-- access_remove: a token is no longer valid.
--
-- args   id
-- reply  1, or 0 if there was none
local function access_remove(keys, args)
  redis.call('HGET', keys[2], 'version')
  redis.call('HLEN', keys[7])
  if redis.call('HDEL', keys[1], args[1]) == 0 then return 0 end
  redis.call('HDEL', keys[7], args[1])
  changed(keys, 'version')
  return 1
end

-- access_end: a session is no longer valid. Those whose time is over are forgotten, and of too many the next to end.
--
-- args   session, until when it would have been valid (ms), how many there may be
-- reply  1
local function access_end(keys, args)
  redis.call('HGET', keys[2], 'version')
  local over = redis.call('ZRANGE', keys[9], '-inf', clock(), 'BYSCORE', 'LIMIT', 0, MOST)
  if #over > 0 then redis.call('ZREM', keys[9], unpack(over)) end
  redis.call('ZADD', keys[9], args[2], args[1])
  local many = math.min(redis.call('ZCARD', keys[9]) - tonumber(args[3]), MOST)
  if many > 0 then redis.call('ZREM', keys[9], unpack(redis.call('ZRANGE', keys[9], 0, many - 1))) end
  changed(keys, 'version')
  return 1
end

-- access_ended: some of the sessions that were ended.
--
-- args   how many to pass over, how many at most
-- reply  the sessions
local function access_ended(keys, args)
  return redis.call('ZRANGE', keys[9], args[1], args[1] + args[2] - 1)
end

-- namespace_put: keep what is known of a namespace.
--
-- args   name, record, how many there may be, the record that it replaces ('' for a new one)
-- reply  1; 0 if there are too many, -1 if it is not as the caller thinks
local function namespace_put(keys, args)
  redis.call('HGET', keys[2], 'version')
  if (redis.call('HGET', keys[5], args[1]) or '') ~= args[4] then return -1 end
  if args[4] == '' and redis.call('HLEN', keys[5]) >= tonumber(args[3]) then return 0 end
  redis.call('HSET', keys[5], args[1], args[2])
  changed(keys, 'renamed')
  return 1
end

-- namespace_remove: forget a namespace, whose data is gone, and its tokens.
--
-- args   name, the record, ids of tokens
-- reply  1, or 0 if it is not as the caller thinks
local function namespace_remove(keys, args)
  redis.call('HGET', keys[2], 'version')
  redis.call('HLEN', keys[1])
  redis.call('ZCARD', keys[6])
  redis.call('HLEN', keys[7])
  if redis.call('HGET', keys[5], args[1]) ~= args[2] then return 0 end
  redis.call('HDEL', keys[5], args[1])
  redis.call('HDEL', keys[7], ':' .. args[1])
  if redis.call('ZREM', keys[6], args[1]) == 1 then redis.call('HINCRBY', keys[2], 'active', 1) end
  for i = 3, #args do
    redis.call('HDEL', keys[1], args[i])
    redis.call('HDEL', keys[7], args[i])
  end
  changed(keys, 'renamed')
  return 1
end

-- namespace_use: mark a namespace as used, see above.
--
-- args   name
-- reply  1 if it was not marked before
local function namespace_use(keys, args)
  redis.call('HGET', keys[2], 'active')
  local new = redis.call('ZADD', keys[6], clock(), args[1])
  if new == 1 then redis.call('HINCRBY', keys[2], 'active', 1) end
  return new
end

-- namespaces_active: the namespaces in which there may be something to do, if they have changed.
--
-- args   the number of changes that the caller knows
-- reply  the number of changes, then names, unless it is the one that the caller knows
local function namespaces_active(keys, args)
  local version = redis.call('HGET', keys[2], 'active') or '0'
  local reply = {version}
  if version ~= args[1] then
    for _, name in ipairs(redis.call('ZRANGE', keys[6], 0, -1)) do reply[#reply + 1] = name end
  end
  return reply
end

-- namespace_rest: take a namespace with nothing to do off the set, unless it was used recently.
--
-- args   name, and the ms during which nobody may have used it
-- reply  1 if it was taken off
local function namespace_rest(keys, args)
  redis.call('HGET', keys[2], 'active')
  local used = redis.call('ZSCORE', keys[6], args[1])
  if not used or tonumber(used) > clock() - tonumber(args[2]) then return 0 end
  redis.call('ZREM', keys[6], args[1])
  redis.call('HINCRBY', keys[2], 'active', 1)
  return 1
end

-- access_spend: count requests of tokens and namespaces with a rate, for all servers.
--
-- args   id, how many more, …
-- reply  how many requests each has made in all
local function access_spend(keys, args)
  local reply = {}
  redis.call('HLEN', keys[7])
  for i = 1, #args, 2 do
    if args[i + 1] == '0' then  -- who only looks writes nothing to the store's log
      reply[#reply + 1] = tonumber(redis.call('HGET', keys[7], args[i]) or 0)
    else
      reply[#reply + 1] = redis.call('HINCRBY', keys[7], args[i], args[i + 1])
    end
  end
  return reply
end

-- access_note: write notes into the audit. When there are too many of a kind, the oldest are removed.
--
-- args   how many of a kind may be kept, then for each note '1' if it is of a refusal, '' if not, and the note
-- reply  how many notes there ever were
local function access_note(keys, args)
  local now, most = clock(), tonumber(args[1])
  redis.call('ZCARD', keys[3])
  redis.call('ZCARD', keys[8])
  local noted = redis.call('HINCRBY', keys[2], 'noted', (#args - 1) / 2)
  for i = 2, #args, 2 do
    local number = noted - (#args - 1 - i) / 2
    redis.call('ZADD', args[i] == '1' and keys[8] or keys[3], number, string.format('%.0f %.0f ', number, now) .. args[i + 1])
  end
  for _, key in ipairs({keys[3], keys[8]}) do
    local over = math.min(redis.call('ZCARD', key) - most, MOST)
    if over > 0 then redis.call('ZREM', key, unpack(redis.call('ZRANGE', key, 0, over - 1))) end
  end
  return noted
end

-- access_notes: read the audit, newest first.
--
-- args   the number of the note before which to begin, '' for the newest; how many at most
-- reply  the notes: so many of each kind, one kind after the other
local function access_notes(keys, args)
  local reply, before = {}, args[1] == '' and '+inf' or '(' .. args[1]
  for _, key in ipairs({keys[3], keys[8]}) do
    for _, note in ipairs(redis.call('ZRANGE', key, before, '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, args[2])) do
      reply[#reply + 1] = note
    end
  end
  return reply
end

offer('access_look', access_look, {'no-writes'})
offer('access_page', access_page, {'no-writes'})
offer('access_put', access_put, {})
offer('access_remove', access_remove, {'allow-oom'})
offer('access_end', access_end, {'allow-oom'})
offer('access_ended', access_ended, {'no-writes'})
offer('access_spend', access_spend, {'allow-oom'})
offer('namespace_put', namespace_put, {})
offer('namespace_remove', namespace_remove, {'allow-oom'})
offer('namespace_use', namespace_use, {'allow-oom'})
offer('namespaces_active', namespaces_active, {'no-writes'})
offer('namespace_rest', namespace_rest, {'allow-oom'})
offer('access_note', access_note, {'allow-oom'})
offer('access_notes', access_notes, {'no-writes'})
