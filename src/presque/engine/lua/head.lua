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
--                           tokens      how many tokens were given; the number in each of them
--                           clock, skew the steady clock, see below
--                           memo_at     since when `memo` is the younger one; idem_at the same for `idem`
--                           grouped     '1' once a job with a group was pushed, see ready.lua
--                           rated       how many hand-outs the notes in `rate` stand for
--                           policy      what differs from the defaults, see policy.lua
--                           more        '1' once any of the next ones is used; most queues read none of them
--                           watched     '1' if somebody may want to hear what happens here, see events.lua
--                           rates       snapshots of the counters for the last minute, see `snapshot`
--                           purges      how many purges had groups to clear away, see `purged`
--   ns:{queue}:jobs   hash  id -> record: every job of the queue, in whatever state; see records.lua
--   ns:{queue}:ready  list  ids in the order they are handed out, for priority 5;
--                           ready:9 … ready:1 beside it for the others; ready:9:acme, ready::acme for groups
--   ns:{queue}:due    zset  scheduled jobs: padded id, scored by when they become ready (ms of the steady clock)
--   ns:{queue}:ttl    zset  jobs with a ttl: padded id, scored by when they are dropped (ms of the steady clock)
--   ns:{queue}:uniq   hash  uniq key -> id of the job that holds it
--   ns:{queue}:leased zset  leased jobs: padded id, scored by when the lease ends (ms of the steady clock)
--   ns:{queue}:runs   hash  id -> what happened to a job since it was first leased: see runs.lua
--   ns:{queue}:dead   zset  dead jobs: padded id, scored by when they died (ms)
--   ns:{queue}:done   zset  finished jobs that are kept: padded id, scored by until when (ms)
--   ns:{queue}:memo   hash  what was answered a moment ago, so that a repeated call gets the same answer;
--                           memo:old beside it holds the minute before
--   ns:{queue}:ends   sharded channel: '<done, dead or deleted> <ids>' for each way to end, ids with commas
--   ns:{queue}:groups hash  group -> how many of its jobs are leased, where any are
--   ns:{queue}:ring   zset  groups with ready jobs of priority 5, scored by whose turn it is; ring:9 … ring:1
--   ns:{queue}:rate   list  '<ms>:<jobs>': what was handed out within the window of the policy `rate`
--   ns:{queue}:purged list  what is left of purges: '<number>:<priority>' or '<number>:groups', each the end of
--                           the name of a key purged:… that names the groups whose lists are to be deleted
--   ns:{queue}:idem   hash  Idempotency-Key -> id and fingerprint; idem:old beside it holds the day before
--   ns:{queue}:fired  hash  recurring job -> the last of its moments that was pushed here, see engine/crons.py
--   ns:{queue}:wake   sharded channel: '<jobs that became ready> <ms until the soonest new scheduled one>'
--   ns:{queue}:events sharded channel: what happened to jobs, see events.lua
--
--   ns:{:queues}      set   the names of all queues (a queue's name cannot begin with a colon)
--   ns:{:queues}:layout  string  the number of the layout of the data in this namespace, see library.LAYOUT
--   ns:{:queues}:new  sharded channel: the name of a queue that was never seen before; '!' and the name of one that
--                           was forgotten
--   ns:{:workers}:…   hashes and a sorted set, see workers.lua
--   ns:{:cron}:…      the recurring jobs, see cron.lua
--
-- Whatever comes after so much time (the end of a lease, a delay, a ttl, a retry) goes by the steady clock of its
-- queue: the store's, but one that never goes back. When TIME does, the difference is kept as `skew`, so that a
-- lease is neither frozen nor revived, and a delay neither longer nor shorter, because somebody set the clock. A
-- job whose moment was named (`delayed`) has a place in `due`, too, by the skew that there was; `promote` looks
-- whether its moment has come on the wall and otherwise gives it another place.
--
-- A job's state is the key that holds its id, see STATES. An id in a ready list whose record is gone (expired)
-- means nothing and is skipped when its turn comes: taking it out of the middle of a long list would cost time
-- in proportion to the list.
--
-- The rules of every function here: read and check everything before the first write, since an error
-- after it keeps the write; read the clock once; bound every loop; never look into a body.

local MOST = 1000          -- jobs that one call may push or hand out
local SWEEP = 500          -- jobs that one call may move because of the time
local LOOK = 64            -- records read at once: bodies may be large, and each is copied to be looked at
local SNAPSHOT_MS = 10000  -- how often the counters are noted for the rates of the last minute
local SNAPSHOTS = 7

-- The store's clock in milliseconds. Called once by each function and passed on: on Redis 7.0 it moves
-- while a function runs.
local function clock()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- The steady clock of a queue as a function sees it that changes nothing; see `steady_clock`.
local function steady(q, now) return math.max(now + q.skew, q.clock) end

-- Ids as members of a sorted set, so that equal scores keep the order of the ids. An id is a number of at most
-- 15 digits, as text or not.
local ZEROS = '000000000000000'
local function padded(id)
  if type(id) == 'number' then id = string.format('%.0f', id) end
  return string.sub(ZEROS, #id + 1) .. id
end
local function unpadded(member) return string.match(member, '[1-9]%d*') end

-- The states of a job besides `ready`, in which it is when it is in none of them: the sorted set that holds its
-- id, scored by a moment; the field of `meta` without which the set is not in use; what the job is when the
-- moment has come though nobody swept yet, if that changes anything; whether the moment is of the steady clock;
-- and whether the job still waits to be handed out. Whatever asks for the state of a job, lists or counts reads
-- this table; a further state is a further row here, and one in presque/job.py.
local STATES = {
  {name = 'scheduled', key = 'due', used = 'timed', becomes = 'ready', steady = true, waits = true},
  {name = 'leased', key = 'leased', used = 'leases', steady = true},
  {name = 'done', key = 'done', used = 'leases', becomes = 'gone'},
  {name = 'dead', key = 'dead', used = 'leases'},
}

local KEYS_OF_A_QUEUE = 7
local NONE = {}  -- shared by all queues in whose calls nothing ended

-- The names of the keys that only queues with leases, policies, groups or Idempotency-Keys have. A call declares
-- the keys that every queue has; these are named after the first of them, and lie in the same slot.
local function name_more(q)
  if q.leased then return end
  local prefix = string.sub(q.meta, 1, -5)
  q.leased, q.runs, q.dead, q.done = prefix .. 'leased', prefix .. 'runs', prefix .. 'dead', prefix .. 'done'
  q.memo, q.ends, q.rate, q.idem = prefix .. 'memo', prefix .. 'ends', prefix .. 'rate', prefix .. 'idem'
  q.groups, q.ring, q.purged, q.fired = prefix .. 'groups', prefix .. 'ring', prefix .. 'purged', prefix .. 'fired'
end

-- Read the keys that only queues with leases use. `open` does so once a queue has had one.
local function check_leases(q)
  name_more(q)
  q.in_flight = redis.call('ZCARD', q.leased)
  q.noted = redis.call('HLEN', q.runs) > 0
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
  local meta = redis.call('HMGET', q.meta, 'leases', 'tokens', 'clock', 'skew', 'memo_at', 'policy', 'grouped',
    'rated', 'idem_at', 'purges')
  q.leases, q.tokens, q.clock = meta[1], tonumber(meta[2] or 0), tonumber(meta[3] or 0)
  q.skew, q.memo_at, q.policy, q.grouped = tonumber(meta[4] or 0), tonumber(meta[5] or 0), meta[6], meta[7]
  q.rated, q.idem_at, q.purges = tonumber(meta[8] or 0), tonumber(meta[9] or 0), tonumber(meta[10] or 0)
  if q.purges > 0 then q.leftovers = redis.call('LLEN', q.purged) end
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
    tokens = 0, clock = 0, skew = 0, memo_at = 0, rated = 0, idem_at = 0, purges = 0, leftovers = 0,
    leases = false, noted = false, policy = false, grouped = false, leased = false, runs = false, watched = meta[10],
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

-- Every key of a state, whether it is in use or not.
local function keys_of_states(q)
  local keys = {}
  for i, state in ipairs(STATES) do keys[i] = q[state.key] end
  return keys
end

-- How many jobs are in each state, by name.
local function count_states(q, now)
  local counts, rest, clock = {}, redis.call('HLEN', q.jobs), string.format('%.0f', steady(q, now))
  for _, state in ipairs(STATES) do
    local count = 0
    if not q[state.used] then
      count = 0
    elseif state.becomes == 'ready' then
      count = redis.call('ZCOUNT', q[state.key], '(' .. clock, '+inf')
    else
      count = redis.call('ZCARD', q[state.key])
    end
    counts[state.name], rest = count, rest - count
  end
  counts.late = q.timed and redis.call('ZCOUNT', q.ttl, '-inf', clock) or 0
  counts.ready = rest - counts.late
  return counts
end

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

-- Tell every server that has somebody waiting here. Costs next to nothing when nobody has subscribed.
local function wake(q, ready, due_in)
  redis.call('SPUBLISH', q.wake, ready .. ' ' .. (due_in and string.format('%.0f', due_in) or ''))
end

-- Offer a function to the servers. `allow-oom` is on those that free memory or need none, so that a
-- full store can still be drained; `no-writes` lets a replica answer.
local function offer(name, callback, flags)
  redis.register_function{function_name = 'presque_@VERSION@_' .. name, callback = callback, flags = flags}
end
