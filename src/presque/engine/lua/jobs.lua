-- Single jobs: look at them, list them, change them, take them away, try dead ones again.

local AHEAD_MOST = 10000

-- In which state a job is, and since or until when: {state, moment}. `job` is what its record says.
local function state_of(q, id, job, now)
  local member, clock = padded(id), steady(q, now)
  q.ahead = clock - now
  for _, state in ipairs(STATES) do
    local score = q[state.used] and redis.call('ZSCORE', q[state.key], member)
    if score then
      local moment = tonumber(score)
      local over = moment <= (state.steady and clock or now)
      if state.becomes == 'ready' and is_early(q, id, job, now) then return state.name, job.run_at end
      if not state.becomes or not over then return state.name, state.steady and moment - q.ahead or moment end
      if state.becomes == 'gone' then return 'gone', moment end
    end
  end
  if job.expires_at and job.expires_at <= clock and not was_leased(q, id) then return 'gone', nil end
  return 'ready', nil
end

-- A job that is there: its record, what that says, its state and the moment. Nil if there is none.
local function look_up(q, id, now)
  local record = redis.call('HGET', q.jobs, id)
  if not record then return nil end
  local job = parse(record)
  local state, moment = state_of(q, id, job, now)
  if state == 'gone' then return nil end
  return record, job, state, moment
end

-- What there is to know of a job for `show` and `list`.
local function told_of(q, id, record, state, moment, run)
  return {
    id, state, moment and string.format('%.0f', moment) or '', record, run or '', max_attempts(q, parse(record)),
    q.ahead,
  }
end

-- show: one job; changes nothing.
--
-- keys   the keys of the queue
-- args   id
-- reply  {id, state, moment, record, run, max_attempts, ahead}, or {} if there is no such job. The moment is when a
--        lease ends, a job is due, died, or is forgotten; '' for ready. The run is '' if it was never leased. `ahead`
--        is by how much the steady clock is ahead, since the record tells by that clock when its ttl ends.
local function show(keys, args)
  local q, now, id = open(keys, 1), clock(), args[1]
  local record, _, state, moment = look_up(q, id, now)
  if not record then return {} end
  return told_of(q, id, record, state, moment, q.leases and redis.call('HGET', q.runs, id))
end

-- Collects the rows of a page: those of the ids, in their order, that are in the state that was asked for. Bodies may
-- be large, so each is read by itself, until the page is full. Returns how many of the ids it has looked at.
local function add_rows(q, now, page, ids, entries)
  local runs = q.leases and #ids > 0 and redis.call('HMGET', q.runs, unpack(ids)) or NONE
  for i, id in ipairs(ids) do
    if #page.rows >= page.limit or page.bytes <= 0 then return i - 1 end
    local record, job, state, moment = look_up(q, id, now)
    if record and state == page.state and (entries == nil or entry_of(id, job) == entries[i]) then
      page.rows[#page.rows + 1] = told_of(q, id, record, state, moment, runs[i])
      page.bytes = page.bytes - #record
    end
  end
  return #ids
end

-- Ready jobs in the order in which they are handed out. The cursor is 'priority:position:entry' of the last one that
-- was looked at: what was taken since has moved it nearer to the head of its list, or off it.
local function list_ready(q, now, page, cursor)
  local from, position, entry = string.match(cursor, '^(%d):(%d+):(.+)$')
  local looked = 0
  for _, priority in ipairs(priorities_of(q)) do
    local list, start = list_of(q, priority), 0
    if from and priority == tonumber(from) then
      local first = math.max(0, tonumber(position) - SWEEP)
      for i, other in ipairs(redis.call('LRANGE', list, first, tonumber(position) + LOOK)) do
        if other == entry then start = first + i end
      end
      if start == 0 then start = (redis.call('LPOS', list, entry, 'MAXLEN', 10 * AHEAD_MOST) or -1) + 1 end
    end
    while not from or priority <= tonumber(from) do
      local entries = redis.call('LRANGE', list, start, start + LOOK - 1)
      local done = add_rows(q, now, page, ids_of(q, entries), entries)
      start, looked = start + done, looked + done
      if done < #entries or looked >= SWEEP then
        if start == 0 then return string.format('%d:0:-', priority) end
        return string.format('%d:%d:%s', priority, start - 1, redis.call('LINDEX', list, start - 1))
      end
      if #entries < LOOK then break end
    end
  end
  return ''
end

-- The same of a queue with groups, whose order depends on turns: newest first, by their ids. The cursor is an id.
local function list_grouped(q, now, page, cursor)
  local id = math.min(tonumber(cursor) or q.seq, q.seq)
  for _ = 1, SWEEP / LOOK do
    local ids = {}
    while #ids < LOOK and id > #ids do ids[#ids + 1] = string.format('%.0f', id - #ids) end
    if #ids == 0 then return '' end
    local done = add_rows(q, now, page, ids)
    id = id - done
    if done < #ids then break end
  end
  return id > 0 and string.format('%.0f', id) or ''
end

-- How many members of a sorted set stand before the row that a cursor names or named, that row included; from the
-- highest score on, and of equal scores from the last member on. Rows that went meanwhile change nothing.
local function rows_before(key, score, member)
  if redis.call('ZSCORE', key, member) == score then return redis.call('ZREVRANK', key, member) + 1 end
  local low = redis.call('ZCOUNT', key, '(' .. score, '+inf')
  local high = low + redis.call('ZCOUNT', key, score, score)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if redis.call('ZREVRANGE', key, middle, middle)[1] < member then high = middle else low = middle + 1 end
  end
  return low
end

-- Jobs of a state that has a sorted set: those with the latest moment first. The cursor is 'score:member'.
local function list_set(q, now, page, cursor, key)
  local score, member = string.match(cursor, '^(%d+):(%d+)$')
  local first = score and rows_before(key, score, member) or 0
  local found, ids = redis.call('ZREVRANGE', key, first, first + page.limit - 1, 'WITHSCORES'), {}
  for i = 1, #found, 2 do ids[#ids + 1] = unpadded(found[i]) end
  local done = add_rows(q, now, page, ids)
  if done < #ids or done == page.limit then
    if done == 0 then return cursor end
    return string.format('%.0f:%s', tonumber(found[2 * done]), found[2 * done - 1])
  end
  return ''
end

-- list: jobs of one state, a page of them; changes nothing.
--
-- keys   the keys of the queue
-- args   state, how many at most, where to go on: '' or what the call before replied, how many bytes they may
--        fill
-- reply  {cursor for the next page or '', then each job as `show` tells it}. Ready jobs come in the order in which
--        they are handed out (in a queue with groups: newest first), scheduled and leased ones by their moment, the
--        latest first, dead and done ones by when they ended, the last first.
local function list(keys, args)
  local q, now, cursor = open(keys, 1), clock(), args[3]
  local page = {state = args[1], limit = math.min(tonumber(args[2]), SWEEP), bytes = tonumber(args[4]), rows = {}}
  name_more(q)
  local following
  if page.state == 'ready' then
    following = (q.grouped and list_grouped or list_ready)(q, now, page, cursor)
  else
    for _, state in ipairs(STATES) do
      if state.name == page.state then following = list_set(q, now, page, cursor, q[state.key]) end
    end
    if not following then return redis.error_reply('ERR there is no state ' .. page.state) end
  end
  return {following, unpack(page.rows)}
end

-- patch: change a job that waits.
--
-- keys   the keys of the queue
-- args   id, priority or '', moment it becomes ready (ms) or '', delay in ms or '', a sealed body or ''
-- reply  'ok', 'missing', or the state that forbids it; 'moved' if it was moved 255 times; 'late' if its ttl
--        would end before it is due
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

  record = record_of(changed, priority, pushed_at_of(record), args[5] ~= '' and args[5] or sealed_of(record))
  redis.call('HSET', q.jobs, id, record)
  local fields, priorities = {}, q.priorities
  if priority ~= 5 and not string.find(priorities, priority, 1, true) then priorities = priorities .. priority end
  if changed.place and not string.find(priorities, 'v', 1, true) then priorities = priorities .. 'v' end
  if priorities ~= q.priorities then add(fields, 'priorities', priorities) end
  q.priorities = priorities
  if moves and (due or (run_at and run_at > now)) then
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

-- remove: take one job away, in whatever state.
--
-- keys   the keys of the queue
-- args   id
-- reply  'deleted', 'missing', or 'cancelled': it is leased, its holder will be told, and it is not tried again
local function remove(keys, args)
  local q, now, id = open(keys, 1), clock(), args[1]
  local record, job, state = look_up(q, id, now)
  if not record then return 'missing' end
  if state == 'leased' then
    local run = run_of(q, id)
    run.more.cancel = true
    redis.call('HSET', q.runs, id, pack_run(run))
    return 'cancelled'
  end
  redis.call('ZCARD', q.ttl)
  redis.call('ZCARD', q.due)
  local list = list_for(q, priority_of(record), job.group)
  local head = redis.call('LINDEX', list, 0)
  ended(q, 'deleted', {id})
  -- Elsewhere in the list it stays until its turn, when it is skipped.
  if head == entry_of(id, job) then redis.call('LPOP', list) end
  for _, one in ipairs(STATES) do
    if q[one.used] then redis.call('ZREM', q[one.key], padded(id)) end
  end
  forget(q, {id}, {job})
  tell_ends(q)
  tell_events(q, now)
  return 'deleted'
end

-- Let dead jobs be tried again, their attempts anew and their errors kept: the n-th at `first` + n times `gap` ms
-- from now.
local function revive(q, ids, now, first, gap)
  steady_clock(q, now)
  local runs, fates, lists, back = redis.call('HMGET', q.runs, unpack(ids)), new_fates(), {}, {}
  local members = {}
  for i, id in ipairs(ids) do members[i] = padded(id) end
  each_record(q, ids, function(id, record, i)
    if not record then return end
    local job, run_at = parse(record), q.clock + math.floor(math.min(first + gap * (i - 1), MS_MOST))
    local run = runs[i] and read_run(runs[i]) or new_run(job, priority_of(record))
    run.attempt, run.token, run.more.finished, run.more.reason = 0, '', nil, nil
    fates.runs[id], back[#back + 1] = run, id
    if run_at > q.clock then
      add(fates.later, run_at, padded(id))
    else
      collect(q, lists, priority_of(record), job.group, entry_of(id, job))
    end
  end)
  redis.call('ZREM', q.dead, unpack(members))
  write_fates(q, fates)
  keep_clock(q)
  put_collected(q, lists)
  happened(q, 'retried', #back, back)
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
    local record, job, state = look_up(q, id, now)
    if not record then return 'missing' end
    if state ~= 'dead' then return state end
    redis.call('LLEN', list_for(q, priority_of(record), job.group))
    revive(q, {id}, now, 0, 0)
    wake(q, 1)
    tell_events(q, now)
    return 'ready'
  end
  local limit, gap, first = math.min(tonumber(args[2]), SWEEP), tonumber(args[3]), tonumber(args[4])
  local ids = redis.call('ZRANGE', q.dead, 0, limit - 1)
  for i, member in ipairs(ids) do ids[i] = unpadded(member) end
  if #ids > 0 then
    revive(q, ids, now, first, gap)
    wake(q, #ids, math.min(first + math.floor(gap), MS_MOST))
  end
  tell_events(q, now)
  return #ids
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
  local record, job, state, moment = look_up(q, id, now)
  if not record then return {} end
  local policy, ahead = policy_of(q), 0
  if state == 'ready' then
    local mine = priority_of(record)
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
  redis.call('LLEN', q.rate)
  redis.call('HSET', q.meta, 'more', '1', 'policy', cmsgpack.pack(own))
  q.policy, q.policy_read = cmsgpack.pack(own), nil
  if policy_of(q).rate_count == 0 then
    redis.call('UNLINK', q.rate)
    redis.call('HDEL', q.meta, 'rated')
  end
  -- Groups that were at their limit may have room now.
  for _, group in ipairs(held) do
    for _, priority in ipairs(priorities_of(q)) do
      if redis.call('LLEN', list_of(q, priority, group)) > 0 then join_ring(q, priority, group) end
    end
  end
  wake(q, q.size)
  return q.policy
end

offer('show', show, {'no-writes'})
offer('list', list, {'no-writes'})
offer('patch', patch, {'allow-oom'})
offer('remove', remove, {'allow-oom'})
offer('retry', retry, {'allow-oom'})
offer('explain', explain, {'no-writes'})
offer('policy', policy, {'allow-oom'})
offer('patch_body', patch, {})  -- a new body may be larger
