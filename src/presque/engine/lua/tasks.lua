-- Bulk tasks: what is to be done to many jobs, and which server works on it. They are kept under one hash tag:
--
--   ns:{:tasks}:meta    hash  seq: the last id given out
--   ns:{:tasks}:what    hash  id -> since when (ms), a space, and what is to be done, as engine/bulk.py writes it;
--                             never changes
--   ns:{:tasks}:how     hash  id -> how far it has come, as engine/bulk.py writes it
--   ns:{:tasks}:status  hash  id -> 'running', 'paused', 'cancelling', 'done', 'cancelled' or 'failed'
--   ns:{:tasks}:due     zset  the tasks to work on: id, scored by when the claim of a server ends (ms)
--   ns:{:tasks}:holder  hash  id -> the server that claimed it
--   ns:{:tasks}:ended   zset  id, scored by when it ended (ms)
--
-- A server claims a task for a few seconds and renews its claim while it works. When it no longer does, the next server
-- that looks takes the task. Two servers that both believe they have it do no harm: see bulk.lua.

local OPEN_MOST, ENDED_MOST, ENDED_MS = 100, 100, 7 * 24 * 3600 * 1000

local function open_tasks(keys)
  redis.call('HLEN', keys[1])
  redis.call('HLEN', keys[2])
  redis.call('HLEN', keys[3])
  redis.call('ZCARD', keys[5])
  redis.call('HLEN', keys[6])
  return {
    meta = keys[1], what = keys[2], how = keys[3], status = keys[4], due = keys[5], holder = keys[6], ended = keys[7],
    open = redis.call('HLEN', keys[4]) - redis.call('ZCARD', keys[7]),
  }
end

local function drop_tasks(t, ids)
  if #ids == 0 then return end
  for _, key in ipairs({t.what, t.how, t.status, t.holder}) do redis.call('HDEL', key, unpack(ids)) end
  redis.call('ZREM', t.ended, unpack(ids))
  redis.call('ZREM', t.due, unpack(ids))
end

-- Add what is known of a task: id, status, what, how, when it ended or ''.
local function add_task(t, reply, id)
  add(reply, id, redis.call('HGET', t.status, id))
  add(reply, redis.call('HGET', t.what, id) or '', redis.call('HGET', t.how, id) or '')
  reply[#reply + 1] = redis.call('ZSCORE', t.ended, id) or ''
end

-- task_put: begin a task.
--
-- keys   of the tasks
-- args   what is to be done, its progress
-- reply  what `add_task` adds, or 'full' if there are too many
local function task_put(keys, args)
  local t, now = open_tasks(keys), clock()
  if t.open >= OPEN_MOST then return 'full' end
  local id = string.format('%.0f', redis.call('HINCRBY', t.meta, 'seq', 1))
  redis.call('HSET', t.what, id, string.format('%.0f ', now) .. args[1])
  redis.call('HSET', t.how, id, args[2])
  redis.call('HSET', t.status, id, 'running')
  redis.call('ZADD', t.due, now, id)
  local reply = {}
  add_task(t, reply, id)
  return reply
end

-- task_claim: claim tasks that no server works on.
--
-- keys   of the tasks
-- args   the server, for how long (ms), how many at most
-- reply  what `add_task` tells of each
local function task_claim(keys, args)
  local t, now, ms, most = open_tasks(keys), clock(), tonumber(args[2]), tonumber(args[3])
  local ids = redis.call('ZRANGEBYSCORE', t.due, '-inf', now, 'LIMIT', 0, most)
  -- A claim that ends later than any can was made before the clock was set back.
  local beyond = redis.call('ZRANGEBYSCORE', t.due, '(' .. string.format('%.0f', now + 2 * ms), '+inf', 'LIMIT', 0, most)
  for _, id in ipairs(beyond) do ids[#ids + 1] = id end
  local reply = {}
  for _, id in ipairs(ids) do
    if redis.call('HEXISTS', t.status, id) == 1 then
      redis.call('ZADD', t.due, now + ms, id)
      redis.call('HSET', t.holder, id, args[1])
      add_task(t, reply, id)
    else
      redis.call('ZREM', t.due, id)
    end
  end
  return reply
end

-- task_save: store the progress of a task and renew the claim; or end the task.
--
-- keys   of the tasks
-- args   id, the server, the progress, for how long (ms), the status if the task has ended, else ''
-- reply  its status: the caller goes on if it is 'running', ends the task if it is 'cancelling', and otherwise stops
--        working on it. 'lost' if another server has it
local function task_save(keys, args)
  local t, now, id = open_tasks(keys), clock(), args[1]
  local status = redis.call('HGET', t.status, id)
  if not status or redis.call('HGET', t.holder, id) ~= args[2] then return 'lost' end
  redis.call('HSET', t.how, id, args[3])
  if args[5] ~= '' then
    redis.call('HSET', t.status, id, args[5])
    redis.call('HDEL', t.holder, id)
    redis.call('ZREM', t.due, id)
    redis.call('ZADD', t.ended, now, id)
    drop_tasks(t, redis.call('ZRANGEBYSCORE', t.ended, '-inf', now - ENDED_MS, 'LIMIT', 0, ENDED_MOST))
    drop_tasks(t, redis.call('ZRANGE', t.ended, 0, -ENDED_MOST - 1))
    return args[5]
  end
  if status == 'paused' then
    redis.call('HDEL', t.holder, id)
    redis.call('ZREM', t.due, id)
  else
    redis.call('ZADD', t.due, now + tonumber(args[4]), id)
  end
  return status
end

-- task_steer: pause, resume or cancel a task. One that has ended stays as it is.
--
-- keys   of the tasks
-- args   id, 'pause', 'resume' or 'cancel'
-- reply  its status, '' if there is none
local function task_steer(keys, args)
  local t, now, id, word = open_tasks(keys), clock(), args[1], args[2]
  local status = redis.call('HGET', t.status, id)
  if not status then return '' end
  if redis.call('ZSCORE', t.ended, id) or status == 'cancelling' then return status end
  if word == 'cancel' then
    if status == 'paused' then redis.call('ZADD', t.due, now, id) end
    status = 'cancelling'
  elseif word == 'pause' then
    status = 'paused'
  elseif status == 'paused' then
    if not redis.call('ZSCORE', t.due, id) then redis.call('ZADD', t.due, now, id) end
    status = 'running'
  end
  redis.call('HSET', t.status, id, status)
  return status
end

-- task_show: one task; changes nothing.
--
-- keys   of the tasks
-- args   id
-- reply  what `add_task` tells, nothing if there is none
local function task_show(keys, args)
  local t, reply = open_tasks(keys), {}
  if redis.call('HEXISTS', t.status, args[1]) == 1 then add_task(t, reply, args[1]) end
  return reply
end

-- task_list: tasks, the newest first, a page of them; changes nothing.
--
-- keys   of the tasks
-- args   the id before which to begin ('' for the newest), how many at most
-- reply  what `add_task` tells of each
local function task_list(keys, args)
  local t, reply, before = open_tasks(keys), {}, tonumber(args[1]) or math.huge
  local ids = redis.call('HKEYS', t.status)
  table.sort(ids, function(one, other) return tonumber(one) > tonumber(other) end)
  for _, id in ipairs(ids) do
    if tonumber(id) < before and #reply / 5 < tonumber(args[2]) then add_task(t, reply, id) end
  end
  return reply
end

offer('task_put', task_put, {})
offer('task_put_freeing', task_put, {'allow-oom'})  -- a task that deletes; there are few at once
offer('task_claim', task_claim, {'allow-oom'})
offer('task_save', task_save, {'allow-oom'})
offer('task_steer', task_steer, {'allow-oom'})
offer('task_show', task_show, {'no-writes'})
offer('task_list', task_list, {'no-writes'})
