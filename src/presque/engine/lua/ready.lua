-- The ready lists: jobs that can be handed out, in the order in which that happens.
--
-- Once a job with a group was pushed to a queue, each group has lists of its own there. The jobs without a group form
-- one more group, with an empty name. Groups are served in turn: `ring` scores each group that has ready jobs, the
-- lowest is next, and a group that was served goes to the back. A group that holds as many leases as the policy
-- `group_leased` allows is out of the ring until one of them ends; a fetch gets none of its jobs either.

-- The ring of groups of one priority.
local function ring_of(q, priority)
  if priority == 5 then return q.ring end
  return q.ring .. ':' .. priority
end

-- The ready list of a job in its queue.
local function list_for(q, priority, group)
  if q.grouped and group and group ~= '' then return list_of(q, priority, group) end
  return list_of(q, priority)
end

-- The score for the back of a ring.
local function back_of(ring)
  local last = redis.call('ZRANGE', ring, -1, -1, 'WITHSCORES')
  return tonumber(last[2] or 0) + 1
end

-- Add a group at the back of the ring, unless it is in the ring.
local function join_ring(q, priority, group)
  local ring = ring_of(q, priority)
  redis.call('ZADD', ring, 'NX', back_of(ring), group)
end

-- Let this queue serve groups in turn from now on.
local function begin_groups(q)
  if q.grouped then return end
  redis.call('HSET', q.meta, 'more', '1', 'grouped', '1')
  q.grouped = '1'
  for _, priority in ipairs(priorities_of(q)) do
    if redis.call('LLEN', list_of(q, priority)) > 0 then join_ring(q, priority, '') end
  end
end

-- Add entries of one priority and group at the end of their ready list, or at its head.
local function put_ready(q, priority, group, entries, at_head)
  if #entries == 0 then return end
  local list = list_for(q, priority, group)
  if at_head then
    local count, turned = #entries, {}
    for i = 1, count do turned[i] = entries[count + 1 - i] end  -- the last that is pushed to a head comes first
    redis.call('LPUSH', list, unpack(turned))
  else
    redis.call('RPUSH', list, unpack(entries))
  end
  if q.grouped then join_ring(q, priority, group or '') end
end

-- The same for jobs of many priorities and groups: `collect` each, then `put_collected`.
local function collect(q, lists, priority, group, entry)
  local key = list_for(q, priority, group)
  local list = lists[key]
  if not list then
    list = {priority = priority, group = group, entries = {}}
    lists[key] = list
    lists[#lists + 1] = list
  end
  list.entries[#list.entries + 1] = entry
end

local function put_collected(q, lists)
  for _, list in ipairs(lists) do put_ready(q, list.priority, list.group, list.entries) end
end

-- The ids that the entries of a ready list stand for.
local function ids_of(q, entries)
  if not string.find(q.priorities, 'v', 1, true) then return entries end
  local ids = {}
  for i, entry in ipairs(entries) do ids[i] = string.match(entry, '^%d+') end
  return ids
end

-- Whether a job was handed out before. Its ttl no longer applies then: it was taken in time.
local function was_leased(q, id) return q.leases and redis.call('HEXISTS', q.runs, id) == 1 end

-- Whether the wall clock has not reached the named moment of a scheduled job, although `due` says so: the clock was set
-- back meanwhile. The named moment no longer applies once a job is retried.
local function is_early(q, id, job, now) return job.named and job.run_at > now and not was_leased(q, id) end

-- The highest class of time, see history.lua.
local TIME_MOST = 31

local weight_of, take_ready
do  -- a library has room for 200 local names at once: those in here end with the block

-- Take the first entry of a list that stands for a job, and its record: leftovers of deleted jobs do not use up a turn.
local function pop_live(q, list)
  for _ = 1, LOOK do
    local entry = redis.call('LPOP', list)
    if not entry then return nil end
    local id = string.match(entry, '^%d+')
    local record = redis.call('HGET', q.jobs, id)
    if record and entry_of(id, parse(record)) == entry then return entry, record end
  end
end

-- Take up to `wanted` entries of one priority, the groups in turn, and none of a group that has all the leases it may
-- have. With `leasing`, each entry counts as one more lease. Stops once the entries fill `bytes`. Returns the entries,
-- their records and the group of each. Looks at some hundred groups, and sets `more_groups` when there are others.
local function pop_in_turn(q, priority, wanted, leasing, bytes)
  local ring, most = ring_of(q, priority), policy_of(q).group_leased
  local entries, records, groups, back, looked, passed = {}, {}, {}, back_of(ring), 0, 0
  q.taken = q.taken or {}  -- by group, in this call
  while #entries < wanted and looked < 4 * LOOK and bytes > 0 do
    local next_groups = redis.call('ZRANGE', ring, 0, wanted - #entries - 1)
    if #next_groups == 0 or passed >= redis.call('ZCARD', ring) then break end
    for _, group in ipairs(next_groups) do
      local limited = most > 0 and group ~= ''
      local held = limited and tonumber(redis.call('HGET', q.groups, group) or 0) or 0
      local stays = not limited or held < most
      looked = looked + 1
      if stays and limited and leasing and held + (q.taken[group] or 0) >= most then
        passed = passed + 1
      elseif stays then
        local list = list_for(q, priority, group)
        local entry, record = pop_live(q, list)
        if entry then
          entries[#entries + 1], records[#records + 1], groups[#groups + 1] = entry, record, group
          q.taken[group] = (q.taken[group] or 0) + 1
          passed, bytes = 0, bytes - #record
        end
        stays = redis.call('LLEN', list) > 0
      end
      if stays then
        redis.call('ZADD', ring, back, group)
        back = back + 1
      else
        redis.call('ZREM', ring, group)
      end
      if bytes <= 0 then break end
    end
  end
  q.more_groups = q.more_groups or (#entries < wanted and looked >= 4 * LOOK)
  return entries, records, groups
end

-- A byte of a run that is rewritten costs as much as this many bytes of a record, which is only read.
local OF_A_RUN = 4

-- How many bytes a job counts for when it is handed out.
function weight_of(record, run, leasing)
  return (record and #record or 0) + (run and #run * (leasing and OF_A_RUN or 1) or 0)
end

-- The runs of jobs that were leased before. Drops the records at the end that no longer fit into `bytes`.
local function read_runs(q, ids, records, leasing, bytes)
  if not q.noted then return NONE end
  local runs, fit = {}, 0
  each_value(q.runs, ids, function(_, run, i)
    if i > #records or bytes <= 0 then return true end
    runs[i], fit = run, i
    bytes = bytes - weight_of(records[i], run, leasing)
  end)
  for i = #records, fit + 1, -1 do records[i] = nil end
  return runs
end

-- The records of jobs, of as many from the first on as fit into `bytes`: a few at first, then as many at a time as should
-- fill LOOK_BYTES given the sizes so far. The same as `each_record`, without a call for each.
local function read_records(q, ids, bytes)
  local count, most, records = #ids, 4, nil
  local done = 0
  while done < count and bytes > 0 do
    local last = math.min(done + most, count)
    local found, size = redis.call('HMGET', q.jobs, unpack(ids, done + 1, last)), 0
    for i = 1, last - done do
      if found[i] then size = size + #found[i] end
    end
    if size >= bytes then  -- the last of them do not fit
      size = 0
      for i = 1, last - done do
        if size >= bytes then found[i] = nil elseif found[i] then size = size + #found[i] end
      end
      if not records then return found end
    end
    bytes = bytes - size
    if records then
      for i = 1, #found do records[done + i] = found[i] end
    else
      records = found
    end
    most = math.max(1, math.min(LOOK, math.floor(LOOK_BYTES * (last - done) / (size + 1))))
    done = last
  end
  return records or {}
end

-- Take up to `wanted` entries of one priority off the queue. Returns the entries, their ids, the records and runs of as
-- many of them as fit into `bytes`, and the group of each if there are groups.
local function pop(q, priority, wanted, leasing, bytes)
  if q.grouped then
    local entries, records, groups = pop_in_turn(q, priority, wanted, leasing, bytes)
    local ids = ids_of(q, entries)
    return entries, ids, records, read_runs(q, ids, records, leasing, bytes), groups
  end
  local entries = redis.call('LPOP', list_of(q, priority), wanted)
  if not entries then return NONE end
  local ids, records = ids_of(q, entries), nil
  if #ids == 1 then  -- as most fetches ask for; see bench/before.py
    records = {redis.call('HGET', q.jobs, ids[1])}
  else
    records = read_records(q, ids, bytes)
  end
  return entries, ids, records, read_runs(q, ids, records, leasing, bytes)
end

-- Put the entries from `first` on back to where they came from, in their order.
local function unpop(q, priority, entries, groups, first)
  local lists = {}
  for i = first, #entries do collect(q, lists, priority, groups and groups[i], entries[i]) end
  for _, list in ipairs(lists) do put_ready(q, priority, list.group, list.entries, true) end
end

-- Take the next ready jobs of one queue off their lists, highest priority first: `count` at most, and no more once they
-- fill `bytes` together with their runs. Looks at MOST ids at most, and takes no more than `spare.turns` where groups
-- take turns. Every key was read when the queue was opened.
--
-- Returns {ids=, records=, runs=, special=, late=, late_jobs=, unfinished=, size=, bytes=}: the jobs; the runs of those
-- that were leased before; what `parse` says about those with options, by position; the jobs whose ttl has run out,
-- which are not among the others; whether it stopped before it had looked at everything; the bytes of the records; and
-- the bytes left. `priority` is that of all jobs, false if they have several. The rest is for `count_waits`.
function take_ready(q, now, count, bytes, leasing)
  local ids, records, runs, special, late, late_jobs = {}, {}, NONE, NONE, NONE, NONE
  local found, looked, unfinished, late_bytes, size, one_priority = 0, 0, false, BYTES_A_CALL, 0, nil
  local most = q.grouped and math.min(count, spare.turns) or count
  local byte = string.byte
  -- Of the jobs that were never leased, `alike`, one after the other, have waited for `wait`, which is class `n`. Those
  -- before them: `counts` by class, and the sum.
  local alike, wait, n, counts, waited = 0, 0, 0, nil, 0
  local high, middle, low = -1, 0, 0  -- the last bytes of when the job before was pushed: most come together
  if q.noted then runs = {} end
  for _, priority in ipairs(priorities_of(q)) do
    while found < most and bytes > 0 and not unfinished do
      local wanted = math.min(most - found, LOOK)
      local entries, next_ids, next_records, next_runs, groups = pop(q, priority, wanted, leasing, bytes)
      if #entries == 0 then break end
      local unmoved = next_ids == entries
      for i = 1, #next_records do
        looked = looked + 1
        local record, before = next_records[i], found
        if record then
          local layout, its_priority, _, _, _, a, b, c = byte(record, 1, 8)
          local job, id, run = layout == PLAIN and NOTHING or parse(record), next_ids[i], next_runs[i]
          if unmoved or entry_of(id, job) == entries[i] then
            if job.expires_at and job.expires_at <= steady(q, now) and not was_leased(q, id) then
              if late == NONE then late, late_jobs = {}, {} end
              late[#late + 1], late_jobs[#late_jobs + 1], late_bytes = id, job, late_bytes - #record
            else
              found = found + 1
              ids[found], records[found] = id, record
              if its_priority ~= one_priority then one_priority = one_priority == nil and its_priority end
              if job ~= NOTHING then
                if special == NONE then special = {} end
                special[found] = job
              end
              size = size + #record
              if run then
                runs[found] = run
                bytes = bytes - weight_of(record, run, leasing)
              else
                bytes = bytes - #record
                local run_at = job.run_at
                if c ~= low or b ~= middle or a ~= high or run_at then
                  if alike > 0 then
                    counts = counts or {}
                    counts[n], waited = (counts[n] or 0) + alike, waited + alike * wait
                  end
                  wait = math.max(0, now - (run_at or pushed_at_of(record)))
                  local _, power = math.frexp(wait)
                  n, alike = math.min(power, TIME_MOST), 0
                  high, middle, low = run_at and -1 or a, b, c
                end
                alike = alike + 1
              end
            end
          end
        end
        if groups and found == before then q.taken[groups[i]] = q.taken[groups[i]] - 1 end
      end
      if #next_records < #entries then
        unpop(q, priority, entries, groups, #next_records + 1)
        for i = #next_records + 1, groups and #entries or 0 do q.taken[groups[i]] = q.taken[groups[i]] - 1 end
      end
      unfinished = found < count and (looked >= MOST or bytes <= 0 or late_bytes <= 0)
    end
  end
  if q.grouped then spare.turns = spare.turns - found end
  unfinished = unfinished or (found < count and (q.more_groups or (found >= most and most < count)))
  return {
    ids = ids, records = records, runs = runs, special = special, late = late, late_jobs = late_jobs,
    unfinished = unfinished, size = size, bytes = bytes, priority = one_priority,
    alike = alike, wait = wait, class = n, counts = counts, waited = waited,
  }
end

end

-- How many of `wanted` jobs the policy `rate` allows now. If none: in how many ms it allows the next one. The limit is
-- exact: no window of that length ever has more, whichever servers ask. `logical` is the steady clock.
local function rate_room(q, logical, wanted)
  local policy = policy_of(q)
  if policy.rate_count == 0 then return wanted, nil end
  for _ = 1, SWEEP do
    local note = redis.call('LINDEX', q.rate, 0)
    local at, jobs = string.match(note or '', '^(%d+):(%d+)$')
    -- Moments are cut to whole milliseconds, so a note leaves the window one later.
    if not at or tonumber(at) + policy.rate_ms >= logical then break end
    redis.call('LPOP', q.rate)
    q.rated = q.rated - tonumber(jobs)
  end
  local room = math.min(wanted, policy.rate_count - q.rated)
  if room > 0 then return room, nil end
  local oldest = string.match(redis.call('LINDEX', q.rate, 0) or '', '^%d+')
  return 0, oldest and tonumber(oldest) + policy.rate_ms + 1 - logical
end

-- Note that jobs were handed out, for `rate_room`.
local function note_rate(q, logical, jobs)
  if policy_of(q).rate_count == 0 then return end
  if jobs > 0 then redis.call('RPUSH', q.rate, string.format('%.0f:%d', logical, jobs)) end
  q.rated = q.rated + jobs
  redis.call('HSET', q.meta, 'rated', q.rated, 'clock', q.clock, 'skew', q.skew)
end
