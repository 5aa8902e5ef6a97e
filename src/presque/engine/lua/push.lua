-- Read the options of one push, which engine/pushing.py packs (MessagePack). Only what was asked for is there:
-- `priority`, `delayed` (a moment), `delay` and `ttl` (ms), `key` and `fingerprint` (the Idempotency-Key, and what tells
-- this request from others with it), `stamp` (era and moment of the recurring job `cron` that is pushed, as a text that
-- grows with them), `ahead` (how many ms the clock of its schedule is ahead of the store's), and the extras that are
-- kept in the record: see records.lua. Returns the extras, and what was asked for, with `due`, the score among the
-- scheduled jobs.
local KEPT = {'attempts', 'keep', 'uniq', 'until_done', 'group', 'trace', 'tracestate', 'cron'}
local function read_options(q, packed, now)
  local asked, extras = cmsgpack.unpack(packed), {}
  for _, name in ipairs(KEPT) do extras[name] = asked[name] end
  asked.priority = asked.priority or 5
  local run_at = asked.delayed or now
  -- One more, since `now` was cut to whole milliseconds and nothing may be early.
  if asked.delay and asked.delay > 0 then run_at = now + asked.delay + 1 end
  if run_at > now then
    extras.run_at, extras.named = run_at, asked.delayed and true
    asked.due = asked.delayed and run_at + q.skew or q.clock + asked.delay + 1
  end
  if asked.ttl then extras.expires_at = q.clock + asked.ttl end
  return extras, asked
end

-- Whether a waiting job holds this uniq key. A job whose ttl has run out no longer waits, even before it is swept.
local function held_by_waiting(q, key, now)
  local holder = redis.call('HGET', q.uniq, key)
  if not holder then return false end
  local record = redis.call('HGET', q.jobs, holder)
  local expires_at = record and parse(record).expires_at
  return record and not (expires_at and expires_at <= steady(q, now) and not was_leased(q, holder))
end

local IDEM_MS = 24 * 3600 * 1000

-- What was stored under an Idempotency-Key within the last day: {id, fingerprint, when}, or nil.
local function stored_before(q, key, now)
  local found = redis.call('HGET', q.idem, key) or redis.call('HGET', q.idem_old, key)
  local before = found and cmsgpack.unpack(found)
  return before and now - (before[3] or now) <= IDEM_MS and before or nil
end

-- Remember what was stored under which key. There are two generations, so that each key is kept for at least a day.
local function remember_keys(q, now, entries)
  if #entries == 0 then return end
  if now - q.idem_at > IDEM_MS or now < q.idem_at then
    redis.call('UNLINK', q.idem_old)
    if redis.call('HLEN', q.idem) > 0 then redis.call('RENAME', q.idem, q.idem_old) end
    redis.call('HSET', q.meta, 'more', '1', 'idem_at', now)
  end
  redis.call('HSET', q.idem, unpack(entries))
end

local SET_BACK_MS = 60000  -- as in engine/recurring.py

-- Whether the last moment of a recurring job that was pushed is a reason to refuse this one. It is not if it is of the
-- same era and still in the future: a wrong clock brought it, and the server that pushed it died before noting that.
local function was_pushed(last, asked, now)
  if not last or last < asked.stamp then return false end
  local era, moment = string.match(last, '^(%d+):(%d+)$')
  local same_era = era and string.sub(asked.stamp, 1, #era) == era
  return not (same_era and tonumber(moment) - asked.ahead > now + SET_BACK_MS)
end

-- The extras of a job and what else is asked for. Otherwise nil and the answer: why it is refused, or {id} of the job
-- that an earlier push with its Idempotency-Key stored. `special` has the jobs with options of the same call. Writes
-- nothing, and reads each key that will be written.
local function consider(q, options, now, special)
  local job, asked = read_options(q, options, now)
  if asked.key then
    name_more(q)
    local before = special.idem[asked.key] or stored_before(q, asked.key, now)
    if before then return nil, before[2] == asked.fingerprint and {before[1]} or 'differs' end
  end
  if asked.stamp then
    name_more(q)
    local last = special.fired[asked.cron] or redis.call('HGET', q.fired, asked.cron)
    if was_pushed(last, asked, now) then return nil, {0} end
  end
  local ttl = q.policy and policy_of(q).ttl or 0
  if ttl > 0 and not job.expires_at then job.expires_at = (asked.due or q.clock) + ttl end
  if job.expires_at and asked.due and job.expires_at <= asked.due then return nil, 'late' end
  if job.uniq and (special.uniq[job.uniq] or held_by_waiting(q, job.uniq, now)) then return nil, 'exists' end
  redis.call('LLEN', list_of(q, asked.priority))
  if job.group then
    check_groups(q)
    redis.call('LLEN', list_of(q, asked.priority, job.group))
    redis.call('ZCARD', ring_of(q, asked.priority))
  end
  if job.run_at then redis.call('ZCARD', q.due) end
  if job.expires_at then redis.call('ZCARD', q.ttl) end
  return job, asked
end

local NO_OPTIONS = '\128'  -- an empty map: cmsgpack is not there yet while the library is loaded

-- How many more jobs a queue has room for.
local function room_of(q)
  local most = policy_of(q).max_length
  if most == 0 then return math.huge end
  if not q.leases then check_leases(q) end
  local waiting = redis.call('HLEN', q.jobs)
  for _, state in ipairs(STATES) do
    if not state.waits then waiting = waiting - redis.call('ZCARD', q[state.key]) end
  end
  return most - waiting
end

-- Note where a job with options belongs, for `place_special`.
local function note_special(special, job, asked, seq, now)
  if asked.due then
    special.soonest = math.min(special.soonest or asked.due, asked.due)
    add(special.due, asked.due, padded_number(seq))
  else
    special.lists[#special.lists + 1] = {asked.priority, job.group, seq}
  end
  special.grouped = special.grouped or job.group
  special.priorities = (special.priorities or '') .. (asked.priority == 5 and '' or asked.priority)
  if job.expires_at then add(special.ttl, job.expires_at, padded_number(seq)) end
  if job.uniq then
    special.uniq[job.uniq] = true
    add(special.holds, job.uniq, seq)
  end
  if asked.key then
    special.idem[asked.key] = {seq, asked.fingerprint, now}
    add(special.keys, asked.key, cmsgpack.pack(special.idem[asked.key]))
  end
  if asked.stamp then
    special.fired[asked.cron] = asked.stamp
    add(special.stamps, asked.cron, asked.stamp)
  end
end

-- Put jobs with options where they belong, and the others between them, in the order of the push. Adds to the fields
-- of `meta` that are to be written.
local function place_special(q, now, special, ready, fields)
  local priorities = q.priorities
  for digit in string.gmatch(special.priorities or '', '%d') do
    if not string.find(priorities, digit, 1, true) then priorities = priorities .. digit end
  end
  if priorities ~= q.priorities then add(fields, 'priorities', priorities) end
  q.priorities = priorities
  if special.grouped then begin_groups(q) end
  local collected, of_plain = {}, 1
  for _, one in ipairs(special.lists) do
    while of_plain <= #ready and ready[of_plain] < one[3] do
      collect(q, collected, 5, nil, ready[of_plain])
      of_plain = of_plain + 1
    end
    collect(q, collected, one[1], one[2], one[3])
  end
  for i = of_plain, #ready do collect(q, collected, 5, nil, ready[i]) end
  put_collected(q, collected)
  if #special.due > 0 then redis.call('ZADD', q.due, unpack(special.due)) end
  if #special.ttl > 0 then redis.call('ZADD', q.ttl, unpack(special.ttl)) end
  if #special.holds > 0 then redis.call('HSET', q.uniq, unpack(special.holds)) end
  remember_keys(q, now, special.keys)
  if #special.stamps > 0 then redis.call('HSET', q.fired, unpack(special.stamps)) end
  if #special.due > 0 or #special.ttl > 0 then
    if not q.timed then add(fields, 'timed', '1') end
    add(fields, 'more', '1')
    add(fields, 'clock', q.clock)
    add(fields, 'skew', q.skew)
  end
  local count, soonest = #ready + #special.lists, special.soonest
  if count > 0 or soonest then wake(q, count, soonest and soonest - q.clock) end
end

-- push: put jobs on one queue. Each is stored or refused separately.
--
-- keys   the keys of the queue
-- args   how many failures to count if a job is stored (a push that puts a failed job back says 1), '1' if
--        all are to be stored or none, then for each job its options ('' for none) and its sealed body
-- reply  for each job its id; {id} if an earlier push with its Idempotency-Key stored it; {0} if this or a later moment
--        of its recurring job was pushed before; or a word:
local function push(keys, args)
  local q = open(keys, 1, 'push')
  local now, failures, together = clock(), tonumber(args[1]), args[2] == '1'
  note(q, now)
  steady_clock(q, now)
  local seq, stored, refusals, plain = q.seq, 0, 0, struct.pack('>BBI6', PLAIN, 5, now)
  local reply, records, ready, special, grown = {}, {}, {}, nil, 0
  if #args > 2 * MOST + 2 then return redis.error_reply('ERR too many jobs in one push') end
  local room, default_ttl = math.huge, false
  if q.policy then room, default_ttl = room_of(q), policy_of(q).ttl > 0 end
  local quotas, next_job = quotas_of(q, together), 3
  if not (default_ttl or quotas) and room == math.huge then
    -- The jobs without options at the beginning, mostly all: nothing can be wrong with them.
    while args[next_job] == '' do
      local record = plain .. args[next_job + 1]
      seq, stored, grown, next_job = seq + 1, stored + 1, grown + #record, next_job + 2
      records[2 * stored - 1], records[2 * stored], reply[stored] = seq, record, seq
    end
    if next_job > #args then ready = reply else ready = {unpack(reply)} end
  end

  for i = next_job, #args, 2 do
    local options, job, asked, refused = args[i], nil, nil, nil
    if stored >= room then
      refused = 'full'
    elseif options ~= '' or default_ttl then
      special = special or {lists = {}, due = {}, ttl = {}, holds = {}, keys = {}, uniq = {}, idem = {}, fired = {}, stamps = {}}
      job, asked = consider(q, options == '' and NO_OPTIONS or options, now, special)
      if not job then refused = asked end
    end
    local record
    if not refused then
      record = job and record_of(job, asked.priority, now, args[i + 1]) or plain .. args[i + 1]
      if quotas then refused = refused_by(quotas, #record) end
    end
    if refused then
      if type(refused) == 'string' then refusals = refusals + 1 end
      reply[(i - 1) / 2] = refused
    else
      seq, stored = seq + 1, stored + 1
      records[2 * stored - 1] = seq
      records[2 * stored], grown = record, grown + #record
      if job then note_special(special, job, asked, seq, now) else ready[#ready + 1] = seq end
      reply[(i - 1) / 2] = seq
    end
  end
  if together and refusals > 0 then return reply end

  -- Nothing below can fail: every key was read above as what it is written to here.
  local fields = {}
  if stored > 0 then
    fields = {'seq', seq}
    redis.call('HSET', q.jobs, unpack(records))
    q.came, q.grown = stored, grown
    mark_busy(q)
    if failures > 0 then add(fields, 'failed', q.failed + failures) end
  end
  if special then
    place_special(q, now, special, ready, fields)
  elseif #ready > 0 then
    put_ready(q, 5, nil, ready)
    wake(q, #ready)
  end
  write_meta(q, fields)
  if stored > 0 and q.watched then
    local ids = {}
    for id = q.seq + 1, math.min(seq, q.seq + NAMED) do ids[#ids + 1] = id end
    happened(q, 'pushed', stored, ids)
    tell_events(q, now)
  end
  return reply
end

offer('push', push, {})
