-- What happens to jobs, published for listeners.
--
-- ns:{queue}:events  sharded channel: one message for each call that did something, while somebody listens:
--                    '<ms>', then for each kind of thing ' <word> <to how many jobs> <ids>', the first NAMED of
--                    them, with commas. The words are those of GET /events in docs/protocol.md.
--
-- Nearly always nobody listens. Then a queue costs no more than reading one more field of `meta`, `watched`; asking the
-- store in each call who listens would cost another command. A listener sets the field with `watch` after subscribing,
-- and the first message without a receiver removes it. So a server that was killed leaves nothing behind.
--
-- A listener to all queues subscribes to ns:{:queues}:events, where each message begins with the name of its queue. It
-- sets ns:{:queues}:watched with `watch_all`, and then the field in the busy queues. The other queues look for that key
-- when they begin to hold jobs (`mark_busy`), so that nobody has to mark a hundred thousand queues.

local NAMED = 100

-- Note that something happened to `count` jobs; `ids` has at least the first of their ids.
local function happened(q, word, count, ids)
  if not q.watched or count == 0 then return end
  q.events = q.events or {}
  local said = q.events[word]
  if not said then
    said = {count = 0}
    q.events[word], q.events[#q.events + 1] = said, word
  end
  said.count = said.count + count
  for i = 1, math.min(count, #ids, NAMED - #said) do said[#said + 1] = ids[i] end
end

-- The same for one job. Makes no table when nobody listens.
local function happened_to(q, word, id)
  if q.watched then happened(q, word, 1, {id}) end
end

-- Publish what was noted, once everything is done.
local function tell_events(q, now)
  if not q.events then return end
  local parts = {string.format('%.0f', now)}
  for _, word in ipairs(q.events) do
    local said = q.events[word]
    parts[#parts + 1] = ' ' .. word .. ' ' .. said.count .. ' ' .. table.concat(said, ',')
  end
  q.events = nil
  local said = table.concat(parts)
  local heard = redis.call('SPUBLISH', string.sub(q.meta, 1, -5) .. 'events', said)
  local anywhere = redis.call('SPUBLISH', registry_of(q) .. ':events', q.name .. ' ' .. said)
  if anywhere == 0 then redis.call('UNLINK', q.registry .. ':watched') end
  if heard + anywhere == 0 then redis.call('HDEL', q.meta, 'watched') end
end

-- watch: publish what happens to jobs of some queues, for servers that have subscribed to their channels.
--
-- keys   the first key of each queue
-- args   '1' if a queue without any key is just about to get its first job, '0' if it is to stay as it is
-- reply  the moment (ms), then for each queue the last id given out before; -1 if it has no key, or
--        a spoilt one
local function watch(keys, args)
  local reply = {string.format('%.0f', clock())}
  for _, meta in ipairs(keys) do
    local fields = redis.pcall('HLEN', meta)  -- no number if it is spoilt
    local there = type(fields) == 'number' and fields > 0
    reply[#reply + 1] = there and tonumber(redis.call('HGET', meta, 'seq') or 0) or -1
    if there or (args[1] == '1' and fields == 0) then redis.call('HSET', meta, 'watched', '1') end
  end
  return reply
end

-- watch_all: publish what happens to jobs of any queue, for servers that have subscribed to the channel of all.
--
-- keys   the set of names
-- reply  1
local function watch_all(keys)
  redis.call('SET', keys[1] .. ':watched', '1')
  return 1
end

offer('watch', watch, {'allow-oom'})
offer('watch_all', watch_all, {'allow-oom'})
