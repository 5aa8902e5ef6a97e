-- The state of a job, all jobs of a state one after the other, and how jobs are taken out of a state by a request.

local AHEAD_MOST = 10000

-- The state of a job, and since or until when: {state, moment}. `job` is what `parse` returned.
local function state_of(q, id, job, now)
  local member, clock = padded(id), steady(q, now)
  local late = job.expires_at and job.expires_at <= clock
  q.ahead = clock - now
  for _, state in ipairs(STATES) do
    local score = q[state.used] and redis.call('ZSCORE', q[state.key], member)
    if score then
      local moment = tonumber(score)
      local over = moment <= (state.steady and clock or now)
      if state.becomes == 'ready' and late and not was_leased(q, id) then return 'gone', nil end
      if state.becomes == 'ready' and is_early(q, id, job, now) then return state.name, job.run_at end
      if not state.becomes or not over then return state.name, state.steady and moment - q.ahead or moment end
      if state.becomes == 'gone' then return 'gone', moment end
    end
  end
  if late and not was_leased(q, id) then return 'gone', nil end
  return 'ready', nil
end

-- Look up a job: its record, what `parse` says of it, its state and the moment. Nil if there is none.
local function look_up(q, id, now)
  local record = redis.call('HGET', q.jobs, id)
  if not record then return nil end
  local job = parse(record)
  local state, moment = state_of(q, id, job, now)
  if state == 'gone' then return nil end
  return record, job, state, moment
end

-- What `show` and `list` return about a job.
local function told_of(q, id, record, state, moment, run)
  return {
    id, state, moment and string.format('%.0f', moment) or '', record, run or '', max_attempts(q, parse(record)),
    q.ahead,
  }
end

-- Members and scores of a sorted set between two positions: from the highest score on, or from the lowest if `upward`.
local function rows_of(key, first, last, upward)
  if upward then return redis.call('ZRANGE', key, first, last, 'WITHSCORES') end
  return redis.call('ZREVRANGE', key, first, last, 'WITHSCORES')
end

-- How many members of a sorted set come before the row that a cursor names or named, including that row: from the
-- highest score on, and among equal scores from the last member on, or the other way round if `upward`. Rows that were
-- removed meanwhile make no difference.
local function rows_before(key, score, member, upward)
  if redis.call('ZSCORE', key, member) == score then
    return (upward and redis.call('ZRANK', key, member) or redis.call('ZREVRANK', key, member)) + 1
  end
  local low = upward and redis.call('ZCOUNT', key, '-inf', '(' .. score) or redis.call('ZCOUNT', key, '(' .. score, '+inf')
  local high = low + redis.call('ZCOUNT', key, score, score)
  while low < high do
    local middle = math.floor((low + high) / 2)
    local other = rows_of(key, middle, middle, upward)[1]
    local passed = upward and other <= member or not upward and other >= member
    if passed then low = middle + 1 else high = middle end
  end
  return low
end

-- Jobs of a state with a sorted set, the latest moment first, or last if `upward`. The cursor is 'score:member'.
local function walk_set(key, cursor, most, upward, visit)
  local score, member = string.match(cursor, '^(%d+):(%d+)$')
  local first = score and rows_before(key, score, member, upward) or 0
  local found, ids = rows_of(key, first, first + most - 1, upward), {}
  for i = 1, #found, 2 do ids[#ids + 1] = unpadded(found[i]) end
  local done = visit(ids, nil, found)
  if done < #ids or done == most then
    if done == 0 then return cursor end
    return string.format('%.0f:%s', tonumber(found[2 * done]), found[2 * done - 1])
  end
  return ''
end

-- Ready jobs in the order in which they are handed out. The cursor is 'priority:position:entry' of the last entry that
-- was looked at. If jobs were taken since, that entry is nearer to the head of its list, or gone. An entry '-' stands
-- for the place before the first.
local function walk_ready(q, cursor, most, visit)
  local from, position, entry = string.match(cursor, '^(%d):(%d+):(.+)$')
  local looked = 0
  for _, priority in ipairs(priorities_of(q)) do
    local list, start = list_of(q, priority), 0
    if from and priority == tonumber(from) and entry ~= '-' then
      local first = math.max(0, tonumber(position) - SWEEP)
      for i, other in ipairs(redis.call('LRANGE', list, first, tonumber(position) + LOOK)) do
        if other == entry then start = first + i end
      end
      if start == 0 then start = (redis.call('LPOS', list, entry, 'MAXLEN', 10 * AHEAD_MOST) or -1) + 1 end
    end
    while not from or priority <= tonumber(from) do
      local entries = redis.call('LRANGE', list, start, start + LOOK - 1)
      local done = visit(ids_of(q, entries), entries)
      start, looked = start + done, looked + done
      if done < #entries or looked >= most then
        if start == 0 then return string.format('%d:0:-', priority) end
        return string.format('%d:%d:%s', priority, start - 1, redis.call('LINDEX', list, start - 1))
      end
      if #entries < LOOK then break end
    end
  end
  return ''
end

-- The same for a queue with groups, whose order depends on turns: by id, the newest first, or last if `upward`. The
-- cursor is the id of the next job to look at.
local function walk_grouped(q, cursor, most, upward, visit)
  local id = tonumber(cursor) or (upward and 1 or q.seq)
  if not upward then id = math.min(id, q.seq) end
  for _ = 1, most / LOOK + 1 do
    local ids = {}
    while #ids < LOOK and id > 0 and id <= q.seq do
      ids[#ids + 1] = string.format('%.0f', id)
      id = upward and id + 1 or id - 1
    end
    if #ids == 0 then return '' end
    local done = visit(ids)
    if done < #ids then return ids[done + 1] end
  end
  return id > 0 and id <= q.seq and string.format('%.0f', id) or ''
end

-- Go through the jobs of one state, about `most` of them at most, from `cursor` on: '' or what the last call returned.
-- `visit` gets the ids, their entries in the ready list (nil if they are in none), and for a state with a sorted set its
-- members and scores. It returns how many it has looked at. Returns the cursor to go on with, '' at the end.
local function walk(q, state, cursor, most, upward, visit)
  name_more(q)
  if state == 'ready' then
    if q.grouped then return walk_grouped(q, cursor, most, upward, visit) end
    return walk_ready(q, cursor, most, visit)
  end
  for _, one in ipairs(STATES) do
    if one.name == state then return walk_set(q[one.key], cursor, most, upward, visit) end
  end
  error(redis.error_reply('ERR there is no state ' .. state))
end

-- Read the keys from which a job will be removed, before anything is written.
local function check_removal(q, record, job)
  redis.call('ZCARD', q.ttl)
  redis.call('ZCARD', q.due)
  redis.call('LLEN', list_for(q, priority_of(record), job.group))
end

-- Remove entries without a job from the head of a ready list, SWEEP at most. Returns how many.
local function trim_head(q, list)
  local gone = 0
  while gone < SWEEP do
    local entries, stale = redis.call('LRANGE', list, 0, LOOK - 1), 0
    if #entries == 0 then break end
    local ids = ids_of(q, entries)
    while stale < #entries and redis.call('HEXISTS', q.jobs, ids[stale + 1]) == 0 do stale = stale + 1 end
    if stale > 0 then redis.call('LPOP', list, stale) end
    gone = gone + stale
    if stale < #entries then break end
  end
  return gone
end

-- Remove jobs that nobody holds, in any state; `how` is 'deleted' or 'moved'. `lists` are the ready lists that may hold
-- some of them. Entries of removed jobs at the head of these lists are removed; elsewhere they stay until their turn,
-- and are skipped then.
local function take_away(q, how, ids, jobs, lists)
  if #ids == 0 then return end
  local members = {}
  for i, id in ipairs(ids) do members[i] = padded(id) end
  happened(q, how, #ids, ids)
  if #q.ended == 0 then q.ended = {} end
  add(q.ended, 'deleted', table.concat(ids, ','))
  for _, one in ipairs(STATES) do
    if q[one.used] then redis.call('ZREM', q[one.key], unpack(members)) end
  end
  forget(q, ids, jobs)
  for list in pairs(lists) do trim_head(q, list) end
end

-- Retry dead jobs. Their attempts count from 0, and their errors are kept. The n-th is due `first` + n times `gap` ms
-- from now.
local function revive(q, ids, now, first, gap)
  steady_clock(q, now)
  begin(q, now)
  mark_busy(q)
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
