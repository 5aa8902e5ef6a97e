-- Workers, known by the id they send. All of them live in eight keys:
--
--   ns:{:workers}:queues     zset  '<id> <queue>' for each queue that a worker registered for, all scored 0, so sorted
--                                  by name: an id contains no space. '<id> ' alone is a worker that reports without
--                                  naming a queue, such as one with patterns that match none yet
--   ns:{:workers}:takers     zset  the same as '<queue> <id>', to look up by queue
--   ns:{:workers}:started    hash  id -> when it was first seen, in ms
--   ns:{:workers}:processed  hash  id -> jobs it fetched
--   ns:{:workers}:failed     hash  id -> jobs it put back
--   ns:{:workers}:seen       zset  id -> when it was last heard from, in ms
--   ns:{:workers}:report     hash  id -> what it last said of itself, JSON that is never read here
--   ns:{:workers}:asked      hash  id -> `quiet` or `stop`, if somebody has asked for that
--
-- A worker that only sends its id is counted but not listed. A worker that was not heard from for a week, or for an hour
-- if it used to report, is forgotten; each call forgets a few. So ids that were made up and workers that were killed
-- take no room for long. Beyond WORKERS_MOST workers, those silent for longest are forgotten. Registering for a queue
-- again writes nothing, and a worker may register for QUEUES_MOST queues.

local HOUR_MS = 3600 * 1000
local WEEK_MS = 7 * 24 * HOUR_MS
local WORKERS_MOST = 10000
local QUEUES_MOST = 256

local function hashes_of_workers(w)
  return {w.started, w.processed, w.failed, w.report, w.asked}
end

local function open_workers(keys)
  local w = {queues = keys[1], started = keys[2], processed = keys[3], failed = keys[4], seen = keys[5],
    report = keys[6], asked = keys[7], takers = keys[8]}
  for _, key in ipairs(hashes_of_workers(w)) do redis.call('HLEN', key) end
  for _, key in ipairs({w.seen, w.queues, w.takers}) do redis.call('ZCARD', key) end
  return w
end

-- The second words of up to `most` members of a set whose first word is this one.
local function behind(key, first, most)
  local found = {}
  for _, pair in ipairs(redis.call('ZRANGEBYLEX', key, '(' .. first .. ' ', '(' .. first .. '!', 'LIMIT', 0, most)) do
    found[#found + 1] = string.sub(pair, #first + 2)
  end
  return found
end

local function queues_of(w, id) return behind(w.queues, id, QUEUES_MOST) end

local function is_registered(w, id)
  return #redis.call('ZRANGEBYLEX', w.queues, '[' .. id .. ' ', '(' .. id .. '!', 'LIMIT', 0, 1) > 0
end

local function forget_worker(w, id)
  for _, key in ipairs(hashes_of_workers(w)) do redis.call('HDEL', key, id) end
  redis.call('ZREM', w.seen, id)
  redis.call('ZREM', w.queues, id .. ' ')
  for _, queue in ipairs(queues_of(w, id)) do
    redis.call('ZREM', w.queues, id .. ' ' .. queue)
    redis.call('ZREM', w.takers, queue .. ' ' .. id)
  end
end

local function hear_of(w, id, now)
  redis.call('HSETNX', w.started, id, now)
  redis.call('ZADD', w.seen, now, id)
  for _, old in ipairs(redis.call('ZRANGEBYSCORE', w.seen, '-inf', now - HOUR_MS, 'LIMIT', 0, 10)) do
    local score = redis.call('ZSCORE', w.seen, old)
    if redis.call('HEXISTS', w.report, old) == 1 or tonumber(score) <= now - WEEK_MS then forget_worker(w, old) end
  end
  if redis.call('ZCARD', w.seen) > WORKERS_MOST then forget_worker(w, redis.call('ZRANGE', w.seen, 0, 0)[1]) end
end

-- How many of these queues, from args[first] on, a worker is not registered for; nil if it would have too many.
local function count_new(w, id, args, first)
  local new = 0
  for i = first, #args do
    if not redis.call('ZSCORE', w.queues, id .. ' ' .. args[i]) then new = new + 1 end
  end
  if new == 0 then return 0 end
  local had = redis.call('ZLEXCOUNT', w.queues, '(' .. id .. ' ', '(' .. id .. '!')
  return had + new <= QUEUES_MOST and new or nil
end

local function register_for(w, id, args, first)
  for i = first, #args do
    redis.call('ZADD', w.queues, 0, id .. ' ' .. args[i])
    redis.call('ZADD', w.takers, 0, args[i] .. ' ' .. id)
  end
end

-- worker_register: the worker takes jobs of this queue from now on.
--
-- keys   of the workers
-- args   id, queue
-- reply  1 if it was not registered for any queue before (its counters start at 0), else 0; -1 if it is registered
--        for as many queues as are allowed
local function worker_register(keys, args)
  local w, now, id = open_workers(keys), clock(), args[1]
  if not count_new(w, id, args, 2) then return -1 end
  local known = is_registered(w, id)
  if not known then forget_worker(w, id) end
  hear_of(w, id, now)
  register_for(w, id, args, 2)
  return known and 0 or 1
end

-- worker_unregister: the worker takes no more jobs of this queue; after its last one it is forgotten.
--
-- keys   of the workers
-- args   id, queue
-- reply  1 if it was registered for the queue, else 0
local function worker_unregister(keys, args)
  local w, id, queue = open_workers(keys), args[1], args[2]
  local found = redis.call('ZREM', w.queues, id .. ' ' .. queue)
  redis.call('ZREM', w.takers, queue .. ' ' .. id)
  if found == 1 and #queues_of(w, id) == 0 then forget_worker(w, id) end
  return found
end

-- worker_count: the worker fetched or put back jobs.
--
-- keys   of the workers
-- args   id, how many it processed, how many failed
-- reply  1
local function worker_count(keys, args)
  local w = open_workers(keys)
  hear_of(w, args[1], clock())
  redis.call('HINCRBY', w.processed, args[1], args[2])
  redis.call('HINCRBY', w.failed, args[1], args[3])
  return 1
end

-- worker_list: the ids of the registered workers, in alphabetical order.
--
-- keys   of the workers
-- args   the id behind which to go on, '' for the first; how many at most
-- reply  ids
local function worker_list(keys, args)
  local w, found, after = open_workers(keys), {}, args[1]
  while #found < tonumber(args[2]) do
    local low = after == '' and '-' or '(' .. after .. '!'
    local pair = redis.call('ZRANGEBYLEX', w.queues, low, '+', 'LIMIT', 0, 1)[1]
    if not pair then break end
    after = string.match(pair, '^[^ ]+')
    found[#found + 1] = after
  end
  return found
end

-- worker_takers: the ids of the workers that are registered for a queue.
--
-- keys   of the workers
-- args   queue
-- reply  ids
local function worker_takers(keys, args) return behind(open_workers(keys).takers, args[1], WORKERS_MOST) end

-- worker_show: what is known of one worker.
--
-- keys   of the workers
-- args   id
-- reply  started (ms), processed, failed; nothing at all for a worker never heard from
local function worker_show(keys, args)
  local w, id = open_workers(keys), args[1]
  local started = redis.call('HGET', w.started, id)
  if not started then return {} end
  return {started, redis.call('HGET', w.processed, id) or '0', redis.call('HGET', w.failed, id) or '0'}
end

-- worker_report: the worker reports what it is doing, and that it takes jobs of some queues.
--
-- keys   of the workers
-- args   id, report, queue, …
-- reply  what it is asked to do: `start`, `quiet` or `stop`; '' if it would be registered for too many queues
local function worker_report(keys, args)
  local w, now, id = open_workers(keys), clock(), args[1]
  if not count_new(w, id, args, 3) then return '' end
  if not is_registered(w, id) then forget_worker(w, id) end
  hear_of(w, id, now)
  register_for(w, id, args, 3)
  if not is_registered(w, id) then redis.call('ZADD', w.queues, 0, id .. ' ') end
  redis.call('HSET', w.report, id, args[2])
  return redis.call('HGET', w.asked, id) or 'start'
end

-- worker_leave: forget a worker that has ended.
--
-- keys   of the workers
-- args   id
-- reply  1
local function worker_leave(keys, args)
  forget_worker(open_workers(keys), args[1])
  return 1
end

-- worker_tell: ask a worker to change its state at its next report.
--
-- keys   of the workers
-- args   id, `start`, `quiet` or `stop`
-- reply  1, or 0 if no worker of this id reports
local function worker_tell(keys, args)
  local w, id = open_workers(keys), args[1]
  if redis.call('HEXISTS', w.report, id) == 0 then return 0 end
  if args[2] == 'start' then redis.call('HDEL', w.asked, id) else redis.call('HSET', w.asked, id, args[2]) end
  return 1
end

-- worker_records: everything known about the registered workers, the most recently heard from first.
--
-- keys   of the workers
-- args   how many at most, how many bytes they may fill
-- reply  now, then for each: id, queues, started, seen, processed, failed, asked, report ('' if none)
local function worker_records(keys, args)
  local w, found, bytes = open_workers(keys), {clock()}, tonumber(args[2])
  local ids = redis.call('ZREVRANGE', w.seen, 0, tonumber(args[1]) - 1, 'WITHSCORES')
  for i = 1, #ids, 2 do
    local id = ids[i]
    if bytes <= 0 then break end
    if is_registered(w, id) then
      for _, value in ipairs({
        id, table.concat(queues_of(w, id), ' '), redis.call('HGET', w.started, id) or ids[i + 1], ids[i + 1],
        redis.call('HGET', w.processed, id) or '0', redis.call('HGET', w.failed, id) or '0',
        redis.call('HGET', w.asked, id) or 'start', redis.call('HGET', w.report, id) or '',
      }) do found[#found + 1], bytes = value, bytes - #value end
    end
  end
  return found
end

offer('worker_register', worker_register, {})
offer('worker_unregister', worker_unregister, {'allow-oom'})
offer('worker_count', worker_count, {'allow-oom'})
offer('worker_list', worker_list, {'no-writes'})
offer('worker_takers', worker_takers, {'no-writes'})
offer('worker_show', worker_show, {'no-writes'})
offer('worker_report', worker_report, {})
offer('worker_leave', worker_leave, {'allow-oom'})
offer('worker_tell', worker_tell, {})
offer('worker_records', worker_records, {'no-writes'})
