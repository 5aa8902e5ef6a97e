-- Runs: what has happened to a job since it was first leased. They are in the hash `runs`; the record of the job does not
-- change meanwhile:
--
--   byte 1        PLAIN or EXTENDED, the same as its record: a plain job can be settled without reading the record
--   byte 2        priority
--   bytes 3-4     attempt: how many times it was handed out
--   bytes 5-10    when the lease ends (steady clock)      bytes 11-14  how long it was given for (ms)
--   bytes 15-20   when it was handed out (ms)
--   byte 21       length of the token                     bytes 22-23  length of the worker's id
--   then          the token, '' when nobody holds the job; who got it; and if there is more, a MessagePack map:
--
--   errors    the last 10: {at, worker, error, backtrace}
--   progress, result                                JSON from the worker, unchanged
--   saved     what the job saved for its next attempt: JSON, unchanged; removed when the job is done
--   told_again  how many answers to repeated requests name the same lease, without those that were given back
--   cancel    true once somebody deleted it while it was leased
--   finished  when it was done or died (ms)         reason    why it is dead
--
-- All jobs that one call leased have the same token, so most of their runs are the same bytes, which are packed and
-- unpacked once a call. presque/engine/records.py reads the same layout.

local ERRORS_MOST = 10
local ERRORS_BYTES = 64 * 1024  -- of all but the last one
local ATTEMPTS_MOST = 65535
local RUN_HEADER = 23
local MEMO_MS, MEMO_MOST = 60000, 250000
local ORDERED_MOST = 100000  -- leases that have ended: about a second

-- Move the steady clock of a queue forward, and return it.
local function steady_clock(q, now)
  local wall = now + q.skew
  if wall < q.clock then
    q.skew = q.skew + q.clock - wall
    return q.clock
  end
  q.clock = wall
  return wall
end

-- Store the steady clock. Every function does this that gave, ended or looked at leases, or noted anything timed.
local function keep_clock(q) redis.call('HSET', q.meta, 'clock', q.clock, 'skew', q.skew) end

-- Unpack a run into a new table. `more` holds the map.
local function read_run(packed)
  local layout, priority, attempt, ends, ms, at, of_token, of_worker = struct.unpack('>BBI2I6I4I6BI2', packed)
  local token_ends = RUN_HEADER + of_token
  local rest = token_ends + of_worker
  local more = {}
  if #packed > rest then
    local _, map = cmsgpack.unpack_limit(packed, 1, rest)
    more = map
  end
  return {
    plain = layout == PLAIN, priority = priority, attempt = attempt, ends = ends, ms = ms, at = at,
    token = string.sub(packed, RUN_HEADER + 1, token_ends), worker = string.sub(packed, token_ends + 1, rest),
    more = more,
  }
end

-- When the lease of a run ends. A steady clock that many wrong clocks pushed ahead is past what six bytes hold: the
-- moment is the one nearest to it of which the run holds the rest.
local function ends_of(q, run) return run.ends + math.floor((q.clock - run.ends) / 2 ^ 48 + 0.5) * 2 ^ 48 end

local function pack_run(run)
  local fixed = struct.pack('>BBI2I6I4I6BI2', run.plain and PLAIN or EXTENDED, run.priority,
    math.max(0, math.min(run.attempt, ATTEMPTS_MOST)), run.ends % 2 ^ 48, run.ms, run.at, #run.token, #run.worker)
  return fixed .. run.token .. run.worker .. (next(run.more) and cmsgpack.pack(run.more) or '')
end

local function run_of(q, id)
  local packed = redis.call('HGET', q.runs, id)
  return packed and read_run(packed)
end

-- The run of a job that was never handed out.
local function new_run(job, priority)
  return {plain = job == NOTHING, priority = priority, attempt = 0, ends = 0, ms = 0, at = 0, token = '', worker = '',
    more = {}}
end

-- Recent answers, kept in two generations of a minute or MEMO_MOST answers each.
local function remember(q, now, entries)
  if #entries == 0 then return end
  if now - q.memo_at > MEMO_MS or now < q.memo_at or q.remembered > MEMO_MOST then
    redis.call('UNLINK', q.memo_old)
    if q.remembered > 0 then redis.call('RENAME', q.memo, q.memo_old) end
    q.remembered = 0
    redis.call('HSET', q.meta, 'memo_at', now)
    q.memo_at = now
  end
  redis.call('HSET', q.memo, unpack(entries))
end

local function recall(q, key)
  return redis.call('HGET', q.memo, key) or redis.call('HGET', q.memo_old, key)
end

local function max_attempts(q, job) return job.attempts or policy_of(q).max_attempts end

-- Add a failure. Of the earlier ones, newest first, keep what fits into ERRORS_BYTES: a backtrace that does not fit is
-- dropped, and a text is cut. Otherwise each call that touches the job could have to carry more than a megabyte.
local function add_error(run, now, text, backtrace)
  local errors = run.more.errors or {}
  run.more.errors = errors
  errors[#errors + 1] = {at = now, worker = run.worker, error = text, backtrace = backtrace}
  if #errors > ERRORS_MOST then table.remove(errors, 1) end
  local room = ERRORS_BYTES
  for i = #errors - 1, 1, -1 do
    local old = errors[i]
    if #old.error > room then
      old.error = string.gsub(string.sub(old.error, 1, room), '[\192-\255]?[\128-\191]*$', '') .. '…'
    end
    room = math.max(0, room - #old.error)
    if old.backtrace and #old.backtrace > room then old.backtrace = nil end
    if old.backtrace then room = room - #old.backtrace end
  end
end

-- Leases of these jobs have ended, so their groups have room for others. `left` is group -> how many.
local function leave_groups(q, left)
  for group, count in pairs(left) do
    if redis.call('HINCRBY', q.groups, group, -count) <= 0 then redis.call('HDEL', q.groups, group) end
    if policy_of(q).group_leased > 0 then
      for _, priority in ipairs(priorities_of(q)) do
        if redis.call('LLEN', list_of(q, priority, group)) > 0 then join_ring(q, priority, group) end
      end
    end
  end
end

-- Note the end of jobs, for those who wait for it or watch.
local function ended(q, how, ids)
  if #ids == 0 then return end
  happened(q, how, #ids, ids)
  if #q.ended == 0 then q.ended = {} end
  add(q.ended, how, table.concat(ids, ','))
end

-- Notify those who wait for the end of a job.
local function tell_ends(q)
  if #q.ended == 0 then return end
  name_more(q)
  redis.call('SPUBLISH', q.ends, table.concat(q.ended, ' '))
end

-- The fates of many leased jobs: decided first, one by one, then written with few commands by `write_fates`. `members`
-- are the members to remove from `leased`.
local function new_fates()
  return {
    members = {}, extended = {}, back = {}, later = {}, died = {}, kept = {}, gone = {}, gone_jobs = {},
    runs = {}, left = {}, groups_left = 0, free_keys = {}, free_ids = {}, ready = 0, deleted = {}, done = {}, dead = {},
    outcomes = {},
  }
end

local function leave_lease(fates, id, job)
  local members = fates.members
  members[#members + 1] = padded(id)
  if not job.group then return end
  if not fates.left[job.group] then fates.groups_left = fates.groups_left + 1 end
  fates.left[job.group] = (fates.left[job.group] or 0) + 1
end

local function free_uniq(fates, id, job)
  if not job.uniq then return end
  fates.free_keys[#fates.free_keys + 1], fates.free_ids[#fates.free_ids + 1] = job.uniq, id
end

-- The job is deleted.
local function fate_gone(fates, id, job)
  local gone = fates.gone
  gone[#gone + 1] = id
  if job ~= NOTHING then fates.gone_jobs[#gone] = job end
end

-- The job is dead: it will not be tried again.
local function fate_dead(fates, id, job, run, now, reason)
  run.token, run.more.finished, run.more.reason = '', now, reason
  if job.cron then
    local errors = run.more.errors or NONE
    local last = #errors > 0 and errors[#errors].error or ''
    fates.outcomes[#fates.outcomes + 1] = {job.cron, 'dead', now, id, last ~= '' and last or reason}
  end
  add(fates.died, now, padded(id))
  fates.dead[#fates.dead + 1], fates.runs[id] = id, run
  free_uniq(fates, id, job)
end

-- The job goes back to the head of its ready list.
local function fate_back(q, fates, id, job, run)
  run.token, fates.runs[id] = '', run
  collect(q, fates.back, run.priority, job.group, entry_of(id, job))
  fates.ready = fates.ready + 1
end

-- When there are too many dead jobs, delete the oldest.
local function trim_dead(q)
  local over = redis.call('ZCARD', q.dead) - policy_of(q).dead_most
  if over <= 0 then return end
  local members, ids = redis.call('ZRANGE', q.dead, 0, math.min(over, MOST) - 1), {}
  for i, member in ipairs(members) do ids[i] = unpadded(member) end
  redis.call('ZREM', q.dead, unpack(members))
  delete_records(q, ids)
  redis.call('HDEL', q.runs, unpack(ids))
  happened(q, 'deleted', #ids, ids)
end

-- Write the fates. Nothing here can fail: the keys were read when the queue was opened.
local function write_fates(q, fates)
  if #fates.extended > 0 then redis.call('ZADD', q.leased, unpack(fates.extended)) end
  if #fates.members > 0 then redis.call('ZREM', q.leased, unpack(fates.members)) end
  local runs = {}
  for id, run in pairs(fates.runs) do add(runs, id, pack_run(run)) end
  if #runs > 0 then redis.call('HSET', q.runs, unpack(runs)) end
  for _, list in ipairs(fates.back) do put_ready(q, list.priority, list.group, list.entries, true) end
  if #fates.later > 0 then
    redis.call('ZADD', q.due, unpack(fates.later))
    if not q.timed then
      redis.call('HSET', q.meta, 'timed', '1')
      q.timed = '1'
    end
  end
  if #fates.kept > 0 then redis.call('ZADD', q.done, unpack(fates.kept)) end
  if #fates.died > 0 then
    redis.call('ZADD', q.dead, unpack(fates.died))
    redis.call('HINCRBY', q.meta, 'died', #fates.dead)
  end
  release_uniq(q, fates.free_keys, fates.free_ids)
  forget(q, fates.gone, fates.gone_jobs)
  leave_groups(q, fates.left)
  for _, one in ipairs(fates.outcomes) do note_outcome(q, unpack(one)) end
  ended(q, 'done', fates.done)
  ended(q, 'dead', fates.dead)
  ended(q, 'deleted', fates.deleted)
  if #fates.died > 0 then trim_dead(q) end
end

-- What `parse` says about some leased jobs, by id. Records are not read if the runs say that they are plain. Jobs whose
-- records are gone are left out. There may be fewer runs than ids.
local function jobs_of(q, ids, runs)
  local jobs, special = {}, {}
  for i = 1, #runs do
    local id = ids[i]
    if runs[i] and string.byte(runs[i]) == PLAIN then jobs[id] = NOTHING
    elseif runs[i] then special[#special + 1] = id end
  end
  each_record(q, special, function(id, record) if record then jobs[id] = parse(record) end end)
  return jobs
end

-- Take back jobs whose lease has ended. Returns how many became ready, and whether there are more. Those that were to come
-- first go back last, so that all of them stand in their order at the head in the end. Until then `q.unordered` is set, and
-- nothing is taken, unless that would take long.
local function reclaim(q, now)
  if q.in_flight == 0 then return 0, false end
  local members, ids, more = due_members(q.leased, steady_clock(q, now), q.jobs, q.runs, true)
  q.unordered = more and redis.call('ZCOUNT', q.leased, '-inf', q.clock) < ORDERED_MOST
  if #members == 0 then return 0, more end
  begin(q, now)
  local fates, failed = new_fates(), {}
  local runs = redis.call('HMGET', q.runs, unpack(ids))
  local jobs = jobs_of(q, ids, runs)
  for i = #ids, 1, -1 do
    local id = ids[i]
    local job = jobs[id]
    if job then
      local run = read_run(runs[i])
      add_error(run, now, 'lease expired')
      q.failed = q.failed + 1
      leave_lease(fates, id, job)
      if run.more.cancel then
        fates.deleted[#fates.deleted + 1] = id
        fate_gone(fates, id, job)
      elseif run.attempt >= max_attempts(q, job) then
        fate_dead(fates, id, job, run, now, 'lease expired')
      else
        fate_back(q, fates, id, job, run)
        failed[#failed + 1] = id
      end
    else
      fates.members[#fates.members + 1] = members[i]
    end
  end
  write_fates(q, fates)
  happened(q, 'failed', #failed, failed)
  redis.call('HSET', q.meta, 'failed', q.failed)
  q.in_flight = q.in_flight - #members
  return fates.ready, more
end

-- Drop finished jobs whose time to be kept is over. Returns whether there are more.
local function drop_done(q, now)
  if q.finished == 0 then return false end
  local members, ids, more = due_members(q.done, now, q.jobs, q.runs)
  if #members == 0 then return more end
  delete_records(q, ids)
  redis.call('HDEL', q.runs, unpack(ids))
  redis.call('ZREM', q.done, unpack(members))
  return more
end
