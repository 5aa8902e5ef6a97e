-- The ids that the entries of a ready list stand for.
local function ids_of(q, entries)
  if not string.find(q.priorities, 'v', 1, true) then return entries end
  local ids = {}
  for i, entry in ipairs(entries) do ids[i] = string.match(entry, '^%d+') end
  return ids
end

-- Whether a job was handed out before. Its ttl means nothing then: somebody took it in time.
local function was_leased(q, id) return q.leases and redis.call('HEXISTS', q.runs, id) == 1 end

-- The next ready jobs of one queue, highest priority first, taken off their lists: `count` at most, and no
-- more once they fill `bytes`. Looks at MOST ids at most. Every key was read when the queue was opened.
--
-- Returns {ids=, records=, special=, late=, late_jobs=, unfinished=, bytes=}: the jobs, what `parse` says of
-- those with options, by position, the jobs whose ttl has run out instead, whether it stopped before it had
-- looked at all there is, and the bytes left.
local function take_ready(q, now, count, bytes)
  local ids, records, special, late, late_jobs = {}, {}, {}, {}, {}
  local found, looked, unfinished = 0, 0, false
  for _, priority in ipairs(priorities_of(q)) do
    local list = list_of(q, priority)
    while found < count and bytes > 0 and not unfinished do
      local entries = redis.call('LPOP', list, math.min(count - found, LOOK))
      if not entries then break end
      local next_ids = ids_of(q, entries)
      for i, record in ipairs(redis.call('HMGET', q.jobs, unpack(next_ids))) do
        if bytes <= 0 then
          -- The rest goes back in its order.
          for j = #entries, i, -1 do redis.call('LPUSH', list, entries[j]) end
          break
        end
        looked = looked + 1
        if record and (next_ids == entries or entry_of(next_ids[i], record) == entries[i]) then
          local job = parse(record)
          if job.expires_at and job.expires_at <= now and not was_leased(q, next_ids[i]) then
            late[#late + 1], late_jobs[#late_jobs + 1] = next_ids[i], job
          else
            found = found + 1
            ids[found], records[found] = next_ids[i], record
            if job ~= NOTHING then special[found] = job end
            bytes = bytes - #record
          end
        end
      end
      unfinished = found < count and (looked >= MOST or bytes <= 0)
    end
  end
  return {
    ids = ids, records = records, special = special, late = late, late_jobs = late_jobs,
    unfinished = unfinished, bytes = bytes,
  }
end

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
      local ready = take_ready(q, now, count - taken, bytes)
      bytes = ready.bytes
      if left or ready.unfinished then more = 1 end
      if due_in then
        due[#due + 1] = position
        due[#due + 1] = due_in
      end
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
    end
  end
  return {more, stopped, due, jobs}
end

-- Put an id back into a ready list before the first one that is higher, so that jobs that come back one
-- after the other keep their order. Looks at LOOK ids: what was fetched stood at the head.
local function insert(list, id)
  local first = redis.call('LRANGE', list, 0, LOOK - 1)
  for _, other in ipairs(first) do
    if tonumber(other) > tonumber(id) then
      redis.call('LINSERT', list, 'BEFORE', other, id)
      return
    end
  end
  if #first < LOOK then
    redis.call('RPUSH', list, id)
  else
    redis.call('LINSERT', list, 'AFTER', first[LOOK], id)
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
  local list = list_of(q, priority)
  redis.call('LLEN', list)
  redis.call('ZCARD', q.ttl)
  local held = job.uniq and redis.call('HGET', q.uniq, job.uniq)
  if redis.call('HEXISTS', q.jobs, id) == 1 then return 0 end

  redis.call('HSET', q.jobs, id, record)
  insert(list, id)
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
  return 1
end
