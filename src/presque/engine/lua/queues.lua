-- The value of a counter a minute ago, from the notes that `write_note` made.
local function a_minute_ago(q, now)
  local seq, processed, failed = q.seq, q.processed, q.failed
  for note in string.gmatch(q.rates, '[^ ]+') do
    local at, s, p, f = string.match(note, '(%d+):(%d+):(%d+):(%d+)')
    if tonumber(at) < now - 60000 then break end
    seq, processed, failed = tonumber(s), tonumber(p), tonumber(f)
  end
  return seq, processed, failed
end

-- stats: the figures of some queues; changes nothing.
--
-- keys   the keys of each queue
-- reply  the names of the figures, position and reason of queues that are spoilt, how many queues were looked at; then
--        for each queue that is not spoilt its position and the figures in that order: how many jobs are in each state,
--        counters, `oldest` (for how many ms the oldest ready job has waited, -1 for none), `started` (1 or 0), and the
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
  local spoilt = {}
  local reply = {names, spoilt, 0}
  reply[3] = each_queue(keys, spoilt, function(q)
    local counts, figures = count_states(q, now), {q.position}
    local oldest = oldest_of_all(q, now, counts.ready)
    local seq, processed, failed = a_minute_ago(q, now)
    for i = 1, states do figures[i + 1] = counts[names[i]] end
    for _, figure in ipairs({
      q.processed, q.failed, q.expired + counts.late, oldest and math.max(0, now - oldest) or -1,
      q.stopped and 0 or 1, q.seq - seq, math.max(0, q.processed - processed), math.max(0, q.failed - failed),
    }) do figures[#figures + 1] = figure end
    reply[#reply + 1] = figures
  end, true)
  return reply
end

-- held: how many jobs some queues hold, in all states; changes nothing.
--
-- keys   of each queue the key of its jobs
-- reply  how many; a key of another type counts for nothing
local function held(keys)
  local jobs = 0
  for _, key in ipairs(keys) do
    local count = redis.pcall('HLEN', key)
    if type(count) == 'number' then jobs = jobs + count end
  end
  return jobs
end

-- holding: which of some queues hold a job with this id; changes nothing.
--
-- keys   of each queue the key of its jobs
-- args   id
-- reply  their positions; a key of another type holds none
local function holding(keys, args)
  local reply = {}
  for position, key in ipairs(keys) do
    if redis.pcall('HEXISTS', key, args[1]) == 1 then reply[#reply + 1] = position end
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
-- args   'stop' or 'start', or 'ask' to change nothing; 'known' to refuse to stop a queue of which nothing is stored
-- reply  1 if the queue is started now, 0 if it is stopped; 'new' if that was refused
local function control(keys, args)
  local q = open(keys, 1)
  if args[1] == 'stop' then
    local refused = refused_new(q, args[2] == 'known')
    if refused then return refused end
    redis.pcall('ZADD', registry_of(q) .. ':stopped', 0, q.name)
    if not q.stopped then redis.call('HSET', q.meta, 'stopped', clock()) end
    touch(q)
    return 0
  end
  if args[1] == 'start' then
    if q.stopped then
      redis.pcall('ZREM', registry_of(q) .. ':stopped', q.name)
      redis.call('HDEL', q.meta, 'stopped')
      wake(q, q.size)
    end
    return 1
  end
  return q.stopped and 0 or 1
end

-- Leave the lists of groups to be deleted a piece at a time (`clear_purged`): rename the key that names the groups, and
-- note its new name. The entries in these lists no longer stand for jobs.
local function leave_to_sweep(q, key, name)
  if redis.call('EXISTS', key) == 0 then return end
  redis.call('RENAME', key, q.purged .. ':' .. q.purges .. ':' .. name)
  redis.call('RPUSH', q.purged, q.purges .. ':' .. name)
end

-- purge: delete jobs of every state, counters, uniq keys and Idempotency-Keys. The name, the policy, the id sequence
-- and whether the queue is stopped stay, so that the id of a purged job is never given to another.
--
-- keys   the keys of the queue
-- reply  how many jobs went
local function purge(keys)
  local q, now = open(keys, 1), clock()
  name_more(q)
  redis.call('LLEN', q.purged)
  leave_history(q, now)
  look_who_watches(q)
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
  redis.call('UNLINK', q.jobs, q.ttl, q.uniq, q.runs, q.memo, q.memo_old, q.idem, q.idem_old, q.fired, q.recurred,
    q.groups, q.moved, unpack(keys_of_states(q)))
  redis.call('UNLINK', unpack(lists))
  redis.call('HDEL', q.meta, 'processed', 'failed', 'expired', 'priorities', 'timed', 'rates', 'leases', 'grouped')
  q.came, q.grown = -q.size, -q.bytes
  happened(q, 'deleted', q.size, NONE)
  touch(q)
  tell_events(q, now)
  return q.size
end

-- forget: delete what is left of a queue. It was purged before, and its name was taken out of the set.
--
-- keys   the keys of the queue
-- reply  1; 0 if a purge left so much that another call has to continue; -1 if jobs came meanwhile: then the queue
--        lives on, and has to be registered again
local function forget_queue(keys)
  local q = open(keys, 1)
  if q.size > 0 then return -1 end
  forget_head(q)  -- its ids will be given out again
  name_more(q)
  if redis.call('LLEN', q.purged) > 0 then
    clear_purged(q)
    return 0
  end
  leave_history(q, clock())
  local lists = {}
  for _, priority in ipairs(priorities_of(q)) do
    add(lists, list_of(q, priority), ring_of(q, priority))
  end
  redis.call('UNLINK', q.meta, q.jobs, q.ttl, q.uniq, q.wake, q.runs, q.memo, q.memo_old, q.idem, q.idem_old,
    q.groups, q.rate, q.fired, q.recurred, q.purged, q.bulk, q.moved, unpack(keys_of_states(q)))
  redis.call('UNLINK', string.sub(q.meta, 1, -5) .. 'turns', unpack(lists))
  redis.pcall('ZREM', registry_of(q) .. ':busy', q.name)
  redis.pcall('ZREM', q.registry .. ':stopped', q.name)
  return 1
end

local LAYOUT = '@LAYOUT@'

-- layout: the layout of the data in this namespace. An empty namespace gets the layout of these functions.
--
-- keys   the set of names, the channel of new names, the number of the layout
-- reply  the number; '1' for data of versions that did not store one
local function layout(keys)
  local found = redis.call('GET', keys[3])
  if found then return found end
  if redis.call('EXISTS', keys[1]) > 0 then return '1' end
  redis.call('SET', keys[3], LAYOUT)
  return LAYOUT
end

-- unregister: take a name out of the set of queues, and tell the servers.
--
-- keys   the set of names, the channel of new names, the number of the layout
-- args   name
-- reply  1, or 0 if it was not there
local function unregister(keys, args)
  local gone = redis.call('ZREM', keys[1], args[1])
  if gone == 1 then redis.call('SPUBLISH', keys[2], '!' .. args[1]) end
  return gone
end

-- register: make queues known before their first job is stored.
--
-- keys   the set of names, the channel of new names, the number of the layout
-- args   names
-- reply  how many of them are new. A namespace with as many queues as it may have takes no more
local function register(keys, args)
  local new, size = 0, redis.call('ZCARD', keys[1])
  local most = tonumber(redis.call('HGET', keys[1] .. ':used', 'queues_most') or math.huge)
  if size == 0 then redis.call('SET', keys[3], LAYOUT) end
  for _, name in ipairs(args) do
    if size + new < most and redis.call('ZADD', keys[1], 0, name) == 1 then
      new = new + 1
      redis.call('SPUBLISH', keys[2], name)
    end
  end
  return new
end

offer('stats', stats, {'no-writes'})
offer('held', held, {'no-writes'})
offer('holding', holding, {'no-writes'})
offer('peek', peek, {'allow-oom'})
offer('control', control, {})
offer('control_known', control, {'allow-oom'})
offer('purge', purge, {'allow-oom'})
offer('forget', forget_queue, {'allow-oom'})
offer('unregister', unregister, {'allow-oom'})
offer('layout', layout, {'allow-oom'})
offer('register', register, {})
