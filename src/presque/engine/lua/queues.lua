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

local LOOK_BYTES = 256 * 1024

-- When the oldest ready job of one priority began to wait, or nil. Looks at 20 ids at most, since ids of
-- dropped jobs may lie in front, and copies no more bodies than it must: the first job that is there is the oldest,
-- but where groups take turns; there it stops after LOOK_BYTES.
local function oldest_of(q, priority)
  local since, bytes = nil, 0
  for _, id in ipairs(ids_of(q, look_ahead(q, priority, 0, 20))) do
    local record = redis.call('HGET', q.jobs, id)
    if record then
      local began = parse(record).run_at or pushed_at_of(record)
      since, bytes = math.min(since or began, began), bytes + #record
      if not q.grouped or bytes >= LOOK_BYTES then break end
    end
  end
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
-- reply  the names of the figures, then for each queue the figures in that order: how many jobs are in each state,
--        counters, `oldest` (ms that the oldest ready job has waited, -1 for none), `started` (1 or 0), and the
--        counters of the last minute
local function stats(keys)
  local now = clock()
  local names = {'ready'}
  for _, state in ipairs(STATES) do names[#names + 1] = state.name end
  local states = #names
  for _, name in ipairs({
    'processed', 'failed', 'expired', 'oldest', 'started', 'pushed_last_minute', 'processed_last_minute',
    'failed_last_minute',
  }) do names[#names + 1] = name end
  local reply = {names}
  for first = 1, #keys, KEYS_OF_A_QUEUE do
    local q, oldest = open(keys, first), nil
    local counts, figures = count_states(q, now), {}
    if q.timed then
      local due = redis.call('ZRANGE', q.due, 0, 0, 'WITHSCORES')
      if due[2] and tonumber(due[2]) <= steady(q, now) then oldest = tonumber(due[2]) - steady(q, now) + now end
    end
    if counts.ready > 0 then
      for _, priority in ipairs(priorities_of(q)) do
        local since = oldest_of(q, priority)
        if since then oldest = math.min(oldest or since, since) end
      end
    end
    local seq, processed, failed = a_minute_ago(q, now)
    for i = 1, states do figures[i] = counts[names[i]] end
    for _, figure in ipairs({
      q.processed, q.failed, q.expired + counts.late, (oldest and counts.ready > 0) and math.max(0, now - oldest) or -1,
      q.stopped and 0 or 1, q.seq - seq, math.max(0, q.processed - processed), math.max(0, q.failed - failed),
    }) do figures[#figures + 1] = figure end
    reply[#reply + 1] = figures
  end
  return reply
end

-- peek: the jobs that would be fetched next.
--
-- keys   the keys of the queue
-- args   how many at most, how many bytes they may fill
-- reply  how many jobs are ready, then id and record of each
local function peek(keys, args)
  local q, now = open(keys, 1), clock()
  local count, bytes = math.min(tonumber(args[1]), MOST), tonumber(args[2])
  pass_time(q, now)
  tell_ends(q)
  tell_events(q, now)
  local reply, looked = {count_states(q, now).ready}, 0
  for _, priority in ipairs(priorities_of(q)) do
    local start = 0
    while #reply <= 2 * count and bytes > 0 and looked < 2 * MOST do
      local entries = look_ahead(q, priority, start, count)
      if #entries == 0 then break end
      local ids = ids_of(q, entries)
      each_record(q, ids, function(id, record, i)
        if record and (ids == entries or entry_of(id, parse(record)) == entries[i]) then
          add(reply, id, record)
          bytes = bytes - #record
        end
        return #reply > 2 * count or bytes <= 0
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

-- Let the lists of groups be deleted a piece at a time (`clear_purged`): the key that names the groups gets another
-- name, which is noted. What the lists hold stands for no job any more.
local function leave_to_sweep(q, key, name)
  if redis.call('EXISTS', key) == 0 then return end
  redis.call('RENAME', key, q.purged .. ':' .. q.purges .. ':' .. name)
  redis.call('RPUSH', q.purged, q.purges .. ':' .. name)
end

-- purge: jobs of every state, counters, uniq keys and Idempotency-Keys go; the name, the policy, the id
-- sequence and whether the queue is stopped stay, so that the id of a purged job is never given to another.
--
-- keys   the keys of the queue
-- reply  how many jobs went
local function purge(keys)
  local q = open(keys, 1)
  name_more(q)
  redis.call('LLEN', q.purged)
  local lists, groups = {}, q.grouped
  if groups then
    q.purges = q.purges + 1
    redis.call('HSET', q.meta, 'purges', q.purges)
    leave_to_sweep(q, q.groups, 'groups')
  end
  for _, priority in ipairs(priorities_of(q)) do
    lists[#lists + 1] = list_of(q, priority)
    if groups then leave_to_sweep(q, ring_of(q, priority), priority) end
  end
  redis.call('UNLINK', q.jobs, q.ttl, q.uniq, q.runs, q.memo, q.memo .. ':old', q.idem, q.idem .. ':old', q.fired, q.groups,
    unpack(keys_of_states(q)))
  redis.call('UNLINK', unpack(lists))
  redis.call('HDEL', q.meta, 'processed', 'failed', 'expired', 'priorities', 'timed', 'rates', 'leases', 'grouped')
  happened(q, 'deleted', q.size, NONE)
  tell_events(q, clock())
  return q.size
end

-- forget: let nothing of a queue stay in the store. It has been purged, and its name has been taken out of the set.
--
-- keys   the keys of the queue
-- reply  1; 0 if another call has to go on, since a purge left much behind; -1 if jobs came meanwhile: then the queue
--        lives, and has to be registered again
local function forget_queue(keys)
  local q = open(keys, 1)
  if q.size > 0 then return -1 end
  name_more(q)
  if redis.call('LLEN', q.purged) > 0 then
    clear_purged(q)
    return 0
  end
  local lists = {}
  for _, priority in ipairs(priorities_of(q)) do
    add(lists, list_of(q, priority), ring_of(q, priority))
  end
  redis.call('UNLINK', q.meta, q.jobs, q.ttl, q.uniq, q.wake, q.runs, q.memo, q.memo .. ':old', q.idem, q.idem .. ':old',
    q.groups, q.rate, q.fired, q.purged, unpack(keys_of_states(q)))
  redis.call('UNLINK', string.sub(q.meta, 1, -5) .. 'turns', unpack(lists))
  return 1
end

local LAYOUT = '@LAYOUT@'

-- layout: in which layout the data of this namespace is. An empty one gets that of these functions.
--
-- keys   the set of names, the channel of new names, the number of the layout
-- reply  the number; '1' is what wrote none
local function layout(keys)
  local found = redis.call('GET', keys[3])
  if found then return found end
  if redis.call('SCARD', keys[1]) > 0 then return '1' end
  redis.call('SET', keys[3], LAYOUT)
  return LAYOUT
end

-- unregister: take a name out of the set of queues, and tell the servers.
--
-- keys   the set of names, the channel of new names, the number of the layout
-- args   name
-- reply  1, or 0 if it was not there
local function unregister(keys, args)
  local gone = redis.call('SREM', keys[1], args[1])
  if gone == 1 then redis.call('SPUBLISH', keys[2], '!' .. args[1]) end
  return gone
end

-- register: make queues known before their first job is stored.
--
-- keys   the set of names, the channel of new names, the number of the layout
-- args   names
-- reply  how many of them are new
local function register(keys, args)
  local new = 0
  if redis.call('SCARD', keys[1]) == 0 then redis.call('SET', keys[3], LAYOUT) end
  for _, name in ipairs(args) do
    if redis.call('SADD', keys[1], name) == 1 then
      new = new + 1
      redis.call('SPUBLISH', keys[2], name)
    end
  end
  return new
end

offer('stats', stats, {'no-writes'})
offer('peek', peek, {'allow-oom'})
offer('control', control, {'allow-oom'})
offer('purge', purge, {'allow-oom'})
offer('forget', forget_queue, {'allow-oom'})
offer('unregister', unregister, {'allow-oom'})
offer('layout', layout, {'allow-oom'})
offer('register', register, {})
