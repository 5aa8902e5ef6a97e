-- Workers, known by the id they send. All of them live in seven keys:
--
--   ns:{:workers}:queues     hash  id -> the queues it registered for, separated by spaces
--   ns:{:workers}:started    hash  id -> when it was first seen, in ms
--   ns:{:workers}:processed  hash  id -> jobs it fetched
--   ns:{:workers}:failed     hash  id -> jobs it put back
--   ns:{:workers}:seen       zset  id -> when it was last heard of, in ms
--   ns:{:workers}:report     hash  id -> what it last said of itself, JSON that is never read here
--   ns:{:workers}:asked      hash  id -> `quiet` or `stop`, if somebody asked it to be so
--
-- A worker that only sends its id is counted without being listed. One that was not heard of for a week, or
-- for an hour if it used to report, is forgotten, a few at each call: ids made up on the way, and workers
-- that were killed, cost nothing for ever.

local HOUR_MS = 3600 * 1000
local WEEK_MS = 7 * 24 * HOUR_MS

local function hashes_of_workers(w)
  return {w.queues, w.started, w.processed, w.failed, w.report, w.asked}
end

local function open_workers(keys)
  local w = {queues = keys[1], started = keys[2], processed = keys[3], failed = keys[4], seen = keys[5],
    report = keys[6], asked = keys[7]}
  for _, key in ipairs(hashes_of_workers(w)) do redis.call('HLEN', key) end
  redis.call('ZCARD', w.seen)
  return w
end

local function forget_worker(w, id)
  for _, key in ipairs(hashes_of_workers(w)) do redis.call('HDEL', key, id) end
  redis.call('ZREM', w.seen, id)
end

local function hear_of(w, id, now)
  redis.call('HSETNX', w.started, id, now)
  redis.call('ZADD', w.seen, now, id)
  for _, old in ipairs(redis.call('ZRANGEBYSCORE', w.seen, '-inf', now - HOUR_MS, 'LIMIT', 0, 10)) do
    local score = redis.call('ZSCORE', w.seen, old)
    if redis.call('HEXISTS', w.report, old) == 1 or tonumber(score) <= now - WEEK_MS then forget_worker(w, old) end
  end
end

-- worker_register: the worker takes jobs of this queue from now on.
--
-- keys   of the workers
-- args   id, queue
-- reply  1 if it was not registered for any queue before (its counters begin anew), else 0
local function worker_register(keys, args)
  local w, now, id, queue = open_workers(keys), clock(), args[1], args[2]
  local queues = redis.call('HGET', w.queues, id)
  if not queues then forget_worker(w, id) end
  hear_of(w, id, now)
  if not queues then
    redis.call('HSET', w.queues, id, queue)
    return 1
  end
  if not string.find(' ' .. queues .. ' ', ' ' .. queue .. ' ', 1, true) then
    redis.call('HSET', w.queues, id, queues .. ' ' .. queue)
  end
  return 0
end

-- worker_unregister: the worker takes no more jobs of this queue; after its last one it is forgotten.
--
-- keys   of the workers
-- args   id, queue
-- reply  1 if it was registered for the queue, else 0
local function worker_unregister(keys, args)
  local w, id, queue = open_workers(keys), args[1], args[2]
  local queues = redis.call('HGET', w.queues, id)
  if not queues then return 0 end
  local left, found = {}, 0
  for name in string.gmatch(queues, '[^ ]+') do
    if name == queue then found = 1 else left[#left + 1] = name end
  end
  if #left == 0 then forget_worker(w, id) else redis.call('HSET', w.queues, id, table.concat(left, ' ')) end
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

-- worker_list: the registered workers.
--
-- keys   of the workers
-- reply  id, its queues separated by spaces, …
local function worker_list(keys)
  return redis.call('HGETALL', open_workers(keys).queues)
end

-- worker_show: what is known of one worker.
--
-- keys   of the workers
-- args   id
-- reply  started (ms), processed, failed; nothing at all for a worker never heard of
local function worker_show(keys, args)
  local w, id = open_workers(keys), args[1]
  local started = redis.call('HGET', w.started, id)
  if not started then return {} end
  return {started, redis.call('HGET', w.processed, id) or '0', redis.call('HGET', w.failed, id) or '0'}
end

-- worker_report: the worker says what it is doing, and that it takes jobs of some queues.
--
-- keys   of the workers
-- args   id, report, queue, …
-- reply  what it is asked to be: `start`, `quiet` or `stop`
local function worker_report(keys, args)
  local w, now, id = open_workers(keys), clock(), args[1]
  local queues = redis.call('HGET', w.queues, id)
  if not queues then forget_worker(w, id) end
  local known, names = {}, {}
  for name in string.gmatch(queues or '', '[^ ]+') do
    known[name], names[#names + 1] = true, name
  end
  for i = 3, #args do
    if not known[args[i]] then known[args[i]], names[#names + 1] = true, args[i] end
  end
  hear_of(w, id, now)
  redis.call('HSET', w.queues, id, table.concat(names, ' '))
  redis.call('HSET', w.report, id, args[2])
  return redis.call('HGET', w.asked, id) or 'start'
end

-- worker_leave: the worker has ended and is forgotten.
--
-- keys   of the workers
-- args   id
-- reply  1
local function worker_leave(keys, args)
  forget_worker(open_workers(keys), args[1])
  return 1
end

-- worker_tell: ask a worker to be so, the next time that it reports.
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

-- worker_records: all that is known of the workers that are registered, those heard of last first.
--
-- keys   of the workers
-- args   how many at most
-- reply  now, then for each: id, queues, started, seen, processed, failed, asked, report ('' if none)
local function worker_records(keys, args)
  local w, found = open_workers(keys), {clock()}
  local ids = redis.call('ZREVRANGE', w.seen, 0, tonumber(args[1]) - 1, 'WITHSCORES')
  for i = 1, #ids, 2 do
    local id = ids[i]
    local queues = redis.call('HGET', w.queues, id)
    if queues then
      for _, value in ipairs({
        id, queues, redis.call('HGET', w.started, id) or ids[i + 1], ids[i + 1],
        redis.call('HGET', w.processed, id) or '0', redis.call('HGET', w.failed, id) or '0',
        redis.call('HGET', w.asked, id) or 'start', redis.call('HGET', w.report, id) or '',
      }) do found[#found + 1] = value end
    end
  end
  return found
end

offer('worker_register', worker_register, {})
offer('worker_unregister', worker_unregister, {'allow-oom'})
offer('worker_count', worker_count, {'allow-oom'})
offer('worker_list', worker_list, {'no-writes'})
offer('worker_show', worker_show, {'no-writes'})
offer('worker_report', worker_report, {})
offer('worker_leave', worker_leave, {'allow-oom'})
offer('worker_tell', worker_tell, {})
offer('worker_records', worker_records, {'no-writes'})
