-- History: what happened to a queue in each stretch of time, and to all queues together.
--
-- The counters of a queue never go back except by a purge, and what it holds can be counted at any moment. So the only
-- things written for the history while jobs pass through are growing fields of `meta`: `count_waits`, `count_runs`. Jobs
-- that are fetched one after the other mostly waited for about as long. So how many of them did is kept in the field
-- `passed`, which a fetch writes anyway, until one has waited for another time (bench/before.py). The first
-- call that changes something 10 s after the last note makes a note: it measures the queue before the change, and adds
-- the difference from the last measurement to a bucket of each period. `close`, which any server may call, does the
-- same for queues that nobody touches any more. Each difference is counted once, whoever counts it.
--
-- What a queue did since its last note is in no bucket yet. Who asks what all queues did has that added first, for as many
-- queues as there are, in bounded calls of `close`. The field `counted` of `meta` says up to where a queue is added.
--
--   ns:{queue}:history:5m   hash  slot -> bucket, see below; :1h, :1d and :7d beside it for the other periods
--   ns:{:queues}:history:…  the same for all queues together; :all holds everything since the first queue
--   ns:{:queues}:opened     zset  queues whose last bucket is not closed, scored by when what happened to them was last
--                                 added to the history of all queues (ms)
--
-- A bucket is a list (MessagePack), as a measurement is: its number (of a measurement: when it was made, ms), ready,
-- leased, scheduled and dead jobs, since when the oldest ready job waits (ms, 0 for none), pushed, fetched, done,
-- failed, died, expired, ms waited, ms run, and a map of times: 'w<n>' -> how many jobs waited for less than 2^n ms and
-- not less than half of that; 'r<n>' the same of runs. In a bucket of a queue the first five say how it was when
-- the bucket began, and the others what happened in it. In a bucket of all queues together ready, leased, scheduled
-- and dead are by how much they grew.
--
-- The number of a bucket is its beginning divided by its length. Its slot is the number modulo the number of slots. The
-- store expires a hash when all that it holds is too old. presque/periods.py has the same table.
local PERIODS = {
  {name = '5m', ms = SNAPSHOT_MS, most = 30},
  {name = '1h', ms = 60000, most = 60},
  {name = '1d', ms = 900000, most = 96},
  {name = '7d', ms = 7200000, most = 84},
}
local ALL_TIME = {name = 'all', ms = 2 ^ 53, most = 1}
local DEPTH, OLDEST, COUNTERS, TIMES = {2, 3, 4, 5}, 6, {7, 8, 9, 10, 11, 12, 13, 14}, 15
local TIME_FIELDS = {}
for n = 0, TIME_MOST do
  TIME_FIELDS[n + 1], TIME_FIELDS[n + TIME_MOST + 2] = 'w' .. n, 'r' .. n
end

local note, write_note, write_meta, begin, leave_history, count_waits, ran, count_runs, oldest_of_all, look_ahead
do  -- a library has room for 200 local names at once: those in here end with the block

local ALIKE_MOST = 2 ^ 32 - 1

-- The entries of one priority that will be handed out next, from `start` on. With groups: in turn, from the first LOOK
-- groups only, and at most LOOK of each.
function look_ahead(q, priority, start, count)
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

local OF_A_LOOK = 32 * 1024  -- what one look costs besides the records, counted in bytes

-- When the oldest ready job of one priority began to wait, or nil. Looks at 20 ids at most, since ids of dropped jobs
-- may come first. The first job that exists is the oldest, so no more bodies are read; where groups take turns several
-- are read, up to LOOK_BYTES.
local function oldest_of(q, priority)
  local since, bytes = nil, 0
  spare.look = spare.look - OF_A_LOOK
  for _, id in ipairs(ids_of(q, look_ahead(q, priority, 0, 20))) do
    local head, read = head_of(q, id)
    if head then
      local began = head.job.run_at or head.pushed_at
      since, bytes = math.min(since or began, began), bytes + head.size
      spare.look = spare.look - read
      if not q.grouped or bytes >= LOOK_BYTES then break end
    end
  end
  return since
end

-- When the oldest ready job began to wait (ms), or nil. `ready` is the number of ready jobs. Also nil in a call that has
-- already looked at many large jobs of other queues.
function oldest_of_all(q, now, ready)
  local oldest = nil
  if spare.look <= 0 then return nil end
  if q.timed then
    local due = redis.call('ZRANGE', q.due, 0, 0, 'WITHSCORES')
    if due[2] and tonumber(due[2]) <= steady(q, now) then oldest = tonumber(due[2]) - steady(q, now) + now end
  end
  if ready > 0 then
    for _, priority in ipairs(priorities_of(q)) do
      local since = oldest_of(q, priority)
      if since then oldest = math.min(oldest or since, since) end
    end
  end
  return ready > 0 and oldest or nil
end

-- The figures of a queue at this moment; without the oldest job, whose search costs more than the rest, for a history of
-- all queues, which does not have it.
local function measure(q, now, for_all)
  local counts, times = count_states(q, now), {}
  for i, count in ipairs(redis.call('HMGET', q.meta, unpack(TIME_FIELDS))) do
    if count then times[TIME_FIELDS[i]] = tonumber(count) end
  end
  if q.alike > 0 then times['w' .. q.class] = (times['w' .. q.class] or 0) + q.alike end
  local died = tonumber(redis.call('HGET', q.meta, 'died') or 0)
  return {
    now, counts.ready, counts.leased, counts.scheduled, counts.dead,
    for_all and -1 or oldest_of_all(q, now, counts.ready) or 0, q.seq, q.fetched, q.processed - q.fetched, q.failed, died,
    q.expired + counts.late, q.waited, q.ran_ms, times,
  }
end

-- What happened between two measurements, as a bucket without a number; nil if nothing did.
local function between(earlier, later)
  local bucket, changed = {unpack(earlier, 1, OLDEST)}, false
  for _, i in ipairs(COUNTERS) do
    bucket[i] = later[i] - earlier[i]
    changed = changed or bucket[i] ~= 0
  end
  bucket[TIMES] = {}
  for name, count in pairs(later[TIMES]) do
    local more = count - (earlier[TIMES][name] or 0)
    if more ~= 0 then bucket[TIMES][name] = more end
  end
  for _, i in ipairs(DEPTH) do changed = changed or later[i] ~= earlier[i] end
  return changed and bucket or nil
end

-- Add to a bucket what happened later in it. The depths are added only in a bucket of all queues together.
local function grow(bucket, more, together)
  if together then
    for _, i in ipairs(DEPTH) do bucket[i] = bucket[i] + more[i] end
  end
  for _, i in ipairs(COUNTERS) do bucket[i] = bucket[i] + more[i] end
  for name, count in pairs(more[TIMES]) do bucket[TIMES][name] = (bucket[TIMES][name] or 0) + count end
end

-- Add what happened at a moment to a period.
local function keep(prefix, period, at, bucket, together)
  local key, number = prefix .. ':history:' .. period.name, math.floor(at / period.ms)
  local slot = number % period.most
  local packed = redis.call('HGET', key, slot)
  local kept = packed and cmsgpack.unpack(packed)
  if kept and kept[1] == number then grow(kept, bucket, together) else kept = bucket end
  kept[1] = number
  redis.call('HSET', key, slot, cmsgpack.pack(kept))
  if period ~= ALL_TIME and redis.call('PTTL', key) < period.ms * period.most then
    redis.call('PEXPIRE', key, 2 * period.ms * period.most)
  end
end

local function copy(bucket)
  local other, times = {unpack(bucket, 1, TIMES - 1)}, {}
  for name, count in pairs(bucket[TIMES]) do times[name] = count end
  other[TIMES] = times
  return other
end

-- Since when what a queue does is in no bucket, and up to which figures it is in the history of all queues, both as
-- figures. Nothing if the queue was never noted. `counted` is all of the latter if `close` was there last; else it is the
-- depth alone, and the rest is as in `opened`. Without an open bucket, only time can have changed something: jobs become
-- due or expire; then it counts for `now`.
local function added_up_to(q, now)
  local found = redis.call('HMGET', q.meta, 'opened', 'counted')
  local counted = found[2] and cmsgpack.unpack(found[2]) or {0, 0, 0, 0}
  local opened = found[1] and cmsgpack.unpack(found[1])
  if #counted == TIMES then
    if not opened then
      opened = copy(counted)
      opened[1] = now
    end
    return opened, counted
  end
  if not opened then return nil end
  local figures = copy(opened)
  for i, place in ipairs(DEPTH) do figures[place] = counted[i] end
  return opened, figures
end

-- What the history of all queues does not have yet of a queue with these figures, as a bucket; nil if it has everything.
local function missing(counted, figures)
  local more = between(counted, figures)
  if not more then return nil end
  for _, place in ipairs(DEPTH) do more[place] = figures[place] - counted[place] end
  more[OLDEST] = 0
  return more
end

-- Add what happened at a moment to the history of all queues.
local function keep_together(registry, at, more)
  for _, period in ipairs(PERIODS) do keep(registry, period, at, copy(more), true) end
  keep(registry, ALL_TIME, at, more, true)
end

-- Close the bucket that was `opened` with the current figures of the queue.
local function close_own(q, opened, figures)
  if opened[OLDEST] < 0 then opened[OLDEST] = figures[OLDEST] end  -- `close` does not look for it
  local bucket = between(opened, figures)
  if not bucket then return end
  for _, period in ipairs(PERIODS) do keep(string.sub(q.meta, 1, -6), period, opened[1], copy(bucket)) end
end

-- Add what happened up to these figures to the history of the queue, and to that of all queues. The caller stores them as
-- `opened`.
local function close_bucket(q, figures)
  local opened, counted = added_up_to(q, figures[1])
  if not opened then return end
  close_own(q, opened, figures)
  local more = missing(counted, figures)
  redis.call('HSET', q.meta, 'counted', cmsgpack.pack({unpack(figures, 2, 5)}))
  if more then keep_together(registry_of(q), opened[1], more) end
end

-- Whether this moment belongs to another bucket than the last note, or no bucket is open: then `rates` begins with a
-- space. Clocks may go back into the bucket of the last note. What the last note says is read once.
local function is_due(q, now)
  local names = q.names
  if names.rates_read ~= q.rates then
    local last = tonumber(string.match(q.rates, '^(%d+)') or 0)
    names.rates_read, names.began = q.rates, last - last % SNAPSHOT_MS
  end
  return now < names.began or now >= names.began + SNAPSHOT_MS
end

-- Before a call changes something: measure the queue if a note is due. Writes nothing yet.
--
-- The rates of the last minute come from the last seven notes. An idle queue costs nothing.
function note(q, now)
  if not q.note and is_due(q, now) then q.note = measure(q, now) end
end

-- Write the note that is due. If the history cannot be written, no job is lost.
function write_note(q)
  local figures = q.note
  if not figures then return end
  q.note = false
  local notes = {string.format('%.0f:%.0f:%.0f:%.0f', figures[1], figures[7], figures[8] + figures[9], figures[10])}
  for one in string.gmatch(q.rates, '[^ ]+') do
    if #notes == SNAPSHOTS then break end
    notes[#notes + 1] = one
  end
  q.rates = table.concat(notes, ' ')
  pcall(close_bucket, q, figures)
  redis.call('HSET', q.meta, 'rates', q.rates, 'opened', cmsgpack.pack(figures))
  redis.pcall('ZADD', registry_of(q) .. ':opened', figures[1], q.name)
end

-- Make and write the note, for callers that have changed nothing yet and can no longer fail.
function begin(q, now)
  note(q, now)
  write_note(q)
end

-- Write changes to `meta`, a flat list of fields and values, and the note if one is due.
function write_meta(q, fields)
  write_note(q)
  if q.inside and q.grown ~= q.told then
    fields[#fields + 1], fields[#fields + 2] = 'bytes', q.bytes + q.grown
    q.told = q.grown
  end
  if #fields > 0 then redis.call('HSET', q.meta, unpack(fields)) end
end

-- Remove a queue from the history, except for its part in that of all queues. Call it before its counters are deleted.
function leave_history(q, now)
  local figures = measure(q, now)
  pcall(function()
    local opened, counted = added_up_to(q, now)
    if not opened then return end
    local gone = copy(figures)
    for _, place in ipairs(DEPTH) do gone[place] = 0 end
    local more, less = missing(counted, figures), missing(figures, gone)
    if more then keep_together(registry_of(q), opened[1], more) end
    if less then keep_together(registry_of(q), now, less) end
  end)
  for _, period in ipairs(PERIODS) do redis.call('UNLINK', string.sub(q.meta, 1, -5) .. 'history:' .. period.name) end
  redis.call('HDEL', q.meta, 'opened', 'counted', 'died', 'passed', 'waited', 'ran', 'fetched',
    unpack(TIME_FIELDS))
  redis.pcall('ZREM', registry_of(q) .. ':opened', q.name)
end

-- Add the number of jobs in each class of time.
local function count_times(q, letter, counts)
  for n, count in pairs(counts) do redis.call('HINCRBY', q.meta, letter .. n, count) end
end

-- Count how long jobs that are handed out have waited since they first became ready, except those that were leased
-- before; `take_ready` has measured it. `pass` writes the sum, and how many were alike.
function count_waits(q, ready)
  local alike, class = ready.alike, ready.class
  if alike == 0 then return end
  q.waited = q.waited + ready.waited + alike * ready.wait
  if ready.counts then count_times(q, 'w', ready.counts) end
  if class ~= q.class or q.alike + alike > ALIKE_MOST then
    if q.alike > 0 then redis.call('HINCRBY', q.meta, 'w' .. q.class, q.alike) end
    q.class, q.alike = class, 0
  end
  q.alike = q.alike + alike
end

-- Note that a job that was leased has been settled: done, or failed. `count_runs` writes it.
function ran(q, now, run)
  local took, n = run.took, run.class  -- of a run that many jobs share
  if not took then
    took = math.max(0, now - run.at)
    local _, power = math.frexp(took)
    n = math.min(power, TIME_MOST)
    run.took, run.class = took, n
  end
  local counts = q.ran or {}
  q.ran, counts[n], q.ran_ms = counts, (counts[n] or 0) + 1, q.ran_ms + took
end

function count_runs(q)
  if q.ran then count_times(q, 'r', q.ran) end
end

-- close: close the buckets of queues whose time has passed.
--
-- keys   the set of names
-- args   how many queues at most; a moment (ms), or nothing
-- reply  how many were looked at
--
-- With a moment, which `history_of_all` tells, it looks at the queues with an open bucket that have not been added to the
-- history of all queues since then, and adds what they did. A bucket whose time has not passed stays open. Called
-- until there is none left, it leaves out nothing that happened before the moment, whatever happens meanwhile.
local function close(keys, args)
  local now, index = clock(), keys[1] .. ':opened'
  local begins, before = math.floor(now / SNAPSHOT_MS) * SNAPSHOT_MS, tonumber(args[2])
  local over = '(' .. string.format('%.0f', before or begins)
  local names = redis.call('ZRANGEBYSCORE', index, '-inf', over, 'LIMIT', 0, math.min(tonumber(args[1]), SWEEP))
  local added, moments = {}, {}
  for _, name in ipairs(names) do
    local stays = false
    pcall(function()
      local q = open(keys_of(keys[1], name), 1)
      local opened, counted = added_up_to(q, now)
      local figures = measure(q, now, true)
      local more = missing(counted, figures)
      stays = before and opened[1] >= begins
      if stays then
        if more then redis.call('HSET', q.meta, 'counted', cmsgpack.pack(figures)) end
      else
        close_own(q, opened, figures)
        redis.call('HDEL', q.meta, 'opened')
        redis.call('HSET', q.meta, 'counted', cmsgpack.pack(figures), 'rates', ' ' .. q.rates)
      end
      if not more then return end
      local at = math.floor(opened[1] / SNAPSHOT_MS)
      if added[at] then
        grow(added[at], more, true)
      else
        added[at], moments[#moments + 1] = more, opened[1]
      end
    end)
    if stays then
      redis.call('ZADD', index, string.format('%.0f', math.max(now, before)), name)
    else
      redis.call('ZREM', index, name)
    end
  end
  for _, at in ipairs(moments) do keep_together(keys[1], at, added[math.floor(at / SNAPSHOT_MS)]) end
  return #names
end

local function period_of(name)
  for _, period in ipairs(PERIODS) do
    if period.name == name then return period end
  end
  if name == 'all' then return ALL_TIME end
  error(redis.error_reply('ERR there is no period ' .. name))
end

-- history: what happened to some queues; changes nothing.
--
-- keys   the keys of each queue
-- args   the name of a period, or 'all'
-- reply  the moment (ms), position and reason of queues that are spoilt, how many queues were looked at; then for each
--        queue that is not spoilt its position, its current figures, its figures when its open bucket began ('' if none
--        is open), and its buckets; all but the position in MessagePack
local function history(keys, args)
  local now, period, spoilt = clock(), period_of(args[1]), {}
  local reply = {string.format('%.0f', now), spoilt, 0}
  reply[3] = each_queue(keys, spoilt, function(q)
    local key = string.sub(q.meta, 1, -5) .. 'history:' .. period.name
    local buckets = period ~= ALL_TIME and redis.call('HVALS', key) or NONE
    for _, bucket in ipairs(buckets) do spare.look = spare.look - #bucket end
    add(reply, q.position, cmsgpack.pack(measure(q, now)))
    add(reply, redis.call('HGET', q.meta, 'opened') or '', buckets)
  end, true)
  return reply
end

-- history_of_all: what happened to all queues together; changes nothing.
--
-- keys   the set of names
-- args   the name of a period, how many queues with an open bucket to look at
-- reply  the moment (ms), what happened since the first queue, the buckets of the period, and nothing if these queues were
--        all there are, else the moment for `close`; then for each of them its current figures, and those up to which it
--        is in the buckets. All but the moments in MessagePack
local function history_of_all(keys, args)
  local now, period, most = clock(), period_of(args[1]), tonumber(args[2])
  local index = keys[1] .. ':opened'
  local buckets = period ~= ALL_TIME and redis.call('HVALS', keys[1] .. ':history:' .. period.name) or NONE
  local reply = {string.format('%.0f', now), redis.call('HGET', keys[1] .. ':history:all', 0) or '', buckets, ''}
  if redis.call('ZCARD', index) > most then
    local last = redis.call('ZRANGE', index, -1, -1, 'WITHSCORES')  -- ahead of the clock if that went back
    reply[4] = string.format('%.0f', math.max(now, tonumber(last[2])) + 1)
  end
  for _, name in ipairs(most > 0 and redis.call('ZRANGE', index, 0, most - 1) or NONE) do
    pcall(function()
      local q = open(keys_of(keys[1], name), 1)
      local opened, counted = added_up_to(q, now)
      local figures = measure(q, now, true)
      counted[1] = opened[1]
      add(reply, cmsgpack.pack(figures), cmsgpack.pack(counted))
    end)
  end
  return reply
end

offer('close', close, {'allow-oom'})
offer('history', history, {'no-writes'})
offer('history_of_all', history_of_all, {'no-writes'})

end
