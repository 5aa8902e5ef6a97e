-- Moving jobs to another queue, which may be on another node, takes several calls. `bulk_take` takes a batch of jobs
-- off their queue and keeps it in `moving`, where nobody can take them. `bulk_put` puts the batch on the other queue,
-- unless it is there already. `bulk_drop` lets the first queue forget it. If a server is killed in between, the next one
-- finds the batch with `bulk_left` and goes on. So each job is moved exactly once, and is never on both queues.
--
-- A batch is its number, a space, and MessagePack: for each job {record, run, state, moment, when its ttl ends, whether
-- it holds its uniq key}. Moments are of the wall clock, since each queue has a steady clock of its own.

local MOVED_FROM = {scheduled = true, ready = true, dead = true, done = true}

-- bulk_take: take a batch of jobs off their queue, as the next step of a task.
--
-- keys   the keys of the queue
-- args   task, the number of this step, what the caller found (MessagePack): following (the cursor to go on with),
--        looked, matched, refused, states (how many the task asks for); then ids
-- reply  {the progress of the task, as in bulk_step; the batch, '' if it was another step's turn}. Jobs that have
--        changed their state meanwhile, or cannot be read, stay.
local function bulk_take(keys, args)
  local q, now, task, found = open(keys, 1), clock(), args[1], cmsgpack.unpack(args[3])
  name_more(q)
  if not q.leases then check_leases(q) end
  local moving, progress = q.moving .. task, read_progress(q, task)
  if progress.step ~= tonumber(args[2]) or progress.over or redis.call('EXISTS', moving) == 1 then
    return {tell_progress(progress), ''}
  end
  if #args > SWEEP + 3 then return redis.error_reply('ERR too many jobs in one batch') end
  local hits, ids, jobs, batch = {}, {}, {}, {}
  look_who_watches(q)
  for i = 4, #args do
    local id = args[i]
    local record, job, state, moment = look_up(q, id, now)
    if record and MOVED_FROM[state] and job ~= DAMAGED then
      check_removal(q, record, job)
      ids[#ids + 1], jobs[#jobs + 1] = id, job
      hits[#hits + 1] = {record = record, job = job, state = state}
      batch[#batch + 1] = {
        record, q.leases and redis.call('HGET', q.runs, id) or '', state, moment or 0,
        job.expires_at and job.expires_at - q.ahead or false, job.uniq and redis.call('HGET', q.uniq, job.uniq) == id,
      }
    elseif record and job == DAMAGED then
      found.refused = found.refused + 1
    end
  end
  local packed = ''
  if #ids > 0 then
    packed = string.format('%d ', progress.step + 1) .. cmsgpack.pack(batch)
    begin(q, now)
    redis.call('SET', moving, packed)
    local lists = lists_of(q, hits)
    take_away(q, 'moved', ids, jobs, NONE)
    for list, priority in pairs(lists) do
      found.following = cursor_after(found.following, not q.grouped and priority, trim_head(q, list))
    end
    touch(q)
  end
  progress.done, progress.refused = progress.done + #ids, progress.refused + found.refused
  advance(progress, found.states, found.looked, found.matched, found.following)
  save_progress(q, task, progress)
  tell_ends(q)
  tell_events(q, now)
  return {tell_progress(progress), packed}
end

-- bulk_left: the batch that a task has taken off a queue and not yet put on the other, and the progress of the task;
-- changes nothing.
--
-- keys   the keys of the queue
-- args   task
-- reply  as bulk_take
local function bulk_left(keys, args)
  local q = open(keys, 1)
  name_more(q)
  return {tell_progress(read_progress(q, args[1])), redis.call('GET', q.moving .. args[1]) or ''}
end

-- bulk_drop: a batch is on the other queue.
--
-- keys   the keys of the queue
-- args   task, the number of the batch
-- reply  1, or 0 if there is no such batch (any more)
local function bulk_drop(keys, args)
  local q = open(keys, 1)
  name_more(q)
  local packed = redis.call('GET', q.moving .. args[1])
  if not packed or string.match(packed, '^%d+') ~= args[2] then return 0 end
  return redis.call('UNLINK', q.moving .. args[1])
end

-- How many more waiting jobs a queue has room for; -1 for any number.
local function room_for(q)
  local most = policy_of(q).max_length
  if most == 0 then return -1 end
  if not q.leases then check_leases(q) end
  local waiting = q.size
  for _, state in ipairs(STATES) do
    if not state.waits then waiting = waiting - redis.call('ZCARD', q[state.key]) end
  end
  return math.max(0, most - waiting)
end

-- bulk_room: how many of the jobs to be moved a queue can take; changes nothing.
--
-- keys   the keys of the queue
-- args   uniq keys
-- reply  how many jobs it has room for (-1 for any number), then for each key 1 if a job of the queue holds it, else 0
local function bulk_room(keys, args)
  local q = open(keys, 1)
  local reply = {room_for(q)}
  for _, key in ipairs(args) do
    local holder = redis.call('HGET', q.uniq, key)
    reply[#reply + 1] = holder and redis.call('HEXISTS', q.jobs, holder) or 0
  end
  return reply
end

-- Prepare one job of a batch for its new queue: notes in `come` where it belongs.
local function receive(q, now, come, id, one)
  local record, run, state, moment, expires_at, holds = unpack(one)
  local job, extras, ahead = parse(record), {}, q.clock - now
  for name, value in pairs(job) do extras[name] = value end
  extras.place, extras.expires_at = nil, expires_at and expires_at + ahead or nil
  local priority = priority_of(record)
  local here = record_of(extras, priority, pushed_at_of(record), sealed_of(record))
  add(come.records, id, here)
  q.grown = q.grown + #here
  if run ~= '' then add(come.runs, id, run) end
  if extras.expires_at then add(come.ttl, extras.expires_at, padded_number(id)) end
  if job.uniq and holds then
    local holder = come.holders[job.uniq] or redis.call('HGET', q.uniq, job.uniq)
    if not holder or (holder ~= true and redis.call('HEXISTS', q.jobs, holder) == 0) then
      come.holders[job.uniq] = true
      add(come.uniq, job.uniq, id)
    end
  end
  if state == 'scheduled' then
    local due = job.named and job.run_at + q.skew or moment + ahead
    add(come.due, due, padded_number(id))
    come.soonest = math.min(come.soonest or due, due)
  elseif state == 'dead' then
    add(come.dead, moment, padded_number(id))
  elseif state == 'done' then
    add(come.done, moment, padded_number(id))
  else
    come.ready[#come.ready + 1] = {priority, job.group, id}
    redis.call('LLEN', list_of(q, priority))
    redis.call('ZCARD', ring_of(q, priority))
    if job.group then
      redis.call('LLEN', list_of(q, priority, job.group))
      come.grouped = true
    end
  end
  if priority ~= 5 and not string.find(come.priorities, priority, 1, true) then
    come.priorities = come.priorities .. priority
  end
end

-- Note that a batch of a task, or of an import, is here.
local function note_batch(q, task, mark)
  if redis.call('HEXISTS', q.moved, task) == 0 and redis.call('HLEN', q.moved) >= TASKS_MOST then
    redis.call('HDEL', q.moved, redis.call('HRANDFIELD', q.moved))  -- a leftover of one that ended long ago
  end
  redis.call('HSET', q.moved, task, mark)
end

-- Open a queue that a batch is put on. Nil if this batch, or a later one of the same task, was put there before.
local function open_for_batch(keys, task, mark)
  local q = open(keys, 1)
  name_more(q)
  if not q.leases then check_leases(q) end
  check_groups(q)
  redis.call('ZCARD', q.ttl)
  local last = redis.call('HGET', q.moved, task)
  if last and last >= mark then return nil end
  return q
end

-- Put a batch of jobs on a queue. Returns how many.
local function put_batch(q, now, task, mark, batch)
  note(q, now)
  local seq, ids = q.seq, {}
  steady_clock(q, now)
  local come = {
    records = {}, runs = {}, ttl = {}, uniq = {}, holders = {}, due = {}, dead = {}, done = {}, ready = {},
    priorities = q.priorities,
  }
  for _, one in ipairs(batch) do
    seq = seq + 1
    ids[#ids + 1] = string.format('%.0f', seq)
    receive(q, now, come, ids[#ids], one)
  end

  note_batch(q, task, mark)
  redis.call('HSET', q.jobs, unpack(come.records))
  q.came = #batch
  local fields = {'seq', seq, 'clock', q.clock, 'skew', q.skew, 'more', '1'}
  if come.priorities ~= q.priorities then
    q.priorities = come.priorities
    add(fields, 'priorities', q.priorities)
  end
  if #come.due > 0 or #come.ttl > 0 then add(fields, 'timed', '1') end
  if #come.runs > 0 or #come.dead > 0 or #come.done > 0 then
    add(fields, 'leases', '1')
    q.leases = '1'
  end
  write_meta(q, fields)
  if #come.runs > 0 then redis.call('HSET', q.runs, unpack(come.runs)) end
  if #come.ttl > 0 then redis.call('ZADD', q.ttl, unpack(come.ttl)) end
  if #come.uniq > 0 then redis.call('HSET', q.uniq, unpack(come.uniq)) end
  if #come.due > 0 then redis.call('ZADD', q.due, unpack(come.due)) end
  if #come.done > 0 then redis.call('ZADD', q.done, unpack(come.done)) end
  if #come.dead > 0 then redis.call('ZADD', q.dead, unpack(come.dead)) end
  if come.grouped then begin_groups(q) end
  local lists = {}
  for _, one in ipairs(come.ready) do collect(q, lists, one[1], one[2], one[3]) end
  put_collected(q, lists)
  mark_busy(q)
  if #come.ready > 0 or come.soonest then wake(q, #come.ready, come.soonest and come.soonest - q.clock) end
  if #come.ready == 0 and not come.soonest then touch(q) end
  happened(q, 'pushed', #ids, ids)
  if #come.dead > 0 then trim_dead(q) end
  tell_events(q, now)
  return #ids
end

-- bulk_put: put a batch of jobs on a queue, unless it is there already.
--
-- keys   the keys of the queue
-- args   task, the queue from which the jobs come, the batch
-- reply  how many were put; 0 if the batch, or a later one of this task, was put before
--
-- The jobs get ids of this queue; everything else about them stays. If another job here holds a uniq key of one of
-- them, that job keeps it.
local function bulk_put(keys, args)
  local number, begins = string.match(args[3], '^(%d+) ()')
  local mark = string.format('%s %015d', args[2], number)
  local q = open_for_batch(keys, args[1], mark)
  if not q then return 0 end
  return put_batch(q, clock(), args[1], mark, cmsgpack.unpack(string.sub(args[3], begins)))
end

-- import: put jobs on a queue as they were when they were exported, unless that was done before.
--
-- keys   the keys of the queue
-- args   the name of the import, the number of the batch, then for each job: record, run, state, its moment (ms), when
--        its ttl ends (ms) or '', '1' if it is to hold its uniq key
-- reply  how many were put; 0 if the batch, or a later one of this import, was put before. 'full' or 'quota …' if there is
--        no room for all of them, as for a push
local function import(keys, args)
  local mark, batch = string.format('%015d', args[2]), {}
  if #args > 6 * MOST + 2 then return redis.error_reply('ERR too many jobs in one import') end
  for i = 3, #args, 6 do
    batch[#batch + 1] = {args[i], args[i + 1], args[i + 2], tonumber(args[i + 3]), tonumber(args[i + 4]) or false, args[i + 5] == '1'}
  end
  local q = open_for_batch(keys, args[1], mark)
  if not q then return 0 end
  local room, quotas, waiting = room_for(q), quotas_of(q, true), 0
  for _, one in ipairs(batch) do
    if one[3] ~= 'done' and one[3] ~= 'dead' then waiting = waiting + 1 end
    local refused = quotas and refused_by(quotas, #one[1])
    if refused then return refused end
  end
  if room >= 0 and waiting > room then return 'full' end
  return put_batch(q, clock(), args[1], mark, batch)
end

offer('bulk_take', bulk_take, {})
offer('bulk_left', bulk_left, {'no-writes'})
offer('bulk_put', bulk_put, {})
offer('import', import, {})
offer('bulk_drop', bulk_drop, {'allow-oom'})
offer('bulk_room', bulk_room, {'no-writes'})
