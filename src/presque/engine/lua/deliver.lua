-- Delivery to connected listeners: policy `delivery` broadcast and roundrobin.
--
-- ns:{queue}:cast            sharded channel: '<id> <record>', to every server with a listener
-- ns:{queue}:cast:<server>   sharded channel: '<listener> <id> <record>', to the one server of that listener
-- ns:{queue}:turns           zset  '<server>/<listener>', scored by whose turn it is; the lowest is next
--
-- A job enters the ready lists like any other. The wake channel notifies the servers, and the first that calls takes
-- the job and publishes it. Every caller has a listener, and the store has confirmed its subscription, so a published
-- job is received by somebody. A job without listeners stays in its queue.

-- listen: give listeners of one server their turns.
--
-- keys   turns, of one queue
-- args   members of it
-- reply  how many are new
local function listen(keys, args)
  local last = redis.call('ZRANGE', keys[1], -1, -1, 'WITHSCORES')
  local turn, new = tonumber(last[2] or 0), 0
  for i = 1, math.min(#args, MOST) do
    new = new + redis.call('ZADD', keys[1], 'NX', turn + i, args[i])
  end
  return new
end

-- unlisten: a listener has disconnected.
--
-- keys   turns, of one queue
-- args   members of it
-- reply  how many there were
local function unlisten(keys, args) return redis.call('ZREM', keys[1], unpack(args)) end

-- Send a job to the listener whose turn it is. A server that receives nothing has gone, and its listeners with it.
-- Returns false if nobody is left, or after looking at MOST.
local function deal(cast, turns, id, record)
  for _ = 1, MOST do
    local first = redis.call('ZRANGE', turns, 0, 0)[1]
    if not first then return false end
    local server, listener = string.match(first, '^(.*)/(.*)$')
    local heard = redis.call('SPUBLISH', cast .. ':' .. server, listener .. ' ' .. id .. ' ' .. record)
    if heard > 0 then
      local last = redis.call('ZRANGE', turns, -1, -1, 'WITHSCORES')
      redis.call('ZADD', turns, tonumber(last[2]) + 1, first)
      return true
    end
    redis.call('ZREM', turns, first)
  end
  return false
end

-- deliver: take ready jobs of one queue and send each to every listener, or to one in turn.
--
-- keys   the keys of the queue, then cast and turns
-- args   how many jobs at most, how many bytes they may fill, '1' for in turn
-- reply  how many were sent, 1 if another call would find more at once else 0, ms until the next one is due
--        or -1
local function deliver(keys, args)
  local cast, turns = keys[KEYS_OF_A_QUEUE + 1], keys[KEYS_OF_A_QUEUE + 2]
  local own = {unpack(keys, 1, KEYS_OF_A_QUEUE)}
  local q = open(own, 1)
  if args[3] == '1' and redis.call('ZCARD', turns) == 0 then return {0, 0, -1} end
  local found = hand_out({q}, true, {}, clock(), math.min(tonumber(args[1]), MOST), tonumber(args[2]), for_good)
  local ids, records, sent = found[4][2] or {}, found[4][3] or {}, 0
  for i, id in ipairs(ids) do
    if args[3] ~= '1' and redis.call('SPUBLISH', cast, id .. ' ' .. records[i]) > 0 then
      sent = sent + 1
    elseif args[3] == '1' and deal(cast, turns, id, records[i]) then
      sent = sent + 1
    else
      unfetch(own, {id, records[i]})
    end
  end
  return {sent, (sent == #ids and found[1]) or 0, found[3] ~= 0 and found[3][2] or -1}
end

offer('deliver', deliver, {'allow-oom'})
offer('listen', listen, {'allow-oom'})
offer('unlisten', unlisten, {'allow-oom'})
