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
--                           watched     '1' if somebody may be listening to what happens here, see events.lua
--                           rates       notes of the counters for the last minute, see history.lua
--                           passed      how many of `processed` were fetched, and how long jobs waited, packed: see
--                                       history.lua. A queue of before has `fetched` and `waited` in its place
--                           died        jobs that died
--                           ran         the sum of how long jobs ran (ms); w0 … w31 and r0 … r31 count the jobs of
--                                       each class of time that they waited and ran, see history.lua
--                           opened      how the queue was when the open bucket of its history began
--                           counted     what this queue adds to the depth of all queues together
--                           purges      how many purges left lists of groups to delete, see `purged`
--                           busy        '1' while the name is in {:queues}:busy
--                           bytes       how many bytes the records fill, where they are counted, see quotas.lua
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
--   ns:{queue}:purged list  what purges have left to delete: '<number>:<priority>' or '<number>:groups'. Each is the
--                           end of the name of a key purged:…, which names the groups whose lists are to be deleted
--   ns:{queue}:idem   hash  Idempotency-Key -> id, fingerprint and when (ms); idem:old beside it holds the day before
--   ns:{queue}:fired  hash  recurring job -> the last of its moments that was pushed here, see engine/firing.py
--   ns:{queue}:recurred  hash  recurring job -> how the last of its jobs to end ended: a word, when (ms), id, error
--   ns:{queue}:bulk   hash  bulk task -> how far it has come in this queue, see bulk.lua
--   ns:{queue}:moving:… hash  the jobs that a bulk task has taken off this queue and not yet put on the other one
--   ns:{queue}:moved  hash  bulk task -> the last batch of it that was put on this queue
--   ns:{queue}:history:5m   hash  what happened in each of the last 10 s; :1h, :1d and :7d beside it, see history.lua
--   ns:{queue}:wake   sharded channel: '<jobs that became ready> <ms until the soonest new scheduled one>'
--   ns:{queue}:events sharded channel: what happened to jobs, see events.lua
--
--   ns:{:queues}      zset  the names of all queues (a queue's name cannot begin with a colon). All are scored 0, so
--                           they are in alphabetical order and can be read a page at a time
--   ns:{:queues}:busy zset  in the same way, the queues in which the sweep or a taker may find something to do: those
--                           with jobs that are not dead, and those that their policy `expires` will remove. Whatever
--                           looks at all queues reads only these, so a queue that was used once costs nothing. A name
--                           is added with the first job and removed when the sweep finds nothing more: `mark_busy`
--   ns:{:queues}:stopped  zset  in the same way, the queues that are stopped
--   ns:{:queues}:opened, ns:{:queues}:history:…  what happened to all queues together, see history.lua
--   ns:{:queues}:watched  string  '1' while somebody may be listening to the jobs of all queues, see events.lua
--   ns:{:queues}:layout  string  the number of the layout of the data in this namespace, see library.LAYOUT
--   ns:{:queues}:used hash  what a namespace holds and may hold, where that is counted, see quotas.lua; used:open beside
--                           it holds the connections of each server
--   ns:{:queues}:new  sharded channel: the name of a queue that was not known before; '!' and the name of one that
--                           was forgotten
--   ns:{:queues}:wake sharded channel: '<queue> ' and the message of its own channel `wake`; '<queue> 0 ' when its
--                           counts have changed without a job becoming ready
--   ns:{:queues}:events  sharded channel: '<queue> ' and the message of its own channel `events`
--   ns:{:workers}:…   hashes and a sorted set, see workers.lua
--   ns:{:cron}:…      the recurring jobs, see cron.lua
--   ns:{:tasks}:…     the bulk tasks, see tasks.lua
--   ns:{:access}:…    the access tokens, the namespaces and the audit, see access.lua
--   ns:{:alerts}:…    the alerts that people asked for, see alerts.lua
--
-- `ns` is the namespace in the settings. The namespaces made within it share its prefix, as `ns:name`: the keys of the
-- queue mail in the namespace acme begin with ns:acme:{mail}. Their jobs are counted, see quotas.lua.
--
-- Everything that happens after a span of time (the end of a lease, a delay, a ttl, a retry) is timed by the steady
-- clock of its queue: the store's clock, kept from ever going back. When TIME goes back, the difference is kept as
-- `skew`. So setting the clock neither freezes nor revives a lease, and makes no delay longer or shorter. A job with
-- a named moment (`delayed`) has a place in `due` as well, computed with the skew at its push. `promote` checks
-- whether the wall clock has reached its moment, and otherwise gives it another place.
--
-- A job's state is the key that holds its id, see STATES. An id in a ready list whose record is gone (expired) is
-- skipped when its turn comes: taking it out of the middle of a long list would cost time in proportion to the list.
--
-- The rules of every function here: read and check everything before the first write, because an error does not undo
-- the writes before it; read the clock once; bound every loop; never look into a body. While a function runs the store
-- serves nobody else. So each one ends within a few milliseconds, whatever it is asked for and whatever it finds:
-- counts are bounded, and so are bytes (`spare`). A function that stops at its bound says that there is more, and is
-- called again.

local MOST = 1000          -- jobs that one call may push or hand out
local SWEEP = 500          -- entries of an index that one call may look at
local LOOK = 64            -- records read at once: bodies may be large, and each is copied to be looked at
local LOOK_BYTES = 256 * 1024  -- of records that are read at once
local JOBS_A_CALL = 250           -- jobs that one call may move besides those that it is asked for
local BYTES_A_CALL = 1024 * 1024  -- bytes of their records and runs, and of the runs that it rewrites
local SNAPSHOT_MS = 10000  -- how often the counters are noted, for the rates of the last minute and the history
local SNAPSHOTS = 7

-- The store's clock in milliseconds. Called once by each function and passed on: on Redis 7.0 it moves
-- while a function runs. A clock past the year 9999 counts as one that stands still at its end.
local function clock()
  local time = redis.call('TIME')
  return math.min(tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000), 253402300799999)
end

-- The steady clock of a queue, for functions that change nothing; see `steady_clock`.
local function steady(q, now) return math.max(now + q.skew, q.clock) end

-- Ids as members of a sorted set, so that equal scores keep the order of the ids. An id is a number of at most
-- 15 digits, as text.
local ZEROS = {  -- by the length of an id, what stands before it; nothing of Lua's own is there while the library is loaded
  '00000000000000', '0000000000000', '000000000000', '00000000000', '0000000000', '000000000', '00000000', '0000000',
  '000000', '00000', '0000', '000', '00', '0', '',
}
local function padded(id) return ZEROS[#id] .. id end
local function padded_number(id) return padded(string.format('%.0f', id)) end
local function unpadded(member) return string.match(member, '[1-9]%d*') end

-- The states of a job. A job that is in none of them is `ready`. Each row names
--   key      the sorted set that holds the job's id, scored by a moment
--   used     the field of `meta` that is set once the set is in use
--   becomes  the state of the job once the moment has passed, even before a sweep (left out if nothing changes)
--   steady   whether the moment is one of the steady clock
--   waits    whether the job still waits to be handed out
-- Everything that looks up, lists or counts states reads this table. To add a state, add a row here and one in
-- presque/job.py.
local STATES = {
  {name = 'scheduled', key = 'due', used = 'timed', becomes = 'ready', steady = true, waits = true},
  {name = 'leased', key = 'leased', used = 'leases', steady = true},
  {name = 'done', key = 'done', used = 'leases', becomes = 'gone'},
  {name = 'dead', key = 'dead', used = 'leases'},
}

local KEYS_OF_A_QUEUE = 7
local BRACE = 123  -- {
local insiders = {}  -- the queues of the current call whose jobs are counted; `used`: what their namespace held before
-- What the current call may still do: how many `jobs` and `bytes` it may move (`affordable`), how many jobs it may take
-- where groups take `turns`, and how many bytes it may `look` at to find out how old jobs are.
local spare = {}
local NONE = {}  -- an empty table that all share and nobody changes

-- The names of the keys of a queue: what an open queue says of itself that is the same in each call. They are made once
-- for queues that were used lately, since each name costs as much as some reading of the store.
local names_of
do
-- What an open queue says unless it is read or changed in the call. Most queues change none of it.
local UNUSED = {
  in_flight = 0, ended = NONE, tokens = 0, clock = 0, skew = 0, memo_at = 0, rated = 0, idem_at = 0, purges = 0,
  leftovers = 0, leases = false, noted = false, policy = false, grouped = false, leased = false, ran_ms = 0, ran = false,
  told = 0, bytes = 0,
}
local UNUSED_IF_NOT_THERE = {__index = UNUSED}

local NAMED_MOST = 1000
local named, named_count = {}, 0  -- by the key of their meta

function names_of(keys, first)
  local meta = keys[first]
  local names = named[meta]
  if names then return names end
  if named_count == NAMED_MOST then named, named_count = {}, 0 end
  names = {
    meta = meta, jobs = keys[first + 1], ready = keys[first + 2], due = keys[first + 3], ttl = keys[first + 4],
    uniq = keys[first + 5], wake = keys[first + 6], name = false, registry = false, rates_read = false,
  }
  names.names, names.__index = names, names  -- an open queue has them as its metatable
  named[meta], named_count = setmetatable(names, UNUSED_IF_NOT_THERE), named_count + 1
  return names
end

end

-- The names of the keys that only queues with leases, policies, groups or Idempotency-Keys have. A call declares
-- the keys that every queue has. The others are derived from the first of them, and are in the same slot.
local function name_more(q)
  if q.leased then return end
  local n = q.names
  local prefix = string.sub(n.meta, 1, -5)
  n.leased, n.runs, n.dead, n.done = prefix .. 'leased', prefix .. 'runs', prefix .. 'dead', prefix .. 'done'
  n.memo, n.ends, n.rate, n.idem = prefix .. 'memo', prefix .. 'ends', prefix .. 'rate', prefix .. 'idem'
  n.groups, n.ring, n.purged, n.fired = prefix .. 'groups', prefix .. 'ring', prefix .. 'purged', prefix .. 'fired'
  n.recurred, n.memo_old, n.idem_old = prefix .. 'recurred', prefix .. 'memo:old', prefix .. 'idem:old'
  n.bulk, n.moving, n.moved = prefix .. 'bulk', prefix .. 'moving:', prefix .. 'moved'
end

-- Read the keys that only queues with leases use. `open` does so once a queue has had one.
local function check_leases(q)
  name_more(q)
  q.in_flight = redis.call('ZCARD', q.leased)
  q.noted = redis.call('HLEN', q.runs) > 0
  redis.call('ZCARD', q.dead)
  q.finished, q.remembered = redis.call('ZCARD', q.done), redis.call('HLEN', q.memo)
  redis.call('HLEN', q.memo_old)
  redis.call('ZCARD', q.due)
end

-- Read the keys that only queues with groups use. The list of a group is read where it is used.
local function check_groups(q)
  name_more(q)
  redis.call('HLEN', q.groups)
  redis.call('ZCARD', q.ring)
  for digit in string.gmatch(q.priorities, '%d') do redis.call('ZCARD', q.ring .. ':' .. digit) end
end

-- Read the fields of `meta` that only a queue with `more` has.
local function open_more(q)
  name_more(q)
  local meta = redis.call('HMGET', q.meta, 'leases', 'tokens', 'clock', 'skew', 'memo_at', 'policy', 'grouped',
    'rated', 'idem_at', 'purges', 'ran')
  q.leases, q.tokens, q.clock = meta[1], tonumber(meta[2] or 0), tonumber(meta[3] or 0)
  q.skew, q.memo_at = tonumber(meta[4] or 0), tonumber(meta[5] or 0)
  if meta[6] then q.policy = meta[6] end
  if meta[7] then q.grouped = meta[7] end
  if meta[8] then q.rated = tonumber(meta[8]) end
  if meta[9] then q.idem_at = tonumber(meta[9]) end
  if meta[10] then q.purges = tonumber(meta[10]) end
  if meta[11] then q.ran_ms = tonumber(meta[11]) end
  if q.purges > 0 then q.leftovers = redis.call('LLEN', q.purged) end
  if q.grouped then check_groups(q) end
  if q.policy then redis.call('LLEN', q.rate) end
  if q.leases then check_leases(q) end
end

local open, pass
do  -- a library has room for 200 local names at once: those in here end with the block

-- The fields of `meta` that each call reads, and one more if the jobs of the queue are counted. Each costs a hundredth of
-- a fetch.
local FIELDS = {
  'seq', 'processed', 'failed', 'expired', 'stopped', 'priorities', 'timed', 'rates', 'more', 'watched', 'busy', 'passed',
}
local FIELDS_INSIDE = {}
for i = 1, #FIELDS do FIELDS_INSIDE[i] = FIELDS[i] end
FIELDS_INSIDE[#FIELDS + 1] = 'bytes'

-- What the field `passed` says: how many jobs were fetched, how long all waited, and of how many of those that were handed
-- out last the class of time is not counted in w0 … w31 yet, because it is the same for all of them.
local PASSED = '>I7I7BI4'
local function passed_of(q, packed)
  if packed then
    q.fetched, q.waited, q.class, q.alike = struct.unpack(PASSED, packed)
  elseif q.processed > 0 then
    local before = redis.call('HMGET', q.meta, 'fetched', 'waited')
    q.fetched, q.waited = tonumber(before[1] or 0), tonumber(before[2] or 0)
    q.is_of_before = before[1] or before[2]
  end
end

-- Open a queue: the keys from keys[first] on, and its fields of `meta`. Reads each key that is in use once, so a key
-- of a wrong type is an error here, before anything is written. `purpose` leaves out what the caller reads or writes
-- before anything else: 'push' the jobs and uniq, whose size nobody needs then, 'take' the only list of a plain queue.
function open(keys, first, purpose)
  local inside = string.byte(keys[first], string.find(keys[first], ':', 1, true) + 1) ~= BRACE
  local meta = redis.call('HMGET', keys[first], unpack(inside and FIELDS_INSIDE or FIELDS))
  local plain, pushes = not (meta[6] or meta[7] or meta[9]), purpose == 'push'
  -- One constructor: a table that grows field by field is allocated four times over. What is not in it is in UNUSED.
  local q = setmetatable({
    seq = tonumber(meta[1] or 0), processed = tonumber(meta[2] or 0), failed = tonumber(meta[3] or 0),
    expired = tonumber(meta[4] or 0), stopped = meta[5], priorities = meta[6] or '', timed = meta[7],
    rates = meta[8] or '', size = not pushes and redis.call('HLEN', keys[first + 1]), watched = meta[10],
    busy = meta[11], fetched = 0, waited = 0, class = 0, alike = 0, note = false, position = 1, came = 0, grown = 0,
    inside = inside,
  }, names_of(keys, first))
  passed_of(q, meta[12])
  if inside then
    insiders[#insiders + 1], q.bytes = q, tonumber(meta[13] or 0)
  end
  if not (plain and purpose == 'take') then redis.call('LLEN', q.ready) end
  if not pushes then redis.call('HLEN', q.uniq) end
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

-- Add what `passed` holds of this queue to the fields of `meta`.
function pass(q, fields)
  fields[#fields + 1] = 'passed'
  fields[#fields + 1] = struct.pack(PASSED, q.fetched, q.waited, q.class, q.alike)
  if q.is_of_before then redis.call('HDEL', q.meta, 'fetched', 'waited') end
end

end

-- The ready list of one priority, and of one group if there is one.
local function list_of(q, priority, group)
  if group then return q.ready .. ':' .. (priority == 5 and '' or priority) .. ':' .. group end
  if priority == 5 then return q.ready end
  return q.ready .. ':' .. priority
end

local ONLY_5 = {5}

-- All priorities that this queue has used, the highest first.
local function priorities_of(q)
  if q.priorities == '' then return ONLY_5 end
  local used = {}
  for priority = 9, 1, -1 do
    if priority == 5 or string.find(q.priorities, priority, 1, true) then used[#used + 1] = priority end
  end
  return used
end

local function add(list, one, other)
  list[#list + 1] = one
  list[#list + 1] = other
end

-- How many of these jobs, from the first on, the current call may still read and move: at least one in each call.
-- `hash` and `other`, if given, hold what has to be read and written for each.
local function affordable(ids, hash, other)
  for i, id in ipairs(ids) do
    if spare.jobs <= 0 or spare.bytes <= 0 then return i - 1 end
    spare.jobs = spare.jobs - 1
    spare.bytes = spare.bytes - redis.call('HSTRLEN', hash, id) - (other and redis.call('HSTRLEN', other, id) or 0)
  end
  return #ids
end

-- The members of a sorted set whose scores are due, and their ids: as many as the current call may still move, and
-- whether there are more. The lowest first, or the highest first if they are to be the `last` of all.
local function due_members(set, now, hash, other, last)
  local limit = math.max(1, spare.jobs) + 1
  local members = last and redis.call('ZREVRANGEBYSCORE', set, now, '-inf', 'LIMIT', 0, limit)
    or redis.call('ZRANGEBYSCORE', set, '-inf', now, 'LIMIT', 0, limit)
  local ids, some = {}, {}
  for i, member in ipairs(members) do ids[i] = unpadded(member) end
  local count = affordable(ids, hash, other)
  for i = 1, count do some[i] = members[i] end
  for i = count + 1, #ids do ids[i] = nil end
  return some, ids, count < #members
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
  if counts.late > 0 and counts.scheduled > 0 then
    -- After the clock was set back, a job's ttl may end before its named moment: it counts as late, not as scheduled.
    local late = redis.call('ZRANGEBYSCORE', q.ttl, '-inf', clock, 'LIMIT', 0, SWEEP)
    local due, both = redis.call('ZMSCORE', q.due, unpack(late)), 0
    for i = 1, #late do
      if due[i] and tonumber(due[i]) > tonumber(clock) then both = both + 1 end
    end
    counts.scheduled, counts.ready = counts.scheduled - both, counts.ready + both
  end
  return counts
end

-- The key of the set of names. The names of all keys that the queues share begin with it. Sets `q.name` as well.
local function registry_of(q)
  if q.registry then return q.registry end
  local names = q.names
  local at = string.find(names.meta, '{', 1, true)
  names.name, names.registry = string.sub(names.meta, at + 1, -7), string.sub(names.meta, 1, at) .. ':queues}'
  names.wake_all, names.says = names.registry .. ':wake', names.name .. ' '
  return names.registry
end

-- The keys of the queue with this name; `registry` is the key of the set of names.
local function keys_of(registry, name)
  local prefix, keys = string.sub(registry, 1, -10) .. '{' .. name .. '}:', {}
  for i, part in ipairs({'meta', 'jobs', 'ready', 'due', 'ttl', 'uniq', 'wake'}) do keys[i] = prefix .. part end
  return keys
end

-- Notify every server with clients that wait for this queue, by its name or by a pattern. Costs next to nothing when
-- nobody has subscribed.
local COUNTS = {}  -- the numbers from 0 to MOST as texts, each followed by a blank; made when they are needed
local function wake(q, ready, due_in)
  registry_of(q)
  local said = COUNTS[ready]
  if not said then
    said = ready .. ' '
    if ready <= MOST then COUNTS[ready] = said end
  end
  if due_in then said = said .. string.format('%.0f', due_in) end
  redis.call('SPUBLISH', q.wake, said)
  redis.call('SPUBLISH', q.wake_all, q.says .. said)
end

-- Notify those who watch counts that the counts of this queue have changed.
local function touch(q) redis.call('SPUBLISH', registry_of(q) .. ':wake', q.name .. ' 0 ') end

-- Mark this queue as watched if somebody listens to all queues. Called when it begins to hold jobs.
local function look_who_watches(q)
  if q.watched or redis.pcall('EXISTS', registry_of(q) .. ':watched') ~= 1 then return end
  q.watched = '1'
  redis.call('HSET', q.meta, 'watched', '1')
end

-- Mark a queue as busy, so that patterns and the sweep find it. If the index is spoilt no job is lost: the queue stays
-- unmarked until the next call or the sweep marks it.
local function mark_busy(q)
  if q.busy then return end
  if type(redis.pcall('ZADD', registry_of(q) .. ':busy', 0, q.name)) ~= 'number' then return end
  q.busy = '1'
  redis.call('HSET', q.meta, 'busy', '1')
  look_who_watches(q)
end

-- Call `act`, which may fail because a queue is spoilt. If the call has other queues, the spoilt one is passed over, and
-- its position and the error are added to `spoilt`. If it is the only one, the call fails.
local function attempt(alone, spoilt, position, act, ...)
  if alone then return act(...) end
  local fine, wrong = pcall(act, ...)
  if not fine then add(spoilt, position, type(wrong) == 'table' and wrong.err or tostring(wrong)) end
end

-- Open each queue of a call in turn and call `act` with it. If `looks`, stop when the call may look at no more. Returns
-- how many queues were looked at.
local function each_queue(keys, spoilt, act, looks)
  local function open_and_act(first, position)
    local q = open(keys, first)
    q.position = position
    act(q)
  end
  local alone = #keys == KEYS_OF_A_QUEUE
  for first = 1, #keys, KEYS_OF_A_QUEUE do
    local position = (first - 1) / KEYS_OF_A_QUEUE + 1
    if looks and spare.look <= 0 then return position - 1 end
    attempt(alone, spoilt, position, open_and_act, first, position)
  end
  return #keys / KEYS_OF_A_QUEUE
end

-- What the namespace of a queue held before this call (jobs, bytes), and what it may hold (queues, jobs, bytes). Read
-- once in a call; false if it cannot be read.
local function used_of(q)
  if insiders.used == nil then
    local found = redis.pcall('HMGET', registry_of(q) .. ':used', 'jobs', 'bytes', 'queues_most', 'jobs_most', 'bytes_most')
    insiders.used = not found.err and found
  end
  return insiders.used
end

-- Add the jobs and the bytes that a call added or removed to what the namespace holds. It is one write however many
-- queues there are, since every write also goes to disk.
local function add_up()
  local jobs, grown = 0, 0
  for _, q in ipairs(insiders) do
    jobs, grown = jobs + q.came, grown + q.grown
    if q.grown ~= q.told then redis.call('HSET', q.meta, 'bytes', q.bytes + q.grown) end
  end
  local used = (jobs ~= 0 or grown ~= 0) and used_of(insiders[1])
  if not used then return end
  redis.call('HSET', registry_of(insiders[1]) .. ':used', 'jobs', (used[1] or 0) + jobs, 'bytes', (used[2] or 0) + grown)
end

-- Register a function for the servers to call. The flag `allow-oom` is for functions that free memory or need none, so
-- that a full store can still be drained; `no-writes` lets a replica answer.
--
-- After the function, what it did to queues whose jobs are counted is added up: see quotas.lua.
local function offer(name, callback, flags)
  local function counting(keys, args)
    if #insiders > 0 then insiders = {} end
    spare.jobs, spare.bytes, spare.turns, spare.look = JOBS_A_CALL, BYTES_A_CALL, JOBS_A_CALL, 4 * BYTES_A_CALL
    local reply = callback(keys, args)
    if #insiders > 0 then add_up() end
    return reply
  end
  redis.register_function{function_name = 'presque_@VERSION@_' .. name, callback = counting, flags = flags}
end
