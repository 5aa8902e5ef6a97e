-- Single jobs: look at them, list them, change them, take them away, try dead ones again.

-- In which state a job is, and since or until when: {state, moment}. `record` is its record.
local function state_of(q, id, record, now)
  local member = padded(id)
  if q.leases then
    local ends = redis.call('ZSCORE', q.leased, member)
    if ends then return 'leased', tonumber(ends) - q.skew end
    local died = redis.call('ZSCORE', q.dead, member)
    if died then return 'dead', tonumber(died) end
    local until_when = redis.call('ZSCORE', q.done, member)
    if until_when then return tonumber(until_when) > now and 'done' or 'gone', tonumber(until_when) end
  end
  local due = q.timed and redis.call('ZSCORE', q.due, member)
  if due and tonumber(due) > now then return 'scheduled', tonumber(due) end
  local expires_at = parse(record).expires_at
  if expires_at and expires_at <= now and not was_leased(q, id) then return 'gone', expires_at end
  return 'ready', nil
end

-- What there is to know of a job for `show` and `list`.
local function told_of(q, id, record, state, moment)
  return {
    id, state, moment and string.format('%.0f', moment) or '', record,
    q.leases and redis.call('HGET', q.runs, id) or '', max_attempts(q, parse(record)),
  }
end

-- show: one job; changes nothing.
--
-- keys   the keys of the queue
-- args   id
-- reply  {id, state, moment, record, run, max_attempts}, or {} if there is no such job. The moment is when a
--        lease ends, a job is due, died, or is forgotten; '' for ready.
local function show(keys, args)
  local q, now, id = open(keys, 1), clock(), args[1]
  local record = redis.call('HGET', q.jobs, id)
  if not record then return {} end
  local state, moment = state_of(q, id, record, now)
  if state == 'gone' then return {} end
  return told_of(q, id, record, state, moment)
end

-- The ready jobs with an id up to `cursor`, newest first. Goes through the ids, since those that wait are for
-- the most part the newest; looks at SWEEP ids at most.
local function list_ready(q, now, limit, cursor)
  local id, found = math.min(tonumber(cursor) or q.seq, q.seq), {}
  for _ = 1, SWEEP / LOOK do
    local ids = {}
    while #ids < LOOK and id > 0 do
      ids[#ids + 1] = string.format('%.0f', id)
      id = id - 1
    end
    if #ids == 0 then return found, '' end
    for i, record in ipairs(redis.call('HMGET', q.jobs, unpack(ids))) do
      if record and state_of(q, ids[i], record, now) == 'ready' then
        found[#found + 1] = told_of(q, ids[i], record, 'ready', nil)
        if #found == limit then return found, string.format('%.0f', tonumber(ids[i]) - 1) end
      end
    end
  end
  return found, string.format('%.0f', id)
end

-- list: jobs of one state, newest first, a page of them; changes nothing.
--
-- keys   the keys of the queue
-- args   state, how many at most, where to go on: '' or what the call before replied, how many bytes they may
--        fill
-- reply  {cursor for the next page or '', then each job as `show` tells it}. Scheduled and leased jobs come by
--        their moment, the latest first, dead and done ones by when they ended.
local function list(keys, args)
  local q, now = open(keys, 1), clock()
  local state, limit, cursor, bytes = args[1], math.min(tonumber(args[2]), SWEEP), args[3], tonumber(args[4])
  if state == 'ready' then
    local found, next_cursor = list_ready(q, now, limit, cursor)
    return {next_cursor, unpack(found)}
  end
  name_more(q)
  local key = ({scheduled = q.due, leased = q.leased, dead = q.dead, done = q.done})[state]
  local first = 0
  local score, member = string.match(cursor, '^(%d+):(%d+)$')
  if score then
    local rank = redis.call('ZREVRANK', key, member)
    -- If that job has gone meanwhile, go on behind those with a higher score.
    first = rank and rank + 1 or redis.call('ZCOUNT', key, '(' .. score, '+inf')
  end
  local page, found = redis.call('ZREVRANGE', key, first, first + limit - 1, 'WITHSCORES'), {''}
  for i = 1, #page, 2 do
    local id = unpadded(page[i])
    local record = redis.call('HGET', q.jobs, id)
    if record then
      local is, moment = state_of(q, id, record, now)
      if is == state then
        found[#found + 1] = told_of(q, id, record, is, moment)
        bytes = bytes - #record
      end
    end
    if i + 1 == #page and #page == 2 * limit or bytes <= 0 then
      found[1] = string.format('%.0f', tonumber(page[i + 1])) .. ':' .. page[i]
      break
    end
  end
  return found
end

-- patch: change a job that waits.
--
-- keys   the keys of the queue
-- args   id, priority or '', moment it becomes ready (ms) or '', delay in ms or '', '1' if there is a body, body
-- reply  'ok', 'missing', or the state that forbids it; 'moved' if it was moved 255 times; 'late' if its ttl
--        would end before it is due
local function patch(keys, args)
  local q, now, id = open(keys, 1), clock(), args[1]
  local record = redis.call('HGET', q.jobs, id)
  if not record then return 'missing' end
  local state = state_of(q, id, record, now)
  if state == 'gone' then return 'missing' end
  if state ~= 'ready' and state ~= 'scheduled' then return state end
  local job, pushed_at = parse(record), pushed_at_of(record)
  local changed = {priority = tonumber(args[2]) or priority_of(record), place = job.place}
  for _, field in ipairs({'uniq', 'until_done', 'expires_at', 'attempts', 'keep', 'group', 'trace', 'run_at'}) do
    changed[field] = job[field]
  end
  local run_at = tonumber(args[3])
  if args[4] ~= '' then run_at = now + tonumber(args[4]) + (tonumber(args[4]) > 0 and 1 or 0) end
  local moves = changed.priority ~= priority_of(record) or run_at
  if run_at then changed.run_at = run_at end
  if run_at and job.expires_at and run_at >= job.expires_at and not was_leased(q, id) then return 'late' end
  local due = q.timed and redis.call('ZSCORE', q.due, padded(id))
  if moves and not due then
    if (job.place or 0) == 255 then return 'moved' end
    changed.place = (job.place or 0) + 1
  end
  name_more(q)
  redis.call('LLEN', list_for(q, changed.priority, job.group))
  redis.call('ZCARD', ring_of(q, changed.priority))
  redis.call('ZCARD', q.due)

  record = record_of(changed, pushed_at, args[5] == '1' and args[6] or string.sub(record, job.body))
  redis.call('HSET', q.jobs, id, record)
  local fields, priorities = {}, q.priorities
  if changed.priority ~= 5 and not string.find(priorities, changed.priority, 1, true) then
    priorities = priorities .. changed.priority
  end
  if changed.place and not string.find(priorities, 'v', 1, true) then priorities = priorities .. 'v' end
  if priorities ~= q.priorities then add(fields, 'priorities', priorities) end
  q.priorities = priorities
  if moves and (due or (run_at and run_at > now)) then
    redis.call('ZADD', q.due, run_at or due, padded(id))
    if not q.timed then add(fields, 'timed', '1') end
    wake(q, 0, math.max(0, (run_at or tonumber(due)) - now))
  elseif moves then
    put_ready(q, changed.priority, job.group, {entry_of(id, record)})
    wake(q, 1)
  end
  if #fields > 0 then redis.call('HSET', q.meta, unpack(fields)) end
  happened_to(q, 'changed', id)
  tell_events(q, now)
  return 'ok'
end

-- remove: take one job away, in whatever state.
--
-- keys   the keys of the queue
-- args   id
-- reply  'deleted', 'missing', or 'cancelled': it is leased, its holder will be told, and it is not tried again
local function remove(keys, args)
  local q, now, id = open(keys, 1), clock(), args[1]
  local record = redis.call('HGET', q.jobs, id)
  if not record then return 'missing' end
  local state = state_of(q, id, record, now)
  if state == 'gone' then return 'missing' end
  if state == 'leased' then
    local run = run_of(q, id)
    run.cancel = true
    save_run(q, id, run)
    return 'cancelled'
  end
  redis.call('ZCARD', q.ttl)
  redis.call('ZCARD', q.due)
  ended(q, id, 'deleted')
  redis.call('ZREM', q.due, padded(id))
  if q.leases then
    redis.call('ZREM', q.dead, padded(id))
    redis.call('ZREM', q.done, padded(id))
  end
  forget(q, {id}, {parse(record)})
  tell_ends(q)
  tell_events(q, now)
  return 'deleted'
end

-- Let a dead job be ready again at `run_at`, its attempts anew and its errors kept.
local function revive(q, id, record, now, run_at)
  local run = run_of(q, id) or {}
  redis.call('ZREM', q.dead, padded(id))
  happened_to(q, 'retried', id)
  run.attempt, run.token, run.finished, run.reason = 0, '', nil, nil
  save_run(q, id, run)
  if run_at > now then
    redis.call('ZADD', q.due, run_at, padded(id))
    if not q.timed then
      redis.call('HSET', q.meta, 'timed', '1')
      q.timed = '1'
    end
  else
    put_ready(q, priority_of(record), parse(record).group, {entry_of(id, record)})
  end
end

-- retry: let dead jobs be tried again.
--
-- keys   the keys of the queue
-- args   the id of one job; or '' for those that died first, then how many at most, ms between two of them, and
--        in how many ms the first is due
-- reply  how many; for one job 'ready', 'missing', or the state that it is in instead
local function retry(keys, args)
  local q, now, id = open(keys, 1), clock(), args[1]
  if not q.leases then check_leases(q) end
  if id ~= '' then
    local record = redis.call('HGET', q.jobs, id)
    if not record then return 'missing' end
    local state = state_of(q, id, record, now)
    if state ~= 'dead' then return state == 'gone' and 'missing' or state end
    redis.call('LLEN', list_for(q, priority_of(record), parse(record).group))
    revive(q, id, record, now, now)
    wake(q, 1)
    tell_events(q, now)
    return 'ready'
  end
  local limit, gap, first = math.min(tonumber(args[2]), SWEEP), tonumber(args[3]), tonumber(args[4])
  local members = redis.call('ZRANGE', q.dead, 0, limit - 1)
  for i, member in ipairs(members) do
    local dead_id = unpadded(member)
    local record = redis.call('HGET', q.jobs, dead_id)
    if record then
      revive(q, dead_id, record, now, now + first + math.floor(gap * (i - 1)))
    else
      redis.call('ZREM', q.dead, member)
    end
  end
  if #members > 0 then wake(q, #members, first + math.floor(gap)) end
  tell_events(q, now)
  return #members
end

local AHEAD_MOST = 10000

-- explain: what a queue and a job in it wait for; changes nothing.
--
-- keys   the keys of the queue
-- args   id
-- reply  {} if there is no such job; else its state, its moment or '', since when the queue is stopped or '',
--        how many jobs are ahead (-1 for more than AHEAD_MOST), leased now, most leased (0 for any), ms until
--        the rate allows one ('' if it does now), jobs and seconds of the rate, group or '', leased of the
--        group, most leased of a group, attempt, attempts allowed
local function explain(keys, args)
  local q, now, id = open(keys, 1), clock(), args[1]
  local record = redis.call('HGET', q.jobs, id)
  if not record then return {} end
  local state, moment = state_of(q, id, record, now)
  if state == 'gone' then return {} end
  local policy, job, ahead = policy_of(q), parse(record), 0
  if state == 'ready' then
    local mine = priority_of(record)
    for _, priority in ipairs(priorities_of(q)) do
      if priority > mine then ahead = ahead + redis.call('LLEN', list_for(q, priority, job.group)) end
    end
    local at = redis.call('LPOS', list_for(q, mine, job.group), entry_of(id, record), 'MAXLEN', AHEAD_MOST)
    ahead = at and ahead + at or -1
  end
  local free_in = ''
  if policy.rate_count > 0 then
    local logical = math.max(now + q.skew, q.clock)
    local counted = q.rated
    for _, note in ipairs(redis.call('LRANGE', q.rate, 0, SWEEP)) do
      local at, jobs = string.match(note, '^(%d+):(%d+)$')
      if tonumber(at) + policy.rate_ms >= logical then
        if counted >= policy.rate_count then
          free_in = string.format('%.0f', tonumber(at) + policy.rate_ms + 1 - logical)
        end
        break
      end
      counted = counted - tonumber(jobs)
    end
  end
  local run = q.leases and run_of(q, id)
  return {
    state, moment and string.format('%.0f', moment) or '', q.stopped or '', ahead, q.in_flight, policy.max_leased,
    free_in, policy.rate_count, policy.rate_ms, job.group or '',
    job.group and tonumber(redis.call('HGET', q.groups, job.group) or 0) or 0, policy.group_leased,
    run and run.attempt or 0, max_attempts(q, job),
  }
end

-- policy: read or change the policy of a queue.
--
-- keys   the keys of the queue
-- args   the changes (MessagePack: a map in the words of policy.lua, with false to go back to the default),
--        or '' to change nothing
-- reply  what differs from the defaults (MessagePack)
local function policy(keys, args)
  local q = open(keys, 1)
  local own = q.policy and cmsgpack.unpack(q.policy) or {}
  if args[1] == '' then return cmsgpack.pack(own) end
  for name, value in pairs(cmsgpack.unpack(args[1])) do
    if value == false or value == DEFAULTS[name] then own[name] = nil else own[name] = value end
  end
  check_groups(q)
  local held = redis.call('HKEYS', q.groups)
  redis.call('HSET', q.meta, 'more', '1', 'policy', cmsgpack.pack(own))
  q.policy, q.policy_read = cmsgpack.pack(own), nil
  -- Groups that were at their limit may have room now.
  for _, group in ipairs(held) do
    for _, priority in ipairs(priorities_of(q)) do
      if redis.call('LLEN', list_of(q, priority, group)) > 0 then join_ring(q, priority, group) end
    end
  end
  wake(q, q.size)
  return q.policy
end
