-- The entries of one priority that will be handed out next, from `start` on: with groups in turn, and then
-- only those of the first LOOK groups and no further than LOOK each.
local function look_ahead(q, priority, start, count)
  if not q.grouped then return redis.call('LRANGE', list_of(q, priority), start, start + count - 1) end
  local entries, lists = {}, {}
  if start > 0 then return entries end
  for i, group in ipairs(redis.call('ZRANGE', ring_of(q, priority), 0, LOOK - 1)) do
    lists[i] = redis.call('LRANGE', list_for(q, priority, group), 0, math.min(count, LOOK) - 1)
  end
  for turn = 1, LOOK do
    for _, list in ipairs(lists) do
      if #entries < count then entries[#entries + 1] = list[turn] end
    end
  end
  return entries
end

-- When the oldest ready job of one priority began to wait, or nil. Looks at 20 ids at most, since ids of
-- dropped jobs may lie in front.
local function oldest_of(q, priority)
  local ids, since = ids_of(q, look_ahead(q, priority, 0, 20)), nil
  each_record(q, ids, function(_, record)
    local began = record and (parse(record).run_at or pushed_at_of(record))
    since = began and math.min(since or began, began) or since
    return since and not q.grouped
  end)
  return since
end

-- What a counter was a minute ago, from the notes that `snapshot` made.
local function a_minute_ago(q, now)
  local seq, processed, failed = q.seq, q.processed, q.failed
  for note in string.gmatch(q.rates, '[^ ]+') do
    local at, s, p, f = string.match(note, '(%d+):(%d+):(%d+):(%d+)')
    if tonumber(at) < now - 60000 then break end
    seq, processed, failed = tonumber(s), tonumber(p), tonumber(f)
  end
  return seq, processed, failed
end

-- stats: what there is to know about some queues; changes nothing.
--
-- keys   the keys of each queue
-- reply  for each queue: ready, scheduled, leased, done, dead, processed, failed, expired, ms that the oldest ready job has
--        waited (-1 for none), 1 if started else 0, and pushed, processed, failed in the last minute
local function stats(keys)
  local now, reply = clock(), {}
  for first = 1, #keys, KEYS_OF_A_QUEUE do
    local q = open(keys, first)
    local scheduled, late, oldest = 0, 0, nil
    if q.timed then
      scheduled = redis.call('ZCOUNT', q.due, '(' .. now, '+inf')
      late = redis.call('ZCOUNT', q.ttl, '-inf', now)
      local due = redis.call('ZRANGE', q.due, 0, 0, 'WITHSCORES')
      if due[2] and tonumber(due[2]) <= now then oldest = tonumber(due[2]) end
    end
    for _, priority in ipairs(priorities_of(q)) do
      local since = oldest_of(q, priority)
      if since then oldest = math.min(oldest or since, since) end
    end
    local seq, processed, failed = a_minute_ago(q, now)
    local done, dead = 0, 0
    if q.leases then done, dead = redis.call('ZCARD', q.done), redis.call('ZCARD', q.dead) end
    local ready = q.size - scheduled - late - q.in_flight - done - dead
    for _, number in ipairs({
      ready, scheduled, q.in_flight, done, dead, q.processed, q.failed, q.expired + late,
      (oldest and ready > 0) and math.max(0, now - oldest) or -1, q.stopped and 0 or 1,
      q.seq - seq, math.max(0, q.processed - processed), q.failed - failed,
    }) do reply[#reply + 1] = number end
  end
  return reply
end

-- peek: the bodies of the jobs that would be fetched next.
--
-- keys   the keys of the queue
-- args   how many at most, how many bytes they may fill
-- reply  how many jobs are ready, then the records
local function peek(keys, args)
  local q, now = open(keys, 1), clock()
  local count, bytes = math.min(tonumber(args[1]), MOST), tonumber(args[2])
  pass_time(q, now)
  tell_ends(q)
  tell_events(q, now)
  local late, scheduled = redis.call('ZCOUNT', q.ttl, '-inf', now), redis.call('ZCOUNT', q.due, '(' .. now, '+inf')
  local ready = redis.call('HLEN', q.jobs) - late - scheduled
  if q.leases then
    ready = ready - redis.call('ZCARD', q.leased) - redis.call('ZCARD', q.done) - redis.call('ZCARD', q.dead)
  end
  local reply, looked = {ready}, 0
  for _, priority in ipairs(priorities_of(q)) do
    local start = 0
    while #reply <= count and bytes > 0 and looked < 2 * MOST do
      local entries = look_ahead(q, priority, start, count)
      if #entries == 0 then break end
      local ids = ids_of(q, entries)
      each_record(q, ids, function(id, record, i)
        if record and (ids == entries or entry_of(id, record) == entries[i]) then
          reply[#reply + 1] = record
          bytes = bytes - #record
        end
        return #reply > count or bytes <= 0
      end)
      start, looked = start + #ids, looked + #ids
    end
  end
  return reply
end

-- control: stop or start a queue. A stopped one takes pushes and hands out nothing.
--
-- keys   the keys of the queue
-- args   'stop' or 'start', or 'ask' to change nothing
-- reply  1 if the queue is started now, 0 if it is stopped
local function control(keys, args)
  local q = open(keys, 1)
  if args[1] == 'stop' then
    if not q.stopped then redis.call('HSET', q.meta, 'stopped', clock()) end
    return 0
  end
  if args[1] == 'start' then
    if q.stopped then
      redis.call('HDEL', q.meta, 'stopped')
      wake(q, q.size)
    end
    return 1
  end
  return q.stopped and 0 or 1
end

local function unlink_group(q, priority, group)
  if group ~= '' then redis.call('UNLINK', list_of(q, priority, group)) end
end

-- purge: jobs of every state, counters, uniq keys and Idempotency-Keys go; the name, the policy, the id
-- sequence and whether the queue is stopped stay, so that the id of a purged job is never given to another.
--
-- keys   the keys of the queue
-- reply  how many jobs went
local function purge(keys)
  local q = open(keys, 1)
  name_more(q)
  local lists = {}
  for _, priority in ipairs(priorities_of(q)) do
    lists[#lists + 1] = list_of(q, priority)
    if q.grouped then
      local ring = ring_of(q, priority)
      for _, group in ipairs(redis.call('ZRANGE', ring, 0, -1)) do unlink_group(q, priority, group) end
      for _, group in ipairs(redis.call('HKEYS', q.groups)) do unlink_group(q, priority, group) end
      lists[#lists + 1] = ring
    end
  end
  redis.call('UNLINK', q.jobs, q.due, q.ttl, q.uniq, q.leased, q.runs, q.dead, q.done, q.memo,
    q.memo .. ':old', q.groups, q.idem, q.idem .. ':old', unpack(lists))
  redis.call('HDEL', q.meta, 'processed', 'failed', 'expired', 'priorities', 'timed', 'rates', 'leases', 'grouped')
  happened(q, 'deleted', q.size, NONE)
  tell_events(q, clock())
  return q.size
end

-- register: make queues known before their first job is stored.
--
-- keys   the set of names, the channel of new names
-- args   names
-- reply  how many of them are new
local function register(keys, args)
  local new = 0
  for _, name in ipairs(args) do
    if redis.call('SADD', keys[1], name) == 1 then
      new = new + 1
      redis.call('SPUBLISH', keys[2], name)
    end
  end
  return new
end
