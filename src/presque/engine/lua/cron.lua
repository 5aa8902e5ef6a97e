-- Recurring jobs. All of them live in three keys, under one hash tag:
--
--   ns:{:cron}:jobs   hash  name -> definition, as commands/cron.py writes it
--   ns:{:cron}:due    zset  name -> when it is fired next (ms)
--   ns:{:cron}:fired  hash  name -> when it was fired last (ms), for those who look

local CRONS_MOST = 1000

local function open_crons(keys)
  redis.call('ZCARD', keys[2])
  redis.call('HLEN', keys[3])
  return {jobs = keys[1], due = keys[2], fired = keys[3], size = redis.call('HLEN', keys[1])}
end

-- cron_put: define a recurring job.
--
-- keys   of the recurring jobs
-- args   name, definition, when it is fired next, '1' to leave that as it is if it is known
-- reply  1 if it is new, 0 if it was there, 'full' if there are too many
local function cron_put(keys, args)
  local c, name = open_crons(keys), args[1]
  local known = redis.call('HEXISTS', c.jobs, name) == 1
  if not known and c.size >= CRONS_MOST then return 'full' end
  redis.call('HSET', c.jobs, name, args[2])
  if not (args[4] == '1' and redis.call('ZSCORE', c.due, name)) then redis.call('ZADD', c.due, args[3], name) end
  return known and 0 or 1
end

-- cron_remove: forget a recurring job. The jobs that it pushed stay.
--
-- keys   of the recurring jobs
-- args   name
-- reply  1, or 0 if there is none
local function cron_remove(keys, args)
  local c = open_crons(keys)
  redis.call('ZREM', c.due, args[1])
  redis.call('HDEL', c.fired, args[1])
  return redis.call('HDEL', c.jobs, args[1])
end

-- cron_show: one recurring job, or all; changes nothing.
--
-- keys   of the recurring jobs
-- args   a name, or nothing
-- reply  the store's time in ms, then for each: name, definition, when it is fired next and was last, or ''
local function cron_show(keys, args)
  local c, reply = open_crons(keys), {string.format('%.0f', clock())}
  local names = args[1] and {args[1]} or redis.call('HKEYS', c.jobs)
  for _, name in ipairs(names) do
    local definition = redis.call('HGET', c.jobs, name)
    if definition then
      add(reply, name, definition)
      add(reply, redis.call('ZSCORE', c.due, name) or '', redis.call('HGET', c.fired, name) or '')
    end
  end
  return reply
end

-- cron_due: the recurring jobs whose time has come; changes nothing.
--
-- keys   of the recurring jobs
-- args   how many at most
-- reply  the store's time in ms, then name, definition and moment of each
local function cron_due(keys, args)
  local c, now = open_crons(keys), clock()
  local reply = {string.format('%.0f', now)}
  local due = redis.call('ZRANGEBYSCORE', c.due, '-inf', now, 'WITHSCORES', 'LIMIT', 0, tonumber(args[1]))
  for i = 1, #due, 2 do
    add(reply, due[i], redis.call('HGET', c.jobs, due[i]) or '')
    reply[#reply + 1] = due[i + 1]
  end
  return reply
end

-- cron_advance: note that a recurring job was fired for a moment, unless somebody else has.
--
-- keys   of the recurring jobs
-- args   name, the moment, the next moment or '' for none, '1' if jobs were pushed
-- reply  1, or 0 if the moment is not the next one any more
local function cron_advance(keys, args)
  local c, name = open_crons(keys), args[1]
  local score = redis.call('ZSCORE', c.due, name)
  if not score or tonumber(score) ~= tonumber(args[2]) then return 0 end
  if args[4] == '1' then redis.call('HSET', c.fired, name, clock()) end
  if args[3] == '' then redis.call('ZREM', c.due, name) else redis.call('ZADD', c.due, args[3], name) end
  return 1
end
