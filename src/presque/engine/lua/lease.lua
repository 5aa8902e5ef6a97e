-- How many of `wanted` jobs may be leased from a queue now; if none, in how many ms to ask again, unless it
-- will be told.
local function room(q, logical, wanted)
  if not q.policy then return wanted, nil end
  local most = policy_of(q).max_leased
  if most > 0 then wanted = math.max(0, math.min(wanted, most - q.in_flight)) end
  if wanted == 0 then return 0, nil end
  return rate_room(q, logical, wanted)
end

-- Note the lease of each of these jobs. Returns attempt, attempts allowed, token, end (wall) for each.
local function hold(q, now, ready, ms, worker, nonce)
  local told, runs, leased, timed, free_keys, free_ids = {}, {}, {}, {}, {}, {}
  local earlier = q.leases and redis.call('HMGET', q.runs, unpack(ready.ids)) or {}
  local ends = lease_clock(q, now) + ms
  for i, id in ipairs(ready.ids) do
    local job = ready.special[i] or NOTHING
    local run = earlier[i] and cmsgpack.unpack(earlier[i]) or {attempt = 0}
    run.attempt, run.token = run.attempt + 1, string.format('%.0f-%s', q.leased_ever + i, nonce)
    run.told_again = nil
    run.ends, run.ms, run.worker, run.at = ends, ms, worker, now
    add(runs, id, cmsgpack.pack(run))
    add(leased, ends, padded(id))
    if job.expires_at then timed[#timed + 1] = padded(id) end
    if job.uniq and not job.until_done then
      free_keys[#free_keys + 1] = job.uniq
      free_ids[#free_ids + 1] = id
    end
    if job.group then redis.call('HINCRBY', q.groups, job.group, 1) end
    add(told, run.attempt, max_attempts(q, job))
    add(told, run.token, ends - q.skew)
  end
  redis.call('HSET', q.runs, unpack(runs))
  redis.call('ZADD', q.leased, unpack(leased))
  if #timed > 0 then redis.call('ZREM', q.ttl, unpack(timed)) end
  release_uniq(q, free_keys, free_ids)
  q.leased_ever = q.leased_ever + #ready.ids
  redis.call('HSET', q.meta, 'more', '1', 'leases', '1', 'leased_ever', q.leased_ever, 'clock', q.clock, 'skew', q.skew)
  return told
end

-- The jobs that an earlier call with this attempt_id leased and that are still held under it; nil if there was
-- none. From now on two answers tell of them, and whoever loses one of them must not give them back.
local function leased_before(q, attempt_id)
  local memo = recall(q, 'lease:' .. attempt_id)
  if not memo then return nil end
  local ids, records, told = {}, {}, {}
  for id, token in pairs(cmsgpack.unpack(memo)) do
    local record, run = redis.call('HGET', q.jobs, id), run_of(q, id)
    if record and run and run.token == token then
      ids[#ids + 1] = id
      records[#records + 1] = record
      add(told, run.attempt, max_attempts(q, parse(record)))
      add(told, token, run.ends - q.skew)
      if not run.told_again then
        run.told_again = true
        save_run(q, id, run)
      end
    end
  end
  return ids, records, told
end

-- lease: hand out jobs of some queues for a while, from the first that has any on.
--
-- keys   the keys of each queue, most preferred first
-- args   how many at most, how many bytes they may fill, for how many ms ('' for the policy), who takes them,
--        a nonce that makes the tokens hard to guess, an attempt_id or ''
-- reply  as fetch, but for each queue that gave any: position, ids, records, and flat for each job its
--        attempt, how many attempts it has, its token, when the lease ends
--
-- An attempt_id that was given a moment ago gets the same jobs again, as far as they are still held: a lost
-- answer loses no lease. It must be used with the same queues.
local function lease(keys, args)
  local count, bytes, ms = math.min(tonumber(args[1]), MOST), tonumber(args[2]), tonumber(args[3])
  local worker, nonce, attempt_id = args[4], args[5], args[6]
  local now, more = clock(), 0
  local stopped, due, jobs, taken, queues = {}, {}, {}, 0, {}
  for first = 1, #keys, KEYS_OF_A_QUEUE do
    local q = open(keys, first)
    if not q.leases then check_leases(q) end
    queues[#queues + 1] = q
  end
  if attempt_id ~= '' then
    local known = false
    for position, q in ipairs(queues) do
      local ids, records, told = leased_before(q, attempt_id)
      known = known or ids ~= nil
      if ids and #ids > 0 then
        add(jobs, position, ids)
        add(jobs, records, told)
      end
    end
    if known then return {0, {}, {}, jobs} end
  end

  for position, q in ipairs(queues) do
    if taken >= count or bytes <= 0 then break end
    if q.stopped then
      stopped[#stopped + 1] = position
    else
      local rates = snapshot(q, now)
      local _, left, due_in = pass_time(q, now)
      local wanted, free_in = room(q, lease_clock(q, now), count - taken)
      local ready = take_ready(q, now, wanted, bytes, true)
      bytes = ready.bytes
      if left or ready.unfinished then more = 1 end
      if free_in then due_in = math.min(due_in or free_in, free_in) end
      if q.policy then note_rate(q, q.clock, #ready.ids) end
      if due_in then add(due, position, due_in) end
      local fields = {}
      if #ready.late > 0 then fields = {'expired', q.expired + #ready.late} end
      forget(q, ready.late, ready.late_jobs)
      if #ready.ids > 0 then
        local for_ms = ms or policy_of(q).lease
        local told = hold(q, now, ready, for_ms, worker, nonce)
        wake(q, 0, for_ms)  -- who waits here looks again when the lease ends
        if attempt_id ~= '' then
          local held = {}
          for i, id in ipairs(ready.ids) do held[id] = told[4 * i - 1] end
          remember(q, now, {'lease:' .. attempt_id, cmsgpack.pack(held)})
        end
        add(jobs, position, ready.ids)
        add(jobs, ready.records, told)
        taken = taken + #ready.ids
      elseif q.in_flight > 0 then
        keep_clock(q)
      end
      happened(q, 'expired', #ready.late, ready.late)
      happened(q, 'leased', #ready.ids, ready.ids)
      tell_ends(q)
      tell_events(q, now)
      if #fields > 0 then write_meta(q, rates, fields) end
    end
  end
  return {more, stopped, due, jobs}
end
