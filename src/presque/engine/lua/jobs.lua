-- Single jobs: show, list, change and delete them, and retry dead ones.

-- show: one job; changes nothing.
--
-- keys   the keys of the queue
-- args   id
-- reply  {id, state, moment, record, run, max_attempts, ahead}, or {} if there is no such job. The moment is when the
--        lease ends, or when the job is due, died, or will be forgotten; '' for ready. The run is '' if it was never
--        leased. `ahead` is how far the steady clock is ahead, which is the clock of the ttl in the record.
local function show(keys, args)
  local q, now, id = open(keys, 1), clock(), args[1]
  local record, _, state, moment = look_up(q, id, now)
  if not record then return {} end
  return told_of(q, id, record, state, moment, q.leases and redis.call('HGET', q.runs, id))
end

-- Collect the rows of a page: the jobs of these ids, in their order, that are in the wanted state. Bodies may be large,
-- so they are read one at a time until the page is full. Returns how many of the ids were looked at.
local function add_rows(q, now, page, ids, entries)
  for i, id in ipairs(ids) do
    if #page.rows >= page.limit or page.bytes <= 0 then return i - 1 end
    local record, job, state, moment = look_up(q, id, now)
    page.bytes = page.bytes - weight_of(record)
    if record and state == page.state and (entries == nil or entry_of(id, job) == entries[i]) then
      local run = q.leases and redis.call('HGET', q.runs, id)
      page.rows[#page.rows + 1] = told_of(q, id, record, state, moment, run)
      page.bytes = page.bytes - weight_of(nil, run)
    end
  end
  return #ids
end

-- list: jobs of one state, a page of them; changes nothing.
--
-- keys   the keys of the queue
-- args   state, how many at most, where to go on: '' or what the call before replied, how many bytes they may
--        fill
-- reply  {cursor for the next page or '', then each job in the form of `show`}. Ready jobs come in the order in which
--        they are handed out (in a queue with groups: newest first); scheduled and leased ones by their moment, dead
--        and done ones by when they ended, both latest first.
local function list(keys, args)
  local q, now = open(keys, 1), clock()
  local page = {state = args[1], limit = math.min(tonumber(args[2]), SWEEP), bytes = tonumber(args[4]), rows = {}}
  local most = page.state == 'ready' and SWEEP or page.limit
  local following = walk(q, page.state, args[3], most, false, function(ids, entries)
    return add_rows(q, now, page, ids, entries)
  end)
  return {following, unpack(page.rows)}
end

-- patch: change a waiting job.
--
-- keys   the keys of the queue
-- args   id, priority or '', moment it becomes ready (ms) or '', delay in ms or '', a sealed body or ''
-- reply  'ok', 'missing', or the state in which it cannot be changed; 'moved' if it was moved 255 times already; 'late'
--        if its ttl would end before it is due
local function patch(keys, args)
  local q, now, id = open(keys, 1), clock(), args[1]
  local record, job, state = look_up(q, id, now)
  if not record then return 'missing' end
  if state ~= 'ready' and state ~= 'scheduled' then return state end
  if job == DAMAGED then return 'damaged' end
  steady_clock(q, now)
  local changed, priority = {}, tonumber(args[2]) or priority_of(record)
  for name, value in pairs(job) do changed[name] = value end
  local run_at, at = tonumber(args[3]), nil
  if run_at then at = run_at + q.skew end
  if args[4] ~= '' then
    local delay = tonumber(args[4])
    run_at, at = now + delay + (delay > 0 and 1 or 0), q.clock + delay + (delay > 0 and 1 or 0)
  end
  local moves = priority ~= priority_of(record) or run_at
  if run_at then changed.run_at, changed.named = run_at, args[3] ~= '' or nil end
  if at and job.expires_at and at >= job.expires_at and not was_leased(q, id) then return 'late' end
  local due = q.timed and redis.call('ZSCORE', q.due, padded(id))
  if moves and not due then
    if (job.place or 0) == 255 then return 'moved' end
    changed.place = (job.place or 0) + 1
  end
  name_more(q)
  redis.call('LLEN', list_for(q, priority, job.group))
  redis.call('ZCARD', ring_of(q, priority))
  redis.call('ZCARD', q.due)

  local before = #record
  record = record_of(changed, priority, pushed_at_of(record), args[5] ~= '' and args[5] or sealed_of(record))
  local quotas = #record > before and quotas_of(q)
  if quotas then
    local refused = refused_by(quotas, #record - before, true)
    if refused then return refused end
  end
  local run = args[5] ~= '' and q.leases and run_of(q, id)
  begin(q, now)
  redis.call('HSET', q.jobs, id, record)
  forget_head(q, id)
  q.grown = q.grown + #record - before
  if run and run.more.saved then  -- saved for the job as it was before the change
    run.more.saved = nil
    redis.call('HSET', q.runs, id, pack_run(run))
  end
  local fields, priorities = {}, q.priorities
  if priority ~= 5 and not string.find(priorities, priority, 1, true) then priorities = priorities .. priority end
  if changed.place and not string.find(priorities, 'v', 1, true) then priorities = priorities .. 'v' end
  if priorities ~= q.priorities then add(fields, 'priorities', priorities) end
  q.priorities = priorities
  local later = run_at and run_at > now or due and not run_at
  if due and moves and not later then redis.call('ZREM', q.due, padded(id)) end
  if moves and later then
    redis.call('ZADD', q.due, at or due, padded(id))
    add(fields, 'timed', '1')
    add(fields, 'more', '1')
    keep_clock(q)
    wake(q, 0, math.max(0, (at or tonumber(due)) - q.clock))
  elseif moves then
    put_ready(q, priority, job.group, {entry_of(id, changed)})
    wake(q, 1)
  end
  if #fields > 0 then redis.call('HSET', q.meta, unpack(fields)) end
  happened_to(q, 'changed', id)
  tell_events(q, now)
  return 'ok'
end

-- remove: delete one job, in any state.
--
-- keys   the keys of the queue
-- args   id
-- reply  'deleted', 'missing', or 'cancelled' for a leased job: its holder will be told, and it is not tried again
local function remove(keys, args)
  local q, now, id = open(keys, 1), clock(), args[1]
  local record, job, state = look_up(q, id, now)
  if not record then return 'missing' end
  look_who_watches(q)
  if state == 'leased' then
    local run = run_of(q, id)
    run.more.cancel = true
    redis.call('HSET', q.runs, id, pack_run(run))
    return 'cancelled'
  end
  check_removal(q, record, job)
  begin(q, now)
  take_away(q, 'deleted', {id}, {job}, {[list_for(q, priority_of(record), job.group)] = true})
  touch(q)
  tell_ends(q)
  tell_events(q, now)
  return 'deleted'
end

-- retry: let dead jobs be tried again.
--
-- keys   the keys of the queue
-- args   the id of one job; or '' for those that died first, then how many at most, the ms between two of them, and
--        after how many ms the first is due
-- reply  {how many, how many dead jobs are left}; for one job 'ready', 'missing', or the state that it is in
local function retry(keys, args)
  local q, now, id = open(keys, 1), clock(), args[1]
  if not q.leases then check_leases(q) end
  if id ~= '' then
    local record, job, state = look_up(q, id, now)
    if not record then return 'missing' end
    if state ~= 'dead' then return state end
    redis.call('LLEN', list_for(q, priority_of(record), job.group))
    revive(q, {id}, now, 0, 0)
    wake(q, 1)
    tell_events(q, now)
    return 'ready'
  end
  local limit, gap, first = math.min(tonumber(args[2]), spare.jobs), tonumber(args[3]), tonumber(args[4])
  local found, ids = redis.call('ZRANGE', q.dead, 0, limit - 1), {}
  for i, member in ipairs(found) do found[i] = unpadded(member) end
  for i = 1, affordable(found, q.jobs, q.runs) do ids[i] = found[i] end
  if #ids > 0 then
    revive(q, ids, now, first, gap)
    wake(q, #ids, math.min(first + math.floor(gap), MS_MOST))
  end
  tell_events(q, now)
  return {#ids, redis.call('ZCARD', q.dead)}
end

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
  local head = head_of(q, id)
  if not head then return {} end
  local job, state, moment = head.job, state_of(q, id, head.job, now)
  if state == 'gone' then return {} end
  local policy, ahead = policy_of(q), 0
  if state == 'ready' then
    local mine = head.priority
    for _, priority in ipairs(priorities_of(q)) do
      if priority > mine then ahead = ahead + redis.call('LLEN', list_for(q, priority, job.group)) end
    end
    local at = redis.call('LPOS', list_for(q, mine, job.group), entry_of(id, job), 'MAXLEN', AHEAD_MOST)
    ahead = at and ahead + at or -1
  end
  local free_in = ''
  if policy.rate_count > 0 then
    local logical = steady(q, now)
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
--        or '' to change nothing; 'known' to refuse to change that of a queue of which nothing is stored yet
-- reply  {'new'} if that was refused; else what differs from the defaults (MessagePack)
local function policy(keys, args)
  local q = open(keys, 1)
  local own = q.policy and cmsgpack.unpack(q.policy) or {}
  if args[1] == '' then return cmsgpack.pack(own) end
  local refused = refused_new(q, args[2] == 'known')
  if refused then return {refused} end
  for name, value in pairs(cmsgpack.unpack(args[1])) do
    if value == false or value == DEFAULTS[name] then own[name] = nil else own[name] = value end
  end
  check_groups(q)
  redis.call('LLEN', q.rate)
  redis.call('HSET', q.meta, 'more', '1', 'policy', cmsgpack.pack(own))
  q.policy, q.policy_read = cmsgpack.pack(own), nil
  if policy_of(q).expires > 0 then mark_busy(q) end
  if policy_of(q).rate_count == 0 then
    redis.call('UNLINK', q.rate)
    redis.call('HDEL', q.meta, 'rated')
  end
  wake(q, q.size)
  return q.policy
end

-- rejoin: give groups a turn that were at their limit and may have room since the policy was changed, some at a time. A
-- group that is missed gets its turn when one of its leases ends.
--
-- keys   the keys of the queue
-- args   where to go on, '0' to begin
-- reply  where to go on, '0' at the end
local function rejoin(keys, args)
  local q = open(keys, 1)
  if not q.grouped then return '0' end
  local some, waiting = redis.call('HSCAN', q.groups, args[1], 'COUNT', LOOK), {}
  for i = 1, #some[2], 2 do
    for _, priority in ipairs(priorities_of(q)) do
      if redis.call('LLEN', list_of(q, priority, some[2][i])) > 0 then add(waiting, priority, some[2][i]) end
    end
  end
  for i = 1, #waiting, 2 do join_ring(q, waiting[i], waiting[i + 1]) end
  wake(q, q.size)
  return some[1]
end

offer('show', show, {'no-writes'})
offer('list', list, {'no-writes'})
offer('patch', patch, {'allow-oom'})
offer('remove', remove, {'allow-oom'})
offer('retry', retry, {'allow-oom'})
offer('explain', explain, {'no-writes'})
offer('policy', policy, {})
offer('policy_known', policy, {'allow-oom'})
offer('rejoin', rejoin, {'allow-oom'})
offer('patch_body', patch, {})  -- a new body may be larger
