-- Recurring jobs. All of them live in six keys, under one hash tag:
--
--   ns:{:cron}:jobs    hash  name -> definition without the body, as engine/recurring.py writes it (JSON)
--   ns:{:cron}:bodies  hash  name -> the job that is pushed each time
--   ns:{:cron}:due     zset  name -> when it is fired next (ms): schedules that name moments of the wall clock
--   ns:{:cron}:steady  zset  name -> the same for fixed intervals, in ms of the clock that never goes back
--   ns:{:cron}:notes   hash  name -> era, when it was fired last (ms) and since when it is paused (ms), or '-',
--                            separated by spaces
--   ns:{:cron}:clock   hash  clock, skew, as in runs.lua; eras: how many eras were begun
--
-- A recurring job that is in neither `due` nor `steady` is paused, or its schedule has no moment left.
--
-- An era is a stretch of time in which the schedule did not change and no clock was found to be wrong, so its moments
-- only grow. Queues remember the last moment that was pushed, prefixed by its era. So each moment is pushed once, and
-- one that a wrong clock brought too early can come again in a new era.
--
-- Every call that writes stores the steady clock here, as for a queue with leases. Idle servers need not write each
-- second: they pass how far they have seen the clock go.

local CRONS_MOST = 1000

local function open_crons(keys)
  redis.call('HLEN', keys[2])
  redis.call('ZCARD', keys[3])
  redis.call('ZCARD', keys[4])
  redis.call('HLEN', keys[5])
  local clock = redis.call('HMGET', keys[6], 'clock', 'skew')
  return {
    jobs = keys[1], bodies = keys[2], due = keys[3], steady = keys[4], notes = keys[5], state = keys[6],
    clock = tonumber(clock[1] or 0), skew = tonumber(clock[2] or 0), size = redis.call('HLEN', keys[1]),
  }
end

local function keep_cron_clock(c) redis.call('HSET', c.state, 'clock', c.clock, 'skew', c.skew) end

local function begin_era(c) return redis.call('HINCRBY', c.state, 'eras', 1) end

-- The note of a recurring job, as {era, fired, paused}.
local NO_NOTE = '0 - -'
local function note_of(c, name)
  local era, fired, paused = string.match(redis.call('HGET', c.notes, name) or NO_NOTE, '^(%S+) (%S+) (%S+)$')
  return {era or '0', fired or '-', paused or '-'}
end

local function save_note(c, name, note)
  for i = 1, 3 do
    if type(note[i]) == 'number' then note[i] = string.format('%.0f', note[i]) end
  end
  redis.call('HSET', c.notes, name, table.concat(note, ' '))
end

-- Store when a recurring job is fired next: `kind` is 'due' or 'steady', the moment '' for never.
local function set_next(c, name, kind, moment)
  redis.call('ZREM', kind == 'due' and c.steady or c.due, name)
  if moment == '' then
    redis.call('ZREM', c[kind], name)
  else
    redis.call('ZADD', c[kind], moment, name)
  end
end

-- When a recurring job is fired next, and by which clock; ('', '') for never.
local function next_of(c, name)
  local due = redis.call('ZSCORE', c.due, name)
  if due then return due, 'due' end
  local steady = redis.call('ZSCORE', c.steady, name)
  if steady then return steady, 'steady' end
  return '', ''
end

-- Add what is known of a recurring job except its body: name, definition, next moment, its clock, note.
local function add_cron(c, reply, name, definition)
  local moment, kind = next_of(c, name)
  add(reply, name, definition)
  add(reply, moment, kind)
  reply[#reply + 1] = redis.call('HGET', c.notes, name) or NO_NOTE
end

-- The same for all that are due by one clock. Marks them in `due`; returns how many.
local function add_due(c, reply, kind, now, due)
  local found = redis.call('ZRANGEBYSCORE', c[kind], '-inf', now, 'WITHSCORES')
  for first = 1, #found, 2 * LOOK do
    local names = {}
    for i = first, math.min(first + 2 * LOOK, #found) - 1, 2 do names[#names + 1] = found[i] end
    local definitions, notes = redis.call('HMGET', c.jobs, unpack(names)), redis.call('HMGET', c.notes, unpack(names))
    for i, name in ipairs(names) do
      due[name] = true
      add(reply, name, definitions[i] or '')
      add(reply, found[first + 2 * i - 1], kind)
      reply[#reply + 1] = notes[i] or NO_NOTE
    end
  end
  return #found / 2
end

local function times(c, now) return string.format('%.0f', now), string.format('%.0f', now + c.skew) end

-- cron_put: define a recurring job.
--
-- keys   of the recurring jobs
-- args   name, definition, body, 'due' or 'steady', when it is fired next, '1' to keep the next moment of a known one
--        if it is not later
-- reply  1 if it is new, 0 if it was there, 'full' if there are too many. One that is paused stays so.
local function cron_put(keys, args)
  local c, now, name, kind, moment = open_crons(keys), clock(), args[1], args[4], args[5]
  local known = redis.call('HEXISTS', c.jobs, name) == 1
  if not known and c.size >= CRONS_MOST then return 'full' end
  steady_clock(c, now)
  local note, before, clock_before = note_of(c, name), next_of(c, name)
  redis.call('HSET', c.jobs, name, args[2])
  redis.call('HSET', c.bodies, name, args[3])
  if not known or args[6] ~= '1' then note[1] = begin_era(c) end
  save_note(c, name, note)
  keep_cron_clock(c)
  if note[3] ~= '-' then return 0 end
  local stays = args[6] == '1' and clock_before == kind and tonumber(before) <= tonumber(moment)
  if not stays then set_next(c, name, kind, moment) end
  return known and 0 or 1
end

-- cron_remove: forget a recurring job. The jobs that it pushed stay.
--
-- keys   of the recurring jobs
-- args   name
-- reply  1, or 0 if there is none
local function cron_remove(keys, args)
  local c = open_crons(keys)
  for _, set in ipairs({c.due, c.steady}) do redis.call('ZREM', set, args[1]) end
  for _, hash in ipairs({c.bodies, c.notes}) do redis.call('HDEL', hash, args[1]) end
  return redis.call('HDEL', c.jobs, args[1])
end

-- cron_show: one recurring job; changes nothing.
--
-- keys   of the recurring jobs
-- args   name
-- reply  the store's time and the steady one in ms; then nothing if there is none, else what `add_cron` adds, and the
--        body, '' if it is lost
local function cron_show(keys, args)
  local c, name = open_crons(keys), args[1]
  local now = clock()
  steady_clock(c, now)
  local reply = {times(c, now)}
  local definition = redis.call('HGET', c.jobs, name)
  if definition then
    add_cron(c, reply, name, definition)
    reply[#reply + 1] = redis.call('HGET', c.bodies, name) or ''
  end
  return reply
end

-- cron_list: recurring jobs by name, a page of them; changes nothing.
--
-- keys   of the recurring jobs
-- args   the name after which to begin, how many at most, how many bytes they may fill (the first one comes
--        whatever its size)
-- reply  the store's time and the steady one in ms, '1' if there are more, then for each the same as `cron_show`
local function cron_list(keys, args)
  local c, limit, bytes = open_crons(keys), tonumber(args[2]), tonumber(args[3])
  local now, names = clock(), {}
  steady_clock(c, now)
  for _, name in ipairs(redis.call('HKEYS', c.jobs)) do
    if name > args[1] then names[#names + 1] = name end
  end
  table.sort(names)
  local reply = {times(c, now)}
  reply[3] = '0'
  for i, name in ipairs(names) do
    local definition = redis.call('HGET', c.jobs, name)
    bytes = bytes - #definition - redis.call('HSTRLEN', c.bodies, name)
    if i > limit or (i > 1 and bytes < 0) then
      reply[3] = '1'
      break
    end
    add_cron(c, reply, name, definition)
    reply[#reply + 1] = redis.call('HGET', c.bodies, name) or ''
  end
  return reply
end

-- cron_look: the recurring jobs that are due, and some others, so that their next moments can be checked.
--
-- keys   of the recurring jobs
-- args   how far the caller has seen the steady clock go (ms), where to continue with the others ('0' to begin), how
--        many of the others
-- reply  the store's time and the steady one in ms, where to continue with the others, how many are due, then what
--        `add_cron` adds for each, those that are due first
--
-- Writes only when the store's clock went back.
local function cron_look(keys, args)
  local c, now, cursor = open_crons(keys), clock(), args[2]
  local skew = c.skew
  c.clock = math.max(c.clock, tonumber(args[1]))
  steady_clock(c, now)
  local due, reply = {}, {times(c, now)}
  reply[3] = '0'
  reply[4] = 0
  reply[4] = add_due(c, reply, 'due', now, due) + add_due(c, reply, 'steady', now + c.skew, due)
  if c.size > 0 then
    local some = redis.call('HSCAN', c.jobs, cursor, 'COUNT', args[3])
    reply[3] = some[1]
    for i = 1, #some[2], 2 do
      if not due[some[2][i]] then add_cron(c, reply, some[2][i], some[2][i + 1]) end
    end
  end
  if c.skew ~= skew then keep_cron_clock(c) end
  return reply
end

-- cron_bodies: the jobs that are to be pushed; changes nothing.
--
-- keys   of the recurring jobs
-- args   how many bytes they may fill (the first one comes whatever its size), names
-- reply  the bodies of the first names, as many as may come at once; false for one that is lost
local function cron_bodies(keys, args)
  local c, bytes, reply = open_crons(keys), tonumber(args[1]), {}
  for i = 2, #args do
    bytes = bytes - redis.call('HSTRLEN', c.bodies, args[i])
    if i > 2 and bytes < 0 then break end
    reply[#reply + 1] = redis.call('HGET', c.bodies, args[i])
  end
  return reply
end

-- cron_advance: note when recurring jobs are fired next, unless somebody else has.
--
-- keys   of the recurring jobs
-- args   for each: name, the old next moment ('' for none), its clock ('due' or 'steady'), the new next moment ('' for
--        none), and what the clock showed (ms) if jobs were pushed, 'era' to begin another era, or ''
-- reply  how many were changed
local function cron_advance(keys, args)
  local c, now, changed = open_crons(keys), clock(), 0
  steady_clock(c, now)
  for i = 1, #args, 5 do
    local name, before, kind, moment, why = args[i], args[i + 1], args[i + 2], args[i + 3], args[i + 4]
    local found = next_of(c, name)
    local same = found == before or (tonumber(found) and tonumber(found) == tonumber(before))
    local note = note_of(c, name)
    if same and note[3] == '-' and redis.call('HEXISTS', c.jobs, name) == 1 then
      if why == 'era' then note[1] = begin_era(c) elseif why ~= '' then note[2] = tonumber(why) end
      if why ~= '' then save_note(c, name, note) end
      set_next(c, name, kind, moment)
      changed = changed + 1
    end
  end
  if changed > 0 then keep_cron_clock(c) end
  return changed
end

-- cron_pause: pause or resume a recurring job.
--
-- keys   of the recurring jobs
-- args   name; then nothing to pause it, or its clock and its next moment to resume it
-- reply  1, or 0 if there is none. Pausing a paused one, or resuming one that runs, changes nothing.
local function cron_pause(keys, args)
  local c, now, name = open_crons(keys), clock(), args[1]
  if redis.call('HEXISTS', c.jobs, name) == 0 then return 0 end
  local note, resumes = note_of(c, name), args[2] ~= nil
  if resumes == (note[3] == '-') then return 1 end
  steady_clock(c, now)
  keep_cron_clock(c)
  note[3] = resumes and '-' or now
  save_note(c, name, note)
  set_next(c, name, args[2] or 'due', args[3] or '')
  return 1
end

offer('cron_put', cron_put, {})
offer('cron_remove', cron_remove, {'allow-oom'})
offer('cron_show', cron_show, {'no-writes'})
offer('cron_list', cron_list, {'no-writes'})
offer('cron_look', cron_look, {'allow-oom'})
offer('cron_bodies', cron_bodies, {'no-writes'})
offer('cron_advance', cron_advance, {'allow-oom'})
offer('cron_pause', cron_pause, {'allow-oom'})
