-- fetch: take jobs off some queues for good, from the first that has any on.
--
-- keys   the keys of each queue, most preferred first
-- args   how many jobs at most, how many bytes they may fill (the first job is handed out whatever its size)
-- reply  { 1 if another call would find more at once, else 0,
--          the positions (from 1) of the queues that are stopped,
--          position, ms until its next scheduled job is due, … for queues that hand out nothing more now,
--          for each queue that gave any: position, ids, records }
local function fetch(keys, args)
  local count, bytes = math.min(tonumber(args[1]), MOST), tonumber(args[2])
  local now, more = clock(), 0
  local stopped, due, jobs, taken = {}, {}, {}, 0
  local queues = {}
  for first = 1, #keys, KEYS_OF_A_QUEUE do queues[#queues + 1] = open(keys, first) end

  for position, q in ipairs(queues) do
    if taken >= count or bytes <= 0 then break end
    if q.stopped then
      stopped[#stopped + 1] = position
    else
      local rates = snapshot(q, now)
      local _, left, due_in = pass_time(q, now)
      local wanted, rate_in = count - taken, nil
      if q.policy then wanted, rate_in = rate_room(q, lease_clock(q, now), wanted) end
      local ready = take_ready(q, now, wanted, bytes, false)
      bytes = ready.bytes
      if left or ready.unfinished then more = 1 end
      if rate_in then due_in = math.min(due_in or rate_in, rate_in) end
      if due_in then
        due[#due + 1] = position
        due[#due + 1] = due_in
      end
      if q.policy then note_rate(q, q.clock, #ready.ids) end
      local fields = {}
      if #ready.ids > 0 then fields = {'processed', q.processed + #ready.ids} end
      if #ready.late > 0 then
        fields[#fields + 1] = 'expired'
        fields[#fields + 1] = q.expired + #ready.late
      end
      forget(q, ready.late, ready.late_jobs)
      forget(q, ready.ids, ready.special)
      if #fields > 0 then write_meta(q, rates, fields) end
      if #ready.ids > 0 then
        jobs[#jobs + 1] = position
        jobs[#jobs + 1] = ready.ids
        jobs[#jobs + 1] = ready.records
      end
      taken = taken + #ready.ids
      happened(q, 'expired', #ready.late, ready.late)
      happened(q, 'fetched', #ready.ids, ready.ids)
      tell_ends(q)
      tell_events(q, now)
    end
  end
  return {more, stopped, due, jobs}
end

-- Put an entry back into a ready list before the first one that is higher, so that jobs that come back one
-- after the other keep their order. Looks at LOOK ids: what was fetched stood at the head.
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

-- unfetch: undo the fetch of a job whose taker has gone before it got it.
--
-- keys   the keys of the queue
-- args   id, record
-- reply  1 if it was put back, 0 if it is there already. If another job holds its uniq key by now, it goes
--        back without it.
local function unfetch(keys, args)
  local q, id, record = open(keys, 1), args[1], args[2]
  local job, priority = parse(record), priority_of(record)
  local list = list_for(q, priority, job.group)
  redis.call('LLEN', list)
  redis.call('ZCARD', q.ttl)
  local held = job.uniq and redis.call('HGET', q.uniq, job.uniq)
  if redis.call('HEXISTS', q.jobs, id) == 1 then return 0 end

  redis.call('HSET', q.jobs, id, record)
  insert(list, entry_of(id, record))
  if q.grouped then join_ring(q, priority, job.group or '') end
  local fields = {'processed', math.max(0, q.processed - 1)}
  if job.expires_at then
    redis.call('ZADD', q.ttl, job.expires_at, padded(id))
    add(fields, 'timed', '1')
  end
  if job.uniq and not held then redis.call('HSET', q.uniq, job.uniq, id) end
  -- A purge since the fetch has forgotten which priorities are in use.
  if priority ~= 5 and not string.find(q.priorities, priority, 1, true) then
    add(fields, 'priorities', q.priorities .. priority)
  end
  redis.call('HSET', q.meta, unpack(fields))
  wake(q, 1)
  happened_to(q, 'released', id)
  tell_events(q, clock())
  return 1
end
