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
-- more once they fill `bytes`. Looks at MOST ids at most.
--
-- Returns {ids=, records=, jobs=, late=, late_jobs=, unfinished=, bytes=}: the jobs, those whose ttl has run
-- out instead, whether it stopped before it had looked at all there is, and the bytes left.
local function take_ready(q, now, count, bytes)
  local ids, records, jobs, late, late_jobs = {}, {}, {}, {}, {}
  local found, looked, unfinished = 0, 0, false
  for _, priority in ipairs(priorities_of(q)) do
    local list = list_of(q, priority)
    while found < count and bytes > 0 and not unfinished do
      local entries = redis.call('LRANGE', list, 0, math.min(count - found, LOOK) - 1)
      if #entries == 0 then break end
      local next_ids, gone = ids_of(q, entries), 0
      for i, record in ipairs(redis.call('HMGET', q.jobs, unpack(next_ids))) do
        if bytes <= 0 then break end
        gone = i
        if record and (next_ids == entries or entry_of(next_ids[i], record) == entries[i]) then
          local job = parse(record)
          if job.expires_at and job.expires_at <= now and not was_leased(q, next_ids[i]) then
            late[#late + 1], late_jobs[#late_jobs + 1] = next_ids[i], job
          else
            found = found + 1
            ids[found], records[found], jobs[found] = next_ids[i], record, job
            bytes = bytes - #record
          end
        end
      end
      looked = looked + gone
      redis.call('LTRIM', list, gone, -1)
      unfinished = looked >= MOST and found < count
    end
  end
  return {
    ids = ids, records = records, jobs = jobs, late = late, late_jobs = late_jobs,
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
      forget(q, ready.ids, ready.jobs)
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

-- unfetch: undo the fetch of jobs whose taker has gone before it got them.
--
-- keys   the keys of the queue
-- args   id, record, … in the order they were fetched
-- reply  how many were put back: a job whose uniq key another job holds by now goes back without it
local function unfetch(keys, args)
  local q = open(keys, 1)
  local records, ttl, holds = {}, {}, {}
  local lists = {}
  for i = 1, #args, 2 do
    local id, record = args[i], args[i + 1]
    local job = parse(record)
    local list = list_of(q, priority_of(record))
    redis.call('LLEN', list)
    if redis.call('HEXISTS', q.jobs, id) == 0 then
      records[#records + 1] = id
      records[#records + 1] = record
      lists[list] = lists[list] or {}
      table.insert(lists[list], 1, id)
      if job.expires_at then
        ttl[#ttl + 1] = job.expires_at
        ttl[#ttl + 1] = padded(id)
      end
      if job.uniq and not redis.call('HGET', q.uniq, job.uniq) then
        holds[#holds + 1] = job.uniq
        holds[#holds + 1] = id
      end
    end
  end
  if #records == 0 then return 0 end
  redis.call('ZCARD', q.ttl)

  local count = #records / 2
  redis.call('HSET', q.jobs, unpack(records))
  for list, ids in pairs(lists) do redis.call('LPUSH', list, unpack(ids)) end
  if #ttl > 0 then redis.call('ZADD', q.ttl, unpack(ttl)) end
  if #holds > 0 then redis.call('HSET', q.uniq, unpack(holds)) end
  local fields = {'processed', math.max(0, q.processed - count)}
  if #ttl > 0 then
    fields[3], fields[4] = 'timed', '1'
  end
  redis.call('HSET', q.meta, unpack(fields))
  wake(q, count)
  return count
end
