-- What a namespace holds, and how much it may hold: queues, jobs, and bytes of their records.
--
-- Jobs are counted in every namespace that was made (`ns:name`), but not in the server's own, where none of this costs
-- anything. `open` notes which queues of a call are counted. Whatever writes or deletes records adds to `q.came` (jobs)
-- and `q.grown` (bytes), and `add_up` adds the sums when the call returns. So the counts are exact at any moment, and a
-- push beyond the quota is refused in the same step that would have stored it.
--
-- The writes cost the most, since they also go to disk. So a call writes the sums once, and writes the bytes of a queue
-- together with its other changes to `meta` (`write_meta`); see bench/counting.py.
--
--   ns:name:{:queues}:used       hash  jobs, bytes        what there is
--                                      queues_most, jobs_most, bytes_most  what there may be, where there is a limit
--   ns:name:{:queues}:used:open  hash  server -> '<connections> <ms>', with the moment of its last report
--
-- The bytes are those of records: the body, 12 bytes, and the extras. What is kept of a leased or finished job beside
-- its record, such as its result, is bounded for each job and not counted.

-- What the namespace of a queue holds and may hold; nil if it has no limits. Of jobs that are stored `together` or not at
-- all, a refusal says what there is without them.
local function quotas_of(q, together)
  if not q.inside then return nil end
  local found = used_of(q)
  if not found or not (found[3] or found[4] or found[5]) then return nil end
  local quotas = {jobs = tonumber(found[1] or 0), bytes = tonumber(found[2] or 0),
    jobs_most = tonumber(found[4] or math.huge), bytes_most = tonumber(found[5] or math.huge)}
  if together then quotas.held_jobs, quotas.held_bytes = quotas.jobs, quotas.bytes end
  if found[3] and q.seq == 0 and not redis.call('ZSCORE', q.registry, q.name) then
    local queues = redis.call('ZCARD', q.registry)
    if queues >= tonumber(found[3]) then quotas.refused = string.format('quota queues %d %s', queues, found[3]) end
  end
  return quotas
end

-- Why another job of so many bytes, or `grown` bytes more of a stored one, would exceed a quota: `quota <kind> <what there
-- is> <what there may be>`, and what would be added, if that is not one job. If none is exceeded, it is counted.
local function refused_by(quotas, bytes, grown)
  if quotas.refused then return quotas.refused end
  local jobs, size = quotas.jobs + (grown and 0 or 1), quotas.bytes + bytes
  local held_jobs, held_bytes = quotas.held_jobs or quotas.jobs, quotas.held_bytes or quotas.bytes
  local or_more = held_jobs < quotas.jobs and ' or more' or ''
  if jobs > quotas.jobs_most and not grown then
    local added = or_more ~= '' and string.format(' %.0f or more', jobs - held_jobs) or ''
    return string.format('quota jobs %.0f %.0f%s', held_jobs, quotas.jobs_most, added)
  end
  if size > quotas.bytes_most then
    return string.format('quota bytes %.0f %.0f %.0f%s', held_bytes, quotas.bytes_most, size - held_bytes, or_more)
  end
  quotas.jobs, quotas.bytes = jobs, size
end

-- Why a queue that has no job yet may not be created, or nil if it may. 'new' if nothing of it is stored yet, and the
-- call is for `known` queues: a function `…_known` is carried out by a full store, too.
local function refused_new(q, known)
  local quotas = q.seq == 0 and quotas_of(q)
  local refused = quotas and quotas.refused
  return refused or known and q.seq == 0 and redis.call('EXISTS', q.meta) == 0 and 'new' or nil
end

-- quota: how much a namespace may hold.
--
-- keys   its set of names, used, used:open
-- args   queues, jobs, bytes, '' for what is not bound
-- reply  1
local function quota(keys, args)
  redis.call('HLEN', keys[2])
  for i, name in ipairs({'queues_most', 'jobs_most', 'bytes_most'}) do
    if args[i] == '' then redis.call('HDEL', keys[2], name) else redis.call('HSET', keys[2], name, args[i]) end
  end
  return 1
end

local HEARD_MS = 15000  -- a server that has not reported for this long has no connections

-- usage: what a namespace holds. A server reports how many connections it has there.
--
-- keys   its set of names, used, used:open
-- args   server, or '' to report nothing; how many connections
-- reply  queues, jobs, bytes, connections of all servers
local function usage(keys, args)
  local now, queues, used = clock(), redis.call('ZCARD', keys[1]), redis.call('HMGET', keys[2], 'jobs', 'bytes')
  local said, count = redis.call('HGETALL', keys[3]), tonumber(args[2])
  local connections, known = args[1] == '' and 0 or count, false
  for i = 1, #said, 2 do
    local open, at = string.match(said[i + 1], '^(%d+) (%d+)$')
    if said[i] == args[1] then
      known = tonumber(open) == count and now - tonumber(at) < HEARD_MS / 3
    elseif open and now - tonumber(at) <= HEARD_MS then
      connections = connections + tonumber(open)
    else
      redis.call('HDEL', keys[3], said[i])
    end
  end
  if args[1] ~= '' and count > 0 and not known then
    redis.call('HSET', keys[3], args[1], string.format('%d %.0f', count, now))
  elseif args[1] ~= '' and count == 0 then
    redis.call('HDEL', keys[3], args[1])
  end
  return {queues, tonumber(used[1] or 0), tonumber(used[2] or 0), connections}
end

offer('quota', quota, {'allow-oom'})
offer('usage', usage, {'allow-oom'})
