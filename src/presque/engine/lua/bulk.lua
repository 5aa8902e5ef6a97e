-- Bulk work: looks at the jobs of a queue a piece at a time, and does something to those that match a filter.
--
-- A filter is a MessagePack map. Each name in it leaves jobs out:
--
--   priority, group       what was asked for at the push
--   worker                who had the job last
--   text                  a text that the body holds, byte for byte as it came
--   error                 a text that the last error holds
--   find                  a text that the body or one of the errors holds
--   like                  an error; the last one is of its kind: see `kind_of`
--   older, newer          how long at least, and at most, the job has been in its state (ms): since it ended if it is
--                         done or dead, otherwise since it was pushed
--
-- The progress of a task in a queue is kept in the hash `bulk` of that queue, as a MessagePack map: `step` (how many
-- steps there were), `state` (which of the states it asks for), `cursor`, `top` (the highest id when it began),
-- `looked`, `matched`, `done`, `refused`, and `over` at the end. A step changes it together with the jobs. Each call
-- names its step: one that was made already, perhaps by another server, does nothing and returns the progress.

local TASKS_MOST = 100  -- whose progress a queue keeps

local read_filter, go_through
do  -- a library has room for 200 local names at once: those in each of these blocks end with it

local HEX_LEAST = 8     -- so many hexadecimal digits in a row, with a decimal one among them, are a number
local KIND_MOST = 200   -- bytes of the kind of an error
local LINE_MOST = 1000  -- bytes of its first line that are looked at

local FOUR = '%x%x%x%x'
local UUID = FOUR .. FOUR .. '%-' .. FOUR .. '%-' .. FOUR .. '%-' .. FOUR .. '%-' .. FOUR .. FOUR .. FOUR

-- The kind of an error, which all errors of this kind share: the first line, with `#` for each number.
local function kind_of(text)
  local line = string.sub(string.match(text, '^%s*([^\r\n]*)'), 1, LINE_MOST)
  line = string.gsub(line, UUID, '#')
  line = string.gsub(line, '%f[%w]%x+%f[%W]', function(word)
    return #word >= HEX_LEAST and string.find(word, '%d') and '#' or nil
  end)
  line = string.gsub(line, '%d+', '#')
  if #line <= KIND_MOST then return line end
  local last = KIND_MOST
  while last > 0 and string.byte(line, last + 1) >= 128 and string.byte(line, last + 1) < 192 do last = last - 1 end
  return string.sub(line, 1, last)
end

-- The last error of a run; why the job is dead if that left none.
local function last_error(run)
  local errors = run.more.errors
  local last = errors and errors[#errors]
  if last and last.error ~= '' then return last.error end
  return run.more.reason or ''
end

local function body_begins(record)
  if string.byte(record) == PLAIN then return 13 end
  return 15 + struct.unpack('>I2', record, 9)
end

local function holds_text(text, wanted) return string.find(text, wanted, 1, true) ~= nil end

-- Whether the body, or one of the errors, holds a text.
local function holds_anywhere(record, run, wanted)
  if string.find(record, wanted, body_begins(record), true) then return true end
  for _, one in ipairs(run and run.more.errors or NONE) do
    if holds_text(one.error, wanted) then return true end
  end
  return false
end

-- Whether a job is one that the filter lets through. `packed` is its run, false if it has none.
local function matches(filter, record, job, state, moment, packed)
  if job == DAMAGED then return next(filter) == nil end
  if filter.priority and priority_of(record) ~= filter.priority then return false end
  if filter.group and job.group ~= filter.group then return false end
  local run = filter.reads_run and packed and read_run(packed)
  if filter.before or filter.after then
    local since = pushed_at_of(record)
    if state == 'dead' then since = moment elseif state == 'done' and run then since = run.more.finished or since end
    if filter.before and since > filter.before then return false end
    if filter.after and since < filter.after then return false end
  end
  if filter.worker and not (run and run.worker == filter.worker) then return false end
  if filter.text and not string.find(record, filter.text, body_begins(record), true) then return false end
  if filter.error and not (run and holds_text(last_error(run), filter.error)) then return false end
  if filter.like and not (run and run.more.errors and kind_of(last_error(run)) == filter.like) then return false end
  return not filter.find or holds_anywhere(record, run, filter.find)
end

-- The filter in the form that `matches` takes. Ages count back from the moment `from`.
function read_filter(filter, from)
  if next(filter) == nil then return filter end
  if filter.older then filter.before = from - filter.older end
  if filter.newer then filter.after = from - filter.newer end
  if filter.like then filter.like = kind_of(filter.like) end
  local reads_run = filter.worker or filter.error or filter.like or filter.find or filter.before or filter.after
  filter.reads_run = reads_run and true or false
  return filter
end

-- Go through a piece of the jobs of one state: at most `look` jobs, no more once they fill `bytes` or once there are
-- `room` hits. Only ids up to `top` count, and dead jobs that died by `bound`. Returns the cursor to go on with, '' at
-- the end. The piece then has `looked`, and `hits`: {id, record, job, state, run} for each job that matches.
function go_through(q, now, piece, cursor)
  piece.looked, piece.hits = 0, {}
  local following = walk(q, piece.state, cursor, piece.look, piece.upward, function(ids, entries, scores)
    for i, id in ipairs(ids) do
      if piece.looked >= piece.look or piece.bytes <= 0 or #piece.hits >= piece.room then return i - 1 end
      if piece.bound and scores and piece.state == 'dead' and tonumber(scores[2 * i]) > piece.bound then
        piece.over = true
        return i - 1
      end
      piece.looked = piece.looked + 1
      local record, job, state, moment
      if piece.state == 'dead' then  -- which a job in the set of dead ones is, whatever the clocks say
        record, state, moment = redis.call('HGET', q.jobs, id), 'dead', tonumber(scores[2 * i])
        job = record and parse(record)
      else
        record, job, state, moment = look_up(q, id, now)
      end
      local there = record and state == piece.state and (not entries or entry_of(id, job) == entries[i])
      if there and not (piece.top and tonumber(id) > piece.top) then
        local run = q.leases and redis.call('HGET', q.runs, id)
        piece.bytes = piece.bytes - #record - (run and #run or 0)
        if matches(piece.filter, record, job, state, moment, run) then
          piece.hits[#piece.hits + 1] = {id = id, record = record, job = job, state = state, moment = moment, run = run}
        end
      end
    end
    return #ids
  end)
  return piece.over and '' or following
end

-- tally: how many jobs are in one state, of many queues; changes nothing.
--
-- keys   the keys of each queue
-- args   state
-- reply  about how many in each queue (jobs whose time has come but that were not swept count as before); -1 for a
--        queue that is spoilt
local function tally(keys, args)
  local reply = {}
  for first = 1, #keys, KEYS_OF_A_QUEUE do
    local function count_one()
      local prefix, jobs = string.sub(keys[first], 1, -5), redis.call('HLEN', keys[first + 1])
      if jobs == 0 then return 0 end
      for _, state in ipairs(STATES) do
        if state.name == args[1] then return redis.call('ZCARD', prefix .. state.key) end
        jobs = jobs - redis.call('ZCARD', prefix .. state.key)
      end
      return math.max(0, jobs)
    end
    local fine, count = pcall(count_one)
    reply[#reply + 1] = fine and count or -1
  end
  return reply
end

-- sift: the jobs of one state that match a filter, a piece at a time; changes nothing.
--
-- keys   the keys of the queue
-- args   what is asked (MessagePack): state, upward, cursor ('' to begin), look, bytes, room, tell (how many hits to
--        return at most), filter, top and bound if there are any; see `go_through`
-- reply  {the cursor to go on with or '', how many were looked at, how many match}, then hits in the form of `show`
local function sift(keys, args)
  local q, now, piece = open(keys, 1), clock(), cmsgpack.unpack(args[1])
  piece.filter = read_filter(piece.filter, piece.bound or now)
  local following = go_through(q, now, piece, piece.cursor)
  local reply = {following, piece.looked, #piece.hits}
  for i = 1, math.min(#piece.hits, piece.tell) do
    local hit = piece.hits[i]
    q.ahead = steady(q, now) - now
    reply[i + 3] = told_of(q, hit.id, hit.record, hit.state, hit.moment, hit.run)
  end
  return reply
end

-- kinds: the errors of the jobs of one state, grouped by kind, a piece at a time, the latest first; changes nothing.
--
-- keys   the keys of the queue
-- args   state, the cursor ('' to begin), how many jobs to look at, how many bytes
-- reply  {the cursor to go on with or '', how many were looked at}, then for each kind {kind, how many, when the first
--        one came about (ms), when the last, the id of its job, the first line of its error}
local function kinds(keys, args)
  local q, now, bytes = open(keys, 1), clock(), tonumber(args[4])
  local found, reply, looked = {}, {'', 0}, 0
  name_more(q)
  reply[1] = walk(q, args[1], args[2], math.min(tonumber(args[3]), SWEEP), false, function(ids)
    for i, id in ipairs(ids) do
      if bytes <= 0 then return i - 1 end
      looked = looked + 1
      local packed = redis.call('HGET', q.runs, id)
      local run = packed and read_run(packed)
      local errors = run and run.more.errors
      if packed then bytes = bytes - #packed end
      if errors and redis.call('HEXISTS', q.jobs, id) == 1 then
        local said = last_error(run)
        local kind, at = kind_of(said), errors[#errors] and errors[#errors].at or run.more.finished or now
        local one = found[kind]
        if not one then
          one = {kind, 0, at, at, id, string.sub(string.match(said, '^%s*([^\r\n]*)'), 1, LINE_MOST)}
          found[kind], reply[#reply + 1] = one, one
        end
        one[2] = one[2] + 1
        if at < one[3] then one[3] = at end
        if at > one[4] then one[4], one[5] = at, id end
      end
    end
    return #ids
  end)
  reply[2] = looked
  for i = 3, #reply do
    for part = 3, 4 do reply[i][part] = string.format('%.0f', reply[i][part]) end
  end
  return reply
end

offer('tally', tally, {'no-writes'})
offer('sift', sift, {'no-writes'})
offer('kinds', kinds, {'no-writes'})

end

-- The progress of a task in this queue, as stored, or that of one that begins.
local function read_progress(q, task)
  local stored = redis.call('HGET', q.bulk, task)
  if stored then return cmsgpack.unpack(stored) end
  return {step = 0, state = 1, cursor = '', top = q.seq, looked = 0, matched = 0, done = 0, refused = 0}
end

local function save_progress(q, task, progress)
  if redis.call('HEXISTS', q.bulk, task) == 0 and redis.call('HLEN', q.bulk) >= TASKS_MOST then
    redis.call('HDEL', q.bulk, redis.call('HRANDFIELD', q.bulk))  -- a leftover of a task that ended without cleaning up
  end
  redis.call('HSET', q.bulk, task, cmsgpack.pack(progress))
end

local function tell_progress(progress)
  return {
    progress.step, progress.over and 1 or 0, progress.looked, progress.matched, progress.done, progress.refused,
    progress.state, progress.cursor, progress.top,
  }
end

-- Note a step: what was looked at, and where to go on.
local function advance(progress, states, looked, matched, following)
  progress.step, progress.cursor = progress.step + 1, following
  progress.looked, progress.matched = progress.looked + looked, progress.matched + matched
  if following == '' then
    progress.state = progress.state + 1
    if progress.state > states then progress.over = true end
  end
end

-- The cursor to go on with among ready jobs, once some jobs were taken off the head of the list that it is in.
local function cursor_after(cursor, priority, gone)
  local at, position, entry = string.match(cursor, '^(%d):(%d+):(.+)$')
  if gone == 0 or not at or tonumber(at) ~= priority then return cursor end
  if entry == '-' or tonumber(position) < gone then return at .. ':0:-' end
  return string.format('%s:%d:%s', at, tonumber(position) - gone, entry)
end

-- The ready lists that hold these jobs.
local function lists_of(q, hits)
  local lists = {}
  for _, hit in ipairs(hits) do
    if hit.state == 'ready' then lists[list_for(q, priority_of(hit.record), hit.job.group)] = priority_of(hit.record) end
  end
  return lists
end

do

local function acts_retry(q, now, hits)
  local ids = {}
  for i, hit in ipairs(hits) do
    ids[i] = hit.id
    redis.call('LLEN', list_for(q, priority_of(hit.record), hit.job.group))
  end
  if #ids > 0 then
    revive(q, ids, now, 0, 0)
    wake(q, #ids)
  end
end

local function acts_delete(q, now, hits)
  local ids, jobs, held = {}, {}, {}
  for _, hit in ipairs(hits) do
    check_removal(q, hit.record, hit.job)
    if hit.state == 'leased' then
      local run = read_run(hit.run)
      run.more.cancel = true
      add(held, hit.id, pack_run(run))
    else
      ids[#ids + 1], jobs[#jobs + 1] = hit.id, hit.job
    end
  end
  look_who_watches(q)
  if #hits > 0 then begin(q, now) end
  if #held > 0 then redis.call('HSET', q.runs, unpack(held)) end
  take_away(q, 'deleted', ids, jobs, NONE)
  if #ids > 0 then touch(q) end
end

local ACTS = {retry = acts_retry, delete = acts_delete}

-- bulk_step: do the next step of a task in a queue.
--
-- keys   the keys of the queue
-- args   task, the number of this step, how many jobs to look at, how many bytes, how many jobs may be acted on, what
--        is asked (MessagePack): act ('retry' or 'delete'), states (a list), filter, bound
-- reply  the progress of the task: step, 1 if it is over here, looked, matched, done, refused, state, cursor, top. If
--        it was another step's turn, nothing was done.
local function bulk_step(keys, args)
  local q, now, task, asked = open(keys, 1), clock(), args[1], cmsgpack.unpack(args[6])
  name_more(q)
  if not q.leases then check_leases(q) end
  local progress, act = read_progress(q, task), ACTS[asked.act]
  if not act then return redis.error_reply('ERR bulk_step knows no ' .. asked.act) end
  if progress.step ~= tonumber(args[2]) or progress.over then return tell_progress(progress) end
  local piece = {
    state = asked.states[progress.state], upward = true, look = math.min(tonumber(args[3]), SWEEP),
    bytes = tonumber(args[4]), room = math.min(tonumber(args[5]), SWEEP), filter = read_filter(asked.filter, asked.bound),
    top = progress.top, bound = asked.bound,
  }
  local following = go_through(q, now, piece, progress.cursor)
  act(q, now, piece.hits)
  for list, priority in pairs(lists_of(q, piece.hits)) do
    following = cursor_after(following, not q.grouped and priority, trim_head(q, list))
  end
  progress.done = progress.done + #piece.hits
  advance(progress, #asked.states, piece.looked, #piece.hits, following)
  save_progress(q, task, progress)
  tell_ends(q)
  tell_events(q, now)
  return tell_progress(progress)
end

offer('bulk_step', bulk_step, {'allow-oom'})

end
do

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
  local room, quotas, waiting = room_for(q), quotas_of(q), 0
  for _, one in ipairs(batch) do
    if one[3] ~= 'done' and one[3] ~= 'dead' then waiting = waiting + 1 end
    local refused = quotas and refused_by(quotas, #one[1])
    if refused then return refused end
  end
  if room >= 0 and waiting > room then return 'full' end
  return put_batch(q, clock(), args[1], mark, batch)
end

-- bulk_forget: forget a task that has finished in this queue, or has ended.
--
-- keys   the keys of the queue
-- args   task
-- reply  1 if anything was known of it here
local function bulk_forget(keys, args)
  local q = open(keys, 1)
  name_more(q)
  redis.call('HLEN', q.bulk)
  redis.call('HDEL', q.moved, args[1])
  return redis.call('HDEL', q.bulk, args[1])
end

offer('bulk_take', bulk_take, {})
offer('bulk_left', bulk_left, {'no-writes'})
offer('bulk_put', bulk_put, {})
offer('import', import, {})
offer('bulk_drop', bulk_drop, {'allow-oom'})
offer('bulk_room', bulk_room, {'no-writes'})
offer('bulk_forget', bulk_forget, {'allow-oom'})

end
