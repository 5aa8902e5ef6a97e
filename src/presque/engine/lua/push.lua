-- The options of one push, as engine.py writes them: every field but the last a number or nothing.
local OPTIONS = '^(%d*)|(%d*)|(%d*)|(%d*)|(%d*)|(%d*)|([fd]?)|(.*)$'

-- The header of a record with options.
local function header(job, now)
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
  return struct.pack('>BBI6', flags, job.priority, now) .. table.concat(parts)
end

local function read_options(text, now)
  local priority, delayed, delay, ttl, attempts, keep, hold, uniq = string.match(text, OPTIONS)
  local job = {priority = tonumber(priority) or 5, attempts = tonumber(attempts), keep = tonumber(keep)}
  local run_at = tonumber(delayed) or now
  -- One more, since `now` was cut to whole milliseconds and nothing may be early.
  if delay ~= '' and tonumber(delay) > 0 then run_at = now + tonumber(delay) + 1 end
  if run_at > now then job.run_at = run_at end
  if ttl ~= '' then job.expires_at = now + tonumber(ttl) end
  if uniq ~= '' then job.uniq, job.until_done = uniq, hold == 'd' end
  return job
end

-- Whether a waiting job holds this uniq key. One whose ttl has run out waits no more, swept or not.
local function held_by_waiting(q, key, now)
  local holder = redis.call('HGET', q.uniq, key)
  if not holder then return false end
  local record = redis.call('HGET', q.jobs, holder)
  local expires_at = record and parse(record).expires_at
  return record and not (expires_at and expires_at <= now)
end

-- What a push with options asks for, or nil and why it is refused. `held` are the uniq keys that jobs of
-- the same call have taken. Writes nothing, and reads each key that will be written.
local function consider(q, options, now, held)
  local job = read_options(options, now)
  if job.expires_at and job.run_at and job.expires_at <= job.run_at then return nil, 'late' end
  if job.uniq and (held[job.uniq] or held_by_waiting(q, job.uniq, now)) then return nil, 'exists' end
  if job.priority ~= 5 then redis.call('LLEN', list_of(q, job.priority)) end
  if job.run_at then redis.call('ZCARD', q.due) end
  if job.expires_at then redis.call('ZCARD', q.ttl) end
  return job
end

-- push: put jobs on one queue, each refused or stored on its own.
--
-- keys   the keys of the queue
-- args   how many failures to count if a job is stored (a push that puts a failed job back says 1), then
--        for each job its options ('' for none) and its body
-- reply  for each job its id, or a word: 'exists' (a waiting job holds its uniq key), 'late' (its ttl
--        would end before it is due)
local function push(keys, args)
  local q = open(keys, 1)
  local now, failures = clock(), tonumber(args[1])
  local rates = snapshot(q, now)
  local seq, priorities, soonest = q.seq, q.priorities, nil
  local reply, records, ready, others = {}, {}, {}, {}
  local due, ttl, held, holds = {}, {}, {}, {}
  local stored, plain = 0, struct.pack('>BBI6', 0, 5, now)
  if #args > 2 * MOST + 1 then return redis.error_reply('ERR too many jobs in one push') end

  for i = 2, #args, 2 do
    local record, list, refused = nil, ready, nil
    if args[i] == '' then
      record = plain .. args[i + 1]
    else
      local job
      job, refused = consider(q, args[i], now, held)
      if job then
        record = header(job, now) .. args[i + 1]
        if job.priority ~= 5 then
          if not string.find(priorities, job.priority, 1, true) then priorities = priorities .. job.priority end
          others[job.priority] = others[job.priority] or {}
          list = others[job.priority]
        end
        if job.run_at then
          list = nil
          soonest = math.min(soonest or job.run_at, job.run_at)
          add(due, job.run_at, padded(seq + 1))
        end
        if job.expires_at then add(ttl, job.expires_at, padded(seq + 1)) end
        if job.uniq then
          held[job.uniq] = true
          add(holds, job.uniq, seq + 1)
        end
      end
    end
    if record then
      seq, stored = seq + 1, stored + 1
      records[2 * stored - 1], records[2 * stored] = seq, record
      if list then list[#list + 1] = seq end
    end
    reply[i / 2] = refused or seq
  end

  -- Nothing below can fail: every key was read above as what it is written to here.
  local fields, count = {}, #ready
  if stored > 0 then
    fields = {'seq', seq}
    redis.call('HSET', q.jobs, unpack(records))
  end
  if #ready > 0 then redis.call('RPUSH', q.ready, unpack(ready)) end
  for priority, ids in pairs(others) do
    if #ids > 0 then redis.call('RPUSH', list_of(q, priority), unpack(ids)) end
    count = count + #ids
  end
  if #due > 0 then redis.call('ZADD', q.due, unpack(due)) end
  if #ttl > 0 then redis.call('ZADD', q.ttl, unpack(ttl)) end
  if #holds > 0 then redis.call('HSET', q.uniq, unpack(holds)) end
  if failures > 0 and seq > q.seq then add(fields, 'failed', q.failed + failures) end
  if priorities ~= q.priorities then add(fields, 'priorities', priorities) end
  if (#due > 0 or #ttl > 0) and not q.timed then add(fields, 'timed', '1') end
  write_meta(q, rates, fields)
  if count > 0 or soonest then wake(q, count, soonest and soonest - now) end
  return reply
end
