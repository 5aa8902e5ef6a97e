-- Bulk tasks: something is done to the jobs of a queue that match a filter (finding.lua), a piece at a time.
--
-- The progress of a task in a queue is kept in the hash `bulk` of that queue, as a MessagePack map: `step` (how many
-- steps there were), `state` (which of the states it asks for), `cursor`, `top` (the highest id when it began),
-- `looked`, `matched`, `done`, `refused`, and `over` at the end. A step changes it together with the jobs. Each call
-- names its step: one that was made already, perhaps by another server, does nothing and returns the progress.

local TASKS_MOST = 100  -- whose progress a queue keeps

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

offer('bulk_step', bulk_step, {'allow-oom'})
offer('bulk_forget', bulk_forget, {'allow-oom'})

end
