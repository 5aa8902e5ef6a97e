-- Taking: jobs are handed out for good (fetch, deliver) or for a while (lease). Both go through `hand_out`, which takes
-- an ending: `for_good` forgets the jobs, `hold` keeps them leased until a moment.

local for_good, hand_out, unfetch
do  -- a library has room for 200 local names at once: those in here end with the block

-- The ending of a fetch.
for_good = {word = 'fetched'}

-- How many of `wanted` jobs may be handed out. If none: in how many ms to ask again, or nil if a message will come.
function for_good.room(q, now, wanted)
  if not q.policy then return wanted, nil end
  return rate_room(q, steady_clock(q, now), wanted)
end

-- Finish the jobs that were taken. Adds to the fields of `meta`; returns what the reply says about the jobs.
function for_good.finish(q, now, ready, fields)
  add(fields, 'processed', q.processed + #ready.ids)
  q.fetched = q.fetched + #ready.ids
  count_waits(q, ready)
  pass(q, fields)
  forget(q, ready.ids, ready.special, ready.size, 'fetched', now)
  return 0, 0
end

-- Add what the job at a position has saved to the list of such jobs.
local function with(saved, position, text)
  if saved == 0 then saved = {} end
  add(saved, position, text)
  return saved
end

-- Lease jobs of which each is different. `new` is the run that all begin with. Returns the runs, what the reply says about
-- the jobs and about what they have saved, and in `lost` what they no longer hold: the places in `ttl`, and uniq keys.
local function hold_each(q, ready, new, until_when)
  local runs, held, saved, alike, lost = {}, {new.token}, 0, true, {timed = {}, keys = {}, ids = {}}
  local most, first, n = policy_of(q).max_attempts, {}, 1  -- by priority: the run of a plain job that was never leased
  for i, id in ipairs(ready.ids) do
    local job, earlier, priority = ready.special[i] or NOTHING, ready.runs[i], priority_of(ready.records[i])
    local is_new = job == NOTHING and not earlier
    local packed, attempt = is_new and first[priority], 1
    if not packed then
      local run = earlier and read_run(earlier) or new_run(job, priority)
      run.plain, run.priority, run.attempt = job == NOTHING, priority, run.attempt + 1
      run.token, run.ends, run.ms, run.worker, run.at = new.token, new.ends, new.ms, new.worker, new.at
      run.more.told_again = nil
      if run.more.saved then saved = with(saved, i, run.more.saved) end
      packed, attempt = pack_run(run), run.attempt
      if is_new then first[priority] = packed end
    end
    add(runs, id, packed)
    if job ~= NOTHING then
      if job.expires_at then lost.timed[#lost.timed + 1] = padded(id) end
      if job.uniq and not job.until_done then
        lost.keys[#lost.keys + 1], lost.ids[#lost.ids + 1] = job.uniq, id
      end
      if job.group then redis.call('HINCRBY', q.groups, job.group, 1) end
    end
    held[n + 1], held[n + 2], held[n + 3] = attempt, job.attempts or most, until_when
    alike = alike and attempt == held[2] and held[n + 2] == held[3]
    n = n + 3
  end
  return runs, alike and {new.token, held[2], held[3], until_when} or held, saved, lost
end

-- The ending of a lease: for `ms` (nil for the policy's), by `worker`. The nonce makes the token hard to guess.
local function hold(ms, worker, nonce, attempt_id)
  local ending = {word = 'leased', holds = true}

  function ending.room(q, now, wanted)
    if not q.policy then return wanted, nil end
    local most = policy_of(q).max_leased
    if most > 0 then wanted = math.max(0, math.min(wanted, most - q.in_flight)) end
    if wanted == 0 then return 0, nil end
    return rate_room(q, steady_clock(q, now), wanted)
  end

  function ending.finish(q, now, ready, fields)
    local for_ms = ms or policy_of(q).lease
    local ends, token = steady_clock(q, now) + for_ms, string.format('%.0f-%s', q.tokens + 1, nonce)
    local until_when, ends_text = ends - q.skew, string.format('%.0f', ends)
    local leased, run, lost, saved = {}, new_run(NOTHING, ready.priority), nil, 0
    local runs, held
    run.attempt, run.token, run.ends, run.ms, run.worker, run.at = 1, token, ends, for_ms, worker, now
    if ready.priority and ready.special == NONE and next(ready.runs) == nil then  -- all of them become the same
      local packed = pack_run(run)
      runs, held = {}, {token, 1, policy_of(q).max_attempts, until_when}
      for i, id in ipairs(ready.ids) do runs[2 * i - 1], runs[2 * i] = id, packed end
    else
      runs, held, saved, lost = hold_each(q, ready, run, until_when)
    end
    for i, id in ipairs(ready.ids) do leased[2 * i - 1], leased[2 * i] = ends_text, padded(id) end
    count_waits(q, ready)
    pass(q, fields)
    redis.call('HSET', q.runs, unpack(runs))
    redis.call('ZADD', q.leased, unpack(leased))
    if lost then
      if #lost.timed > 0 then redis.call('ZREM', q.ttl, unpack(lost.timed)) end
      release_uniq(q, lost.keys, lost.ids)
    end
    if not q.leases then add(fields, 'leases', '1') add(fields, 'more', '1') end
    add(fields, 'tokens', q.tokens + 1)
    add(fields, 'clock', q.clock)
    add(fields, 'skew', q.skew)
    wake(q, 0, for_ms)  -- waiters look again when the lease ends
    if attempt_id ~= '' then remember(q, now, {'lease:' .. attempt_id, token .. ' ' .. table.concat(ready.ids, ' ')}) end
    return held, saved
  end

  return ending
end

-- Hand out jobs of some open queues, in the order of the queues: `count` at most, and no more once they fill `bytes`
-- (the first is handed out whatever its size). The reply is
--
--   { 1 if another call would find more at once, else 0,
--     the positions (from 1) of the queues that are stopped,
--     position, ms until its next job is due, … for queues that hand out nothing more now,
--     for each queue with jobs: position; ids; records; for leased jobs the token, then of each job its attempt, how
--     many attempts it has and when the lease ends (once if these are the same for all); and for each job that has
--     saved something its position among them and what it saved,
--     position and reason of queues that are spoilt, which are passed over if there are others }
--
-- What is empty is a 0: a table in a reply costs the store as much as a dozen numbers.
local take_from
function hand_out(queues, alone, spoilt, now, count, bytes, ending)
  local act = {now = now, left = count, bytes = bytes, ending = ending, more = 0, stopped = 0, due = 0, jobs = {}}
  for _, q in ipairs(queues) do
    if act.left <= 0 or act.bytes <= 0 then break end
    attempt(alone, spoilt, q.position, take_from, q, act)
  end
  return {act.more, act.stopped, act.due, act.jobs, #spoilt > 0 and spoilt or 0}
end

-- Hand out jobs of one queue, as part of a call.
function take_from(q, act)
  local now, ending = act.now, act.ending
  if q.stopped then
    if act.stopped == 0 then act.stopped = {} end
    act.stopped[#act.stopped + 1] = q.position
    return
  end
  if q.size > 0 then note(q, now) end
  local _, left, due_in = pass_time(q, now)
  local wanted, free_in = ending.room(q, now, act.left)
  if q.unordered then wanted, act.left = 0, 0 end  -- what comes first is not there yet: the next call goes on
  local ready = take_ready(q, now, wanted, act.bytes, ending.holds)
  local count = #ready.ids
  act.bytes = ready.bytes
  if left or ready.unfinished then act.more = 1 end
  if free_in then due_in = math.min(due_in or free_in, free_in) end
  if due_in then
    if act.due == 0 then act.due = {} end
    add(act.due, q.position, due_in)
  end
  if q.policy then note_rate(q, q.clock, count) end
  local fields = {}
  if #ready.late > 0 then
    add(fields, 'expired', q.expired + #ready.late)
    forget(q, ready.late, ready.late_jobs, nil, 'expired', now)
  end
  if count > 0 then
    local held, saved = ending.finish(q, now, ready, fields)
    local jobs = act.jobs
    add(jobs, q.position, ready.ids)
    add(jobs, ready.records, held)
    jobs[#jobs + 1] = saved
    act.left = act.left - count
  elseif ending.holds and q.in_flight > 0 then
    keep_clock(q)
  end
  if #fields > 0 then write_meta(q, fields) end
  if q.watched then
    happened(q, 'expired', #ready.late, ready.late)
    happened(q, ending.word, count, ready.ids)
  end
  tell_ends(q)
  tell_events(q, now)
end

-- The queues of a call that can be opened, whether the call has one queue only, and what is wrong with the others.
local function open_all(keys, to_lease)
  if #keys == KEYS_OF_A_QUEUE then
    local q = open(keys, 1, 'take')
    if to_lease and not q.leases then check_leases(q) end
    return {q}, true, NONE
  end
  local queues, spoilt = {}, {}
  each_queue(keys, spoilt, function(q)
    if to_lease and not q.leases then check_leases(q) end
    queues[#queues + 1] = q
  end)
  return queues, false, spoilt
end

-- fetch: take jobs off some queues for good.
--
-- keys   the keys of each queue, most preferred first
-- args   how many jobs at most, how many bytes they may fill
-- reply  that of `hand_out`
local function fetch(keys, args)
  local queues, alone, spoilt = open_all(keys)
  return hand_out(queues, alone, spoilt, clock(), math.min(tonumber(args[1]), MOST), tonumber(args[2]), for_good)
end

-- The jobs that an earlier call with this attempt_id leased and that are still held under it, as many as fit into
-- `bytes`, in the form of `hand_out`; nil if there was no such call. From now on one more answer names these jobs, so they
-- go back only when none of the answers could be delivered.
local function leased_before(q, attempt_id, bytes)
  local memo = recall(q, 'lease:' .. attempt_id)
  if not memo then return nil end
  local asked, ids, records, again, saved, token = {}, {}, {}, {}, 0, nil
  for word in string.gmatch(memo, '[^ ]+') do
    if token then asked[#asked + 1] = word else token = word end
  end
  local runs, held = {}, {token}
  each_value(q.runs, asked, function(id, run, i)
    if bytes <= 0 then return true end
    runs[i] = run
    bytes = bytes - weight_of(nil, run, true) - redis.call('HSTRLEN', q.jobs, id)
  end)
  local jobs = jobs_of(q, asked, runs)
  for i, id in ipairs(asked) do
    local run = jobs[id] and read_run(runs[i])
    if run and run.token == token then
      ids[#ids + 1] = id
      if run.more.saved then saved = with(saved, #ids, run.more.saved) end
      add(held, run.attempt, max_attempts(q, jobs[id]))
      held[#held + 1] = ends_of(q, run) - q.skew
      run.more.told_again = (tonumber(run.more.told_again) or 0) + 1
      add(again, id, pack_run(run))
    end
  end
  each_record(q, ids, function(_, record, i) records[i] = record end)
  return ids, records, held, again, saved
end

-- lease: hand out jobs of some queues for a while.
--
-- keys   the keys of each queue, most preferred first
-- args   how many at most, how many bytes they may fill, for how many ms ('' for the policy), who takes them,
--        a nonce, an attempt_id or ''
-- reply  that of `hand_out`
--
-- A repeated call with the same attempt_id and the same queues returns the same jobs, as far as they are still held.
-- So a lost answer loses no lease.
local function lease(keys, args)
  local queues, alone, spoilt = open_all(keys, true)
  local now, attempt_id = clock(), args[6]
  if attempt_id ~= '' then
    local jobs, known = {}, false
    for _, q in ipairs(queues) do
      local ids, records, held, again, saved = leased_before(q, attempt_id, tonumber(args[2]))
      known = known or ids ~= nil
      if ids and #ids > 0 then
        if #again > 0 then redis.call('HSET', q.runs, unpack(again)) end
        add(jobs, q.position, ids)
        add(jobs, records, held)
        jobs[#jobs + 1] = saved
      end
    end
    if known then return {0, 0, 0, jobs, #spoilt > 0 and spoilt or 0} end
  end
  local ending = hold(tonumber(args[3]), args[4], args[5], attempt_id)
  return hand_out(queues, alone, spoilt, now, math.min(tonumber(args[1]), MOST), tonumber(args[2]), ending)
end

-- Put an entry back into a ready list, before the first entry with a higher id, so that jobs that come back one after
-- the other keep their order. Looks at LOOK ids only, since a fetched job stood at the head.
local function insert(list, entry)
  local first, id = redis.call('LRANGE', list, 0, LOOK - 1), tonumber(string.match(entry, '^%d+'))
  for _, other in ipairs(first) do
    if tonumber(string.match(other, '^%d+')) > id then
      redis.call('LINSERT', list, 'BEFORE', other, entry)
      return
    end
  end
  if #first < LOOK then
    redis.call('RPUSH', list, entry)
  else
    redis.call('LINSERT', list, 'AFTER', first[LOOK], entry)
  end
end

-- unfetch: undo the fetch of a job whose client disconnected before it received the job.
--
-- keys   the keys of the queue
-- args   id, record; and a reason if the job must not be handed out again, which makes it a dead job
-- reply  1 if it was put back, 0 if it is there already. If another job holds its uniq key by now, it is put
--        back without the key.
function unfetch(keys, args)
  local q, now, id, record, reason = open(keys, 1), clock(), args[1], args[2], args[3]
  local job, priority = parse(record), priority_of(record)
  if reason and not q.leases then check_leases(q) end
  local list = list_for(q, priority, job.group)
  redis.call('LLEN', list)
  redis.call('ZCARD', q.ttl)
  local held = job.uniq and redis.call('HGET', q.uniq, job.uniq)
  if redis.call('HEXISTS', q.jobs, id) == 1 then return 0 end

  begin(q, now)
  redis.call('HSET', q.jobs, id, record)
  q.came, q.grown = q.came + 1, q.grown + #record
  mark_busy(q)
  local fields = {'processed', math.max(0, q.processed - 1)}
  q.fetched = math.max(0, q.fetched - 1)
  pass(q, fields)
  if reason then
    local fates = new_fates()
    fate_dead(fates, id, NOTHING, new_run(job, priority), now, reason)
    write_fates(q, fates)
    add(fields, 'failed', q.failed + 1)
    add(fields, 'more', '1')
    add(fields, 'leases', '1')
    redis.call('HSET', q.meta, unpack(fields))
    tell_ends(q)
    tell_events(q, now)
    return 1
  end
  insert(list, entry_of(id, job))
  if q.grouped then join_ring(q, priority, job.group or '') end
  if job.expires_at then
    redis.call('ZADD', q.ttl, job.expires_at, padded(id))
    add(fields, 'timed', '1')
    add(fields, 'more', '1')
  end
  if job.uniq and not held then redis.call('HSET', q.uniq, job.uniq, id) end
  -- A purge since the fetch has forgotten which priorities are in use.
  if priority ~= 5 and not string.find(q.priorities, priority, 1, true) then
    add(fields, 'priorities', q.priorities .. priority)
  end
  redis.call('HSET', q.meta, unpack(fields))
  wake(q, 1)
  happened_to(q, 'released', id)
  tell_events(q, now)
  return 1
end

offer('fetch', fetch, {'allow-oom'})
offer('lease', lease, {'allow-oom'})
offer('unfetch', unfetch, {'allow-oom'})

end
