-- Delete lists of groups that purges left behind, some groups at a time. Returns whether more are left. A group that
-- has had jobs since then keeps its lists: the old entries in them stand for no job and are skipped.
local function clear_purged(q)
  local name = redis.call('LINDEX', q.purged, 0)
  if not name then return false end
  if spare.jobs <= 0 then return true end
  local key, priority = q.purged .. ':' .. name, tonumber(string.match(name, ':(%d)$'))
  local groups, most = nil, math.min(spare.jobs, priority and 4 * LOOK or LOOK)
  if priority then
    groups = redis.call('ZRANGE', key, 0, most - 1)
    if #groups > 0 then redis.call('ZREM', key, unpack(groups)) end
  else
    groups = redis.call('HRANDFIELD', key, most)
    if #groups > 0 then redis.call('HDEL', key, unpack(groups)) end
  end
  spare.jobs = spare.jobs - #groups
  local held = #groups > 0 and redis.call('HMGET', q.groups, unpack(groups)) or {}
  for i, group in ipairs(groups) do
    for each = priority or 1, priority or 9 do
      if group ~= '' and not held[i] and not redis.call('ZSCORE', ring_of(q, each), group) then
        redis.call('UNLINK', list_of(q, each, group))
      end
    end
  end
  if #groups < most then
    redis.call('LPOP', q.purged)
    redis.call('UNLINK', key)
    q.leftovers = q.leftovers - 1
    if q.leftovers == 0 then redis.call('HDEL', q.meta, 'purges') end
  end
  return q.leftovers > 0
end

-- Drop jobs whose ttl has run out. Returns whether there are more to drop.
local function expire(q, now)
  local members, ids, more = due_members(q.ttl, q.clock, q.jobs)
  if #members == 0 then return more end
  begin(q, now)
  local gone, jobs = {}, {}
  each_record(q, ids, function(id, record)
    if record then
      gone[#gone + 1] = id
      jobs[#jobs + 1] = parse(record)
    end
  end)
  redis.call('ZREM', q.due, unpack(members))
  redis.call('ZREM', q.ttl, unpack(members))
  forget(q, gone, jobs, nil, 'expired', now)
  if #gone > 0 then
    q.expired = q.expired + #gone
    redis.call('HSET', q.meta, 'expired', q.expired)
    happened(q, 'expired', #gone, gone)
  end
  return more
end

-- Move scheduled jobs whose time has come behind the ready ones. Returns how many, and whether there are more.
local function promote(q, now)
  local members, ids, more = due_members(q.due, q.clock, q.jobs)
  if #members == 0 then return 0, more end
  begin(q, now)
  local lists, there, early = {}, {}, {}
  each_record(q, ids, function(id, record)
    if record then
      local job = parse(record)
      if is_early(q, id, job, now) then
        add(early, job.run_at + q.skew, padded(id))
      else
        collect(q, lists, priority_of(record), job.group, entry_of(id, job))
        there[#there + 1] = id
      end
    end
  end)
  put_collected(q, lists)
  happened(q, 'ready', #there, there)
  redis.call('ZREM', q.due, unpack(members))
  if #early > 0 then redis.call('ZADD', q.due, unpack(early)) end
  return #members, more
end

-- Do what is due in one queue, up to a bound. Returns how many jobs became ready, whether more is due now, and in how
-- many milliseconds something is due next (nil for nothing).
local function pass_time(q, now)
  local ready, more, next_due = 0, false, nil
  if q.leases then
    steady_clock(q, now)
    ready, more = reclaim(q, now)
    more = drop_done(q, now) or more
    local next = q.in_flight > 0 and redis.call('ZRANGE', q.leased, 0, 0, 'WITHSCORES') or NONE
    if next[2] then next_due = math.max(0, tonumber(next[2]) - q.clock) end
  end
  if q.leftovers > 0 then more = clear_purged(q) or more end
  if q.timed then
    steady_clock(q, now)
    more = expire(q, now) or more
    local promoted, left = promote(q, now)
    ready, more = ready + promoted, left or more
    local next = redis.call('ZRANGE', q.due, 0, 0, 'WITHSCORES')
    if next[2] then
      next_due = math.min(next_due or math.huge, math.max(0, tonumber(next[2]) - q.clock))
    elseif redis.call('ZCARD', q.ttl) == 0 then
      redis.call('HDEL', q.meta, 'timed')
      q.timed = false
    end
  end
  return ready, more, next_due
end

do  -- a library has room for 200 local names at once: those in here end with the block

-- Whether a queue has been empty and unused for as long as its policy `expires` says. The notes of the counters tell when
-- it was last used; a note is made up to SNAPSHOT_MS late. A queue that somebody stopped stays.
local function has_expired(q, now)
  local expires = policy_of(q).expires
  if expires == 0 or q.size > 0 or q.stopped then return false end
  local used = tonumber(string.match(q.rates, '^ ?(%d+)'))
  if used then return now - used > expires + SNAPSHOT_MS end
  begin(q, now)
  return false
end

-- Whether the sweep or a taker may find something to do in a queue, now or later.
local function has_work(q)
  if q.leftovers > 0 or (q.policy and policy_of(q).expires > 0) then return true end
  return redis.call('HLEN', q.jobs) > (q.leases and redis.call('ZCARD', q.dead) or 0)
end

-- Add the name of a queue to the busy ones, or remove it, whichever is right. Repairs an index that has lost the name or
-- kept it too long.
local function note_work(q)
  local busy = registry_of(q) .. ':busy'
  if has_work(q) then
    if not q.busy then mark_busy(q) else redis.pcall('ZADD', busy, 0, q.name) end
  elseif q.busy then
    redis.pcall('ZREM', busy, q.name)
    redis.call('HDEL', q.meta, 'busy')
    touch(q)
  end
end

-- Store the steady clock of a queue that waits for something, if what is stored is old. What comes first then comes at
-- most a twentieth of its time later if TIME goes back, and a queue at rest is not written to every second.
local function keep_clock_in_time(q, now)
  local kept, skew = q.clock, q.skew
  steady_clock(q, now)
  if q.skew ~= skew then return keep_clock(q) end
  for _, key in ipairs({q.leased, q.due, q.ttl}) do
    local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]
    if first and 20 * (q.clock - kept) >= tonumber(first) - q.clock then return keep_clock(q) end
  end
end

-- sweep: do what is due in some queues, although nobody fetches from them.
--
-- keys   the keys of each queue
-- reply  1 if another call would find more to do at once, else 0; the positions of the queues that have expired; then
--        position and reason of those that are spoilt
local function sweep(keys)
  local now, more, expired, spoilt = clock(), 0, {}, {}
  each_queue(keys, spoilt, function(q)
    if q.in_flight > 0 or q.timed then keep_clock_in_time(q, now) end
    local promoted, left = pass_time(q, now)
    if promoted > 0 then wake(q, promoted) end
    tell_ends(q)
    tell_events(q, now)
    if left then more = 1 end
    if q.policy and has_expired(q, now) then expired[#expired + 1] = q.position end
    note_work(q)
  end)
  return {more, expired, spoilt}
end

offer('sweep', sweep, {'allow-oom'})

end
