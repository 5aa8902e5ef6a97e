-- presque in the store: the data model, and what the functions share.
--
-- Every queue lives under one hash tag, {queue}, so in one slot of a cluster. `ns` is the namespace.
--
--   ns:{queue}:meta   hash  seq         the last id given out; never goes back, not even by a purge
--                           processed   jobs fetched            failed   jobs put back
--                           expired     jobs whose ttl ran out  stopped  since when (ms), if stopped
--                           priorities  which priorities besides 5 were ever used, as digits: '91';
--                                       with a 'v' in it once a job was moved within the queue
--                           timed       '1' while `due` or `ttl` may hold something
--                           leases      '1' once a job was leased: `leased`, `runs` and the rest are in use
--                           leased_ever how many leases were given; the number in each token
--                           clock, skew see `lease_clock`
--                           memo_at     since when `memo` is the younger one; idem_at the same for `idem`
--                           grouped     '1' once a job with a group was pushed, see ready.lua
--                           rated       how many hand-outs the notes in `rate` stand for
--                           policy      what differs from the defaults, see policy.lua
--                           more        '1' once any of the next ones is used; most queues read none of them
--                           watched     '1' if somebody may want to hear what happens here, see events.lua
--                           rates       snapshots of the counters for the last minute, see `snapshot`
--   ns:{queue}:jobs   hash  id -> record: every job of the queue, in whatever state
--   ns:{queue}:ready  list  ids in the order they are handed out, for priority 5;
--                           ready:9 … ready:1 beside it for the others; ready:9:acme, ready::acme for groups
--   ns:{queue}:due    zset  scheduled jobs: padded id, scored by when they become ready (ms)
--   ns:{queue}:ttl    zset  jobs with a ttl: padded id, scored by when they are dropped (ms)
--   ns:{queue}:uniq   hash  uniq key -> id of the job that holds it
--   ns:{queue}:leased zset  leased jobs: padded id, scored by when the lease ends (ms of the lease clock)
--   ns:{queue}:runs   hash  id -> what happened to a job since it was first leased (MessagePack): see `run_of`
--   ns:{queue}:dead   zset  dead jobs: padded id, scored by when they died (ms)
--   ns:{queue}:done   zset  finished jobs that are kept: padded id, scored by until when (ms)
--   ns:{queue}:memo   hash  what was answered a moment ago, so that a repeated call gets the same answer;
--                           memo:old beside it holds the minute before
--   ns:{queue}:ends   sharded channel: '<id>:<done, dead or deleted>', separated by spaces
--   ns:{queue}:groups hash  group -> how many of its jobs are leased, where any are
--   ns:{queue}:ring   zset  groups with ready jobs of priority 5, scored by whose turn it is; ring:9 … ring:1
--   ns:{queue}:rate   list  '<ms>:<jobs>': what was handed out within the window of the policy `rate`
--   ns:{queue}:idem   hash  Idempotency-Key -> id and fingerprint; idem:old beside it holds the day before
--   ns:{queue}:wake   sharded channel: '<jobs that became ready> <ms until the soonest new scheduled one>'
--   ns:{queue}:events sharded channel: what happened to jobs, see events.lua
--
--   ns:{:queues}      set   the names of all queues (a queue's name cannot begin with a colon)
--   ns:{:queues}:new  sharded channel: the name of a queue that was never seen before
--   ns:{:workers}:…   hashes and a sorted set, see workers.lua
--   ns:{:cron}:…      the recurring jobs, see cron.lua
--
-- A job's state is the key that holds its id: `due` is scheduled; none of the sets is ready. An id in a
-- ready list whose record is gone (expired) means nothing and is skipped when its turn comes: taking it
-- out of the middle of a long list would cost time in proportion to the list.
--
-- A record is what is known of a job, as bytes: a header of 8 (flags, priority, pushed_at as 6), the
-- fields that the flags announce, then the body as it came. 25 bytes of body make 33 of record; see
-- bench/memory.py. replies.py reads the same layout.
--
-- The rules of every function here: read and check everything before the first write, since an error
-- after it keeps the write; read the clock once; bound every loop; never look into a body.

local MOST = 1000          -- jobs that one call may push or hand out
local SWEEP = 500          -- jobs that one call may move because of the time
local LOOK = 64            -- records read at once: bodies may be large, and each is copied to be looked at
local SNAPSHOT_MS = 10000  -- how often the counters are noted for the rates of the last minute
local SNAPSHOTS = 7

local UNIQ, UNTIL_DONE, TTL, RUN_AT, LIMITS, PLACED, GROUP, TRACE = 1, 2, 4, 8, 16, 32, 64, 128

-- The store's clock in milliseconds. Called once by each function and passed on: on Redis 7.0 it moves
-- while a function runs.
local function clock()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- Ids as members of a sorted set, so that equal scores keep the order of the ids.
local function padded(id) return string.format('%015.0f', id) end
local function unpadded(member) return string.format('%.0f', tonumber(member)) end

local KEYS_OF_A_QUEUE = 7
local NONE = {}  -- shared by all queues in whose calls nothing ended

-- The names of the keys that only queues with leases, policies, groups or Idempotency-Keys have. A call declares
-- the keys that every queue has; these are named after the first of them, and lie in the same slot.
local function name_more(q)
  if q.leased then return end
  local prefix = string.sub(q.meta, 1, -5)
  q.leased, q.runs, q.dead, q.done = prefix .. 'leased', prefix .. 'runs', prefix .. 'dead', prefix .. 'done'
  q.memo, q.ends, q.rate, q.idem = prefix .. 'memo', prefix .. 'ends', prefix .. 'rate', prefix .. 'idem'
  q.groups, q.ring = prefix .. 'groups', prefix .. 'ring'
end

-- Read the keys that only queues with leases use. `open` does so once a queue has had one.
local function check_leases(q)
  name_more(q)
  q.in_flight = redis.call('ZCARD', q.leased)
  redis.call('HLEN', q.runs)
  redis.call('ZCARD', q.dead)
  redis.call('ZCARD', q.done)
  redis.call('HLEN', q.memo)
  redis.call('HLEN', q.memo .. ':old')
  redis.call('ZCARD', q.due)
end

-- Read the keys that only queues with groups use. The list of a group is read where it is used.
local function check_groups(q)
  name_more(q)
  redis.call('HLEN', q.groups)
  redis.call('ZCARD', q.ring)
  for digit in string.gmatch(q.priorities, '%d') do redis.call('ZCARD', q.ring .. ':' .. digit) end
end

-- What `meta` says of a queue with `more`.
local function open_more(q)
  name_more(q)
  local meta = redis.call('HMGET', q.meta, 'leases', 'leased_ever', 'clock', 'skew', 'memo_at', 'policy', 'grouped',
    'rated', 'idem_at')
  q.leases, q.leased_ever, q.clock = meta[1], tonumber(meta[2] or 0), tonumber(meta[3] or 0)
  q.skew, q.memo_at, q.policy, q.grouped = tonumber(meta[4] or 0), tonumber(meta[5] or 0), meta[6], meta[7]
  q.rated, q.idem_at = tonumber(meta[8] or 0), tonumber(meta[9] or 0)
  if q.grouped then check_groups(q) end
  if q.policy then redis.call('LLEN', q.rate) end
  if q.leases then check_leases(q) end
end

-- The keys of the queue whose first key is keys[first], and what `meta` says of it. Reads each key that is
-- in use once, so a key of a wrong type is an error here, before anything was written.
local function open(keys, first)
  local meta = redis.call('HMGET', keys[first], 'seq', 'processed', 'failed', 'expired', 'stopped',
    'priorities', 'timed', 'rates', 'more', 'watched')
  local q = {
    -- One constructor: a table that grows field by field is allocated four times over.
    meta = keys[first], jobs = keys[first + 1], ready = keys[first + 2], due = keys[first + 3],
    ttl = keys[first + 4], uniq = keys[first + 5], wake = keys[first + 6],
    seq = tonumber(meta[1] or 0), processed = tonumber(meta[2] or 0), failed = tonumber(meta[3] or 0),
    expired = tonumber(meta[4] or 0), stopped = meta[5], priorities = meta[6] or '', timed = meta[7],
    rates = meta[8] or '', size = redis.call('HLEN', keys[first + 1]), in_flight = 0, ended = NONE,
    leased_ever = 0, clock = 0, skew = 0, memo_at = 0, rated = 0, idem_at = 0,
    leases = false, policy = false, grouped = false, leased = false, runs = false, watched = meta[10],
  }
  redis.call('LLEN', q.ready)
  redis.call('HLEN', q.uniq)
  if q.priorities ~= '' then
    for digit in string.gmatch(q.priorities, '%d') do redis.call('LLEN', q.ready .. ':' .. digit) end
  end
  if q.timed then
    redis.call('ZCARD', q.due)
    redis.call('ZCARD', q.ttl)
  end
  if meta[9] then open_more(q) end
  return q
end

-- The ready list of one priority, and of one group if there is one.
local function list_of(q, priority, group)
  if group then return q.ready .. ':' .. (priority == 5 and '' or priority) .. ':' .. group end
  if priority == 5 then return q.ready end
  return q.ready .. ':' .. priority
end

-- All priorities that this queue has used, the highest first.
local function priorities_of(q)
  local used = {}
  if q.priorities == '' then return {5} end
  for priority = 9, 1, -1 do
    if priority == 5 or string.find(q.priorities, priority, 1, true) then used[#used + 1] = priority end
  end
  return used
end

local function add(list, one, other)
  list[#list + 1] = one
  list[#list + 1] = other
end

-- What the header of a record says of a job beyond its priority and when it was pushed, and at which byte
-- its body begins. Nearly all jobs say nothing, so they share one table: a table for each is a tenth of the
-- time of a fetch.
local NOTHING = {body = 9}
local function parse(record)
  local flags = string.byte(record)
  if flags == 0 then return NOTHING end
  local job, at = {}, 9
  if bit.band(flags, UNIQ) ~= 0 then
    local length = string.byte(record, at)
    job.uniq = string.sub(record, at + 1, at + length)
    job.until_done = bit.band(flags, UNTIL_DONE) ~= 0
    at = at + 1 + length
  end
  if bit.band(flags, TTL) ~= 0 then
    job.expires_at = struct.unpack('>I6', record, at)
    at = at + 6
  end
  if bit.band(flags, RUN_AT) ~= 0 then
    job.run_at = struct.unpack('>I6', record, at)
    at = at + 6
  end
  if bit.band(flags, LIMITS) ~= 0 then
    local attempts, keep = struct.unpack('>I2I4', record, at)
    if attempts > 0 then job.attempts = attempts end
    if keep > 0 then job.keep = keep - 1 end
    at = at + 6
  end
  if bit.band(flags, PLACED) ~= 0 then
    job.place = string.byte(record, at)
    at = at + 1
  end
  if bit.band(flags, GROUP) ~= 0 then
    local length = string.byte(record, at)
    job.group = string.sub(record, at + 1, at + length)
    at = at + 1 + length
  end
  if bit.band(flags, TRACE) ~= 0 then
    local length = string.byte(record, at)
    job.trace = string.sub(record, at + 1, at + length)
    at = at + 1 + length
  end
  job.body = at
  return job
end

-- The record of a job: the counterpart of `parse`.
local function record_of(job, pushed_at, body)
  local flags, parts = 0, {}
  if job.uniq then
    flags = flags + UNIQ + (job.until_done and UNTIL_DONE or 0)
    parts[#parts + 1] = string.char(#job.uniq) .. job.uniq
  end
  if job.expires_at then
    flags = flags + TTL
    parts[#parts + 1] = struct.pack('>I6', job.expires_at)
  end
  if job.run_at then
    flags = flags + RUN_AT
    parts[#parts + 1] = struct.pack('>I6', job.run_at)
  end
  if job.attempts or job.keep then
    flags = flags + LIMITS
    -- Zero means that the policy of the queue decides, so `keep` is stored one too high.
    parts[#parts + 1] = struct.pack('>I2I4', job.attempts or 0, job.keep and job.keep + 1 or 0)
  end
  if job.place then
    flags = flags + PLACED
    parts[#parts + 1] = string.char(job.place)
  end
  if job.group then
    flags = flags + GROUP
    parts[#parts + 1] = string.char(#job.group) .. job.group
  end
  if job.trace then
    flags = flags + TRACE
    parts[#parts + 1] = string.char(#job.trace) .. job.trace
  end
  return struct.pack('>BBI6', flags, job.priority, pushed_at) .. table.concat(parts) .. body
end

-- What stands for a job in a ready list: its id, and once it was moved within the queue (PATCH) also how
-- often, so that what it left behind in another place is known for nothing.
local function entry_of(id, record)
  local place = parse(record).place
  return place and id .. 'v' .. place or id
end

local function priority_of(record) return string.byte(record, 2) end
local function pushed_at_of(record) return (struct.unpack('>I6', record, 3)) end

-- The rates of the last minute come from at most seven notes of the counters, a note being made by the
-- first call that changes a counter 10 s after the note before. So counting costs a busy queue one write
-- in 10 s, and an idle one nothing. Returns the notes to store if a new one is due, nil otherwise.
local function snapshot(q, now)
  local last = tonumber(string.match(q.rates, '^(%d+)') or 0)
  if now >= last and now - last < SNAPSHOT_MS then return nil end
  local notes = {string.format('%.0f:%.0f:%.0f:%.0f', now, q.seq, q.processed, q.failed)}
  for note in string.gmatch(q.rates, '[^ ]+') do
    if #notes == SNAPSHOTS then break end
    notes[#notes + 1] = note
  end
  return table.concat(notes, ' ')
end

-- Write what changed of `meta`: a flat list of fields and values, the rates with them when due.
local function write_meta(q, rates, fields)
  if rates then
    fields[#fields + 1] = 'rates'
    fields[#fields + 1] = rates
  end
  if #fields > 0 then redis.call('HSET', q.meta, unpack(fields)) end
end

-- Go through the records of many jobs, LOOK of them at a time. `visit` gets the id, the record (false if
-- there is none) and the position in `ids`, and may return true to stop.
local function each_record(q, ids, visit)
  for first = 1, #ids, LOOK do
    local last = math.min(first + LOOK - 1, #ids)
    for i, record in ipairs(redis.call('HMGET', q.jobs, unpack(ids, first, last))) do
      if visit(ids[first + i - 1], record, first + i - 1) then return end
    end
  end
end

-- Tell every server that has somebody waiting here. Costs next to nothing when nobody has subscribed.
local function wake(q, ready, due_in)
  redis.call('SPUBLISH', q.wake, ready .. ' ' .. (due_in and string.format('%.0f', due_in) or ''))
end

-- Forget that these jobs held their uniq keys, but only where they still do.
local function release_uniq(q, keys, ids)
  if #keys == 0 then return end
  local holders = redis.call('HMGET', q.uniq, unpack(keys))
  local free = {}
  for i, holder in ipairs(holders) do
    if holder == ids[i] then free[#free + 1] = keys[i] end
  end
  if #free > 0 then redis.call('HDEL', q.uniq, unpack(free)) end
end

-- Take jobs out of the queue for good: record, ttl and uniq key. `ids` are strings, `jobs` what `parse`
-- said of them by position, where it said anything; what lists or sets hold the ids is the caller's affair.
local function forget(q, ids, jobs)
  if #ids == 0 then return end
  local timed, uniq_keys, uniq_ids = {}, {}, {}
  for i, job in pairs(jobs) do
    if job.expires_at then timed[#timed + 1] = padded(ids[i]) end
    if job.uniq then
      uniq_keys[#uniq_keys + 1] = job.uniq
      uniq_ids[#uniq_ids + 1] = ids[i]
    end
  end
  redis.call('HDEL', q.jobs, unpack(ids))
  if q.leases then redis.call('HDEL', q.runs, unpack(ids)) end
  if #timed > 0 then redis.call('ZREM', q.ttl, unpack(timed)) end
  release_uniq(q, uniq_keys, uniq_ids)
end
