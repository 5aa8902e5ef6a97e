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
  local run_at = tonumber(delayed) or (delay ~= '' and now + tonumber(delay)) or now
  if run_at > now then job.run_at = run_at end
  if ttl ~= '' then job.expires_at = now + tonumber(ttl) end
  if uniq ~= '' then job.uniq, job.until_done = uniq, hold == 'd' end
  return job
end

-- push: put jobs on one queue, each refused or stored on its own.
--
-- keys   the keys of the queue
-- args   how many failures to count (a push that puts a failed job back says 1), then for each job its
--        options ('' for none) and its body
-- reply  for each job its id, or a word: 'exists' (a waiting job holds its uniq key), 'late' (its ttl
--        would end before it is due)
local function push(keys, args)
  local q = open(keys, 1)
  local now, failures = clock(), tonumber(args[1])
  local rates = snapshot(q, now)
  local seq, priorities = q.seq, q.priorities
  local reply, records, ready, due, ttl, held, holds = {}, {}, {}, {}, {}, {}, {}
  local count, soonest = 0, nil
  local plain = struct.pack('>BBI6', 0, 5, now)

  if #args > 2 * MOST + 1 then return redis.error_reply('ERR too many jobs in one push') end
  for i = 2, #args, 2 do
    local options, record, refused, list = args[i], nil, nil, q.ready
    local id = seq + 1
    if options == '' then
      record = plain .. args[i + 1]
    else
      local job = read_options(options, now)
      if job.uniq then
        local holder = held[job.uniq] or redis.call('HGET', q.uniq, job.uniq)
        if holder then refused = 'exists' end
      end
      if job.expires_at and job.run_at and job.expires_at <= job.run_at then refused = 'late' end
      if not refused then
        record = header(job, now) .. args[i + 1]
        if job.uniq then
          held[job.uniq] = id
          holds[#holds + 1] = job.uniq
          holds[#holds + 1] = id
        end
        if job.expires_at then
          ttl[#ttl + 1] = job.expires_at
          ttl[#ttl + 1] = padded(id)
        end
        if job.priority ~= 5 and not string.find(priorities, job.priority, 1, true) then
          redis.call('LLEN', list_of(q, job.priority))
          priorities = priorities .. job.priority
        end
        list = list_of(q, job.priority)
        if job.run_at then
          due[#due + 1] = job.run_at
          due[#due + 1] = padded(id)
          soonest = math.min(soonest or job.run_at, job.run_at)
          list = nil
        end
      end
    end
    if refused then
      reply[#reply + 1] = refused
    else
      seq = id
      reply[#reply + 1] = id
      records[#records + 1] = id
      records[#records + 1] = record
      if list then
        ready[list] = ready[list] or {}
        table.insert(ready[list], id)
        count = count + 1
      end
    end
  end
  if #due > 0 then redis.call('ZCARD', q.due) end
  if #ttl > 0 then redis.call('ZCARD', q.ttl) end

  -- Nothing below can fail: every key was read above as what it is written to here.
  local fields = {}
  if seq > q.seq then
    fields[1], fields[2] = 'seq', seq
    redis.call('HSET', q.jobs, unpack(records))
  end
  for list, ids in pairs(ready) do redis.call('RPUSH', list, unpack(ids)) end
  if #due > 0 then redis.call('ZADD', q.due, unpack(due)) end
  if #ttl > 0 then redis.call('ZADD', q.ttl, unpack(ttl)) end
  if #holds > 0 then redis.call('HSET', q.uniq, unpack(holds)) end
  if failures > 0 then
    fields[#fields + 1] = 'failed'
    fields[#fields + 1] = q.failed + failures
  end
  if priorities ~= q.priorities then
    fields[#fields + 1] = 'priorities'
    fields[#fields + 1] = priorities
  end
  if (#due > 0 or #ttl > 0) and not q.timed then
    fields[#fields + 1] = 'timed'
    fields[#fields + 1] = '1'
  end
  write_meta(q, rates, fields)
  if count > 0 or soonest then wake(q, count, soonest and soonest - now) end
  return reply
end
