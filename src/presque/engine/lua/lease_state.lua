-- Leases: a job handed out for a while, and what becomes of it.
--
-- What happened to a job since it was first handed out is its run, beside the record, which never changes:
--
--   attempt   how many times it was handed out      token     of the current or last lease
--   ends      when that lease ends (lease clock)    ms        how long it was given for
--   worker, at                                      who got it, and when (ms)
--   errors    the last 10: {at, worker, error, backtrace}
--   progress, result                                as told by the worker: JSON as it came
--   told_again  true once a repeated request got the same lease
--   cancel    true once somebody deleted it while it was leased
--   finished  when it was done or died (ms)         reason    why it is dead
--
-- Leases end by a clock of their own: the store's, but one that never goes back. When TIME does, the
-- difference is kept as `skew`, so a lease is neither frozen nor revived by somebody setting the clock.

local ERRORS_MOST = 10
local MEMO_MS, MEMO_MOST = 60000, 250000

local function lease_clock(q, now)
  local wall = now + q.skew
  if wall < q.clock then
    q.skew = q.skew + q.clock - wall
    return q.clock
  end
  q.clock = wall
  return wall
end

-- Remember the clock. Every function that gave, ended or looked at leases does so.
local function keep_clock(q) redis.call('HSET', q.meta, 'clock', q.clock, 'skew', q.skew) end

local function run_of(q, id)
  local packed = redis.call('HGET', q.runs, id)
  return packed and cmsgpack.unpack(packed)
end

local function save_run(q, id, run) redis.call('HSET', q.runs, id, cmsgpack.pack(run)) end

-- What was answered a moment ago: kept in two generations of a minute or MEMO_MOST answers each.
local function remember(q, now, entries)
  if #entries == 0 then return end
  if now - q.memo_at > MEMO_MS or now < q.memo_at or redis.call('HLEN', q.memo) > MEMO_MOST then
    redis.call('UNLINK', q.memo .. ':old')
    if redis.call('HLEN', q.memo) > 0 then redis.call('RENAME', q.memo, q.memo .. ':old') end
    redis.call('HSET', q.meta, 'memo_at', now)
    q.memo_at = now
  end
  redis.call('HSET', q.memo, unpack(entries))
end

local function recall(q, key)
  return redis.call('HGET', q.memo, key) or redis.call('HGET', q.memo .. ':old', key)
end

local function max_attempts(q, job) return job.attempts or policy_of(q).max_attempts end

local function add_error(run, now, text, backtrace)
  run.errors = run.errors or {}
  table.insert(run.errors, {at = now, worker = run.worker, error = text, backtrace = backtrace})
  if #run.errors > ERRORS_MOST then table.remove(run.errors, 1) end
end

-- Put a job that was leased back: to the head of its list, where it came from.
local function back_to_ready(q, id, record)
  put_ready(q, priority_of(record), parse(record).group, {entry_of(id, record)}, true)
end

-- A lease of this job has ended, so its group has room for another.
local function leave_group(q, job)
  if not job.group then return end
  if redis.call('HINCRBY', q.groups, job.group, -1) <= 0 then redis.call('HDEL', q.groups, job.group) end
  if policy_of(q).group_leased == 0 then return end
  for _, priority in ipairs(priorities_of(q)) do
    if redis.call('LLEN', list_of(q, priority, job.group)) > 0 then join_ring(q, priority, job.group) end
  end
end

-- The end of a job, for those who wait for it and those who watch.
local function ended(q, id, how)
  happened_to(q, how, id)
  if #q.ended == 0 then q.ended = {} end
  q.ended[#q.ended + 1] = id .. ':' .. how
end

-- A job that will not be tried again. The oldest dead ones go when there are too many.
local function die(q, id, record, run, now, reason)
  run.finished, run.reason = now, reason
  redis.call('ZADD', q.dead, now, padded(id))
  save_run(q, id, run)
  release_uniq(q, {parse(record).uniq}, {id})
  ended(q, id, 'dead')
  local over = redis.call('ZCARD', q.dead) - policy_of(q).dead_most
  if over > 0 then
    for _, member in ipairs(redis.call('ZRANGE', q.dead, 0, math.min(over, LOOK) - 1)) do
      happened_to(q, 'deleted', unpadded(member))
      redis.call('ZREM', q.dead, member)
      redis.call('HDEL', q.jobs, unpadded(member))
      redis.call('HDEL', q.runs, unpadded(member))
    end
  end
end

-- Tell who waits for the end of a job.
local function tell_ends(q)
  if #q.ended == 0 then return end
  name_more(q)
  redis.call('SPUBLISH', q.ends, table.concat(q.ended, ' '))
end

-- Take back jobs whose lease has ended. Returns how many became ready, and how many were looked at.
local function reclaim(q, now)
  local members = redis.call('ZRANGEBYSCORE', q.leased, '-inf', lease_clock(q, now), 'LIMIT', 0, SWEEP)
  local ready = 0
  for _, member in ipairs(members) do
    local id = unpadded(member)
    local record, run = redis.call('HGET', q.jobs, id), run_of(q, id)
    redis.call('ZREM', q.leased, member)
    if record and run then
      add_error(run, now, 'lease expired')
      q.failed = q.failed + 1
      leave_group(q, parse(record))
      if run.cancel then
        ended(q, id, 'deleted')
        forget(q, {id}, {parse(record)})
      elseif run.attempt >= max_attempts(q, parse(record)) then
        die(q, id, record, run, now, 'lease expired')
      else
        run.token = ''
        save_run(q, id, run)
        back_to_ready(q, id, record)
        happened_to(q, 'failed', id)
        ready = ready + 1
      end
    end
  end
  if #members > 0 then redis.call('HSET', q.meta, 'failed', q.failed) end
  q.in_flight = q.in_flight - #members
  return ready, #members
end

-- Drop finished jobs that were kept long enough. Returns how many.
local function drop_done(q, now)
  local members = redis.call('ZRANGEBYSCORE', q.done, '-inf', now, 'LIMIT', 0, SWEEP)
  for _, member in ipairs(members) do
    redis.call('HDEL', q.jobs, unpadded(member))
    redis.call('HDEL', q.runs, unpadded(member))
  end
  if #members > 0 then redis.call('ZREM', q.done, unpack(members)) end
  return #members
end
