-- Records: a job as bytes, in the hash `jobs`.
--
--   byte 1      the layout of the record: PLAIN, or EXTENDED if there are extras
--   byte 2      priority
--   bytes 3-8   when it was pushed (ms)
--   EXTENDED    2 bytes of length, then the extras: a MessagePack map of what was asked for, see below
--   the rest    the sealed body: 4 bytes of CRC-32 of the body, then the body as it came
--
-- A body of 25 bytes makes a record of 37; see bench/memory.py. The functions never look into a sealed body: the server
-- seals it when it is pushed, and checks it when it is handed out (presque/engine/records.py, which reads the same
-- layout). The extras:
--
--   uniq        the uniq key that it holds            until_done  true if it holds it until it is done
--   expires_at  when its ttl ends (steady clock, ms)  run_at      when a job that was scheduled is due (ms)
--   named       true if `run_at` was asked for as a moment of the wall clock
--   attempts, keep   instead of those of the policy   place       how often it was moved within the queue
--   group       whose turn it shares                  trace       its traceparent
--   cron        the recurring job that pushed it      tracestate  what came with the traceparent
--
-- To add a field, add a name to this map. Any other first byte means that the record is damaged, or comes from a version
-- of presque that is not known here. Such a job is never handed out.

local PLAIN, EXTENDED = 16, 17

-- The extras of a record. Most jobs have none, so they share one empty table: a table for each takes a tenth of the time
-- of a fetch.
local NOTHING = {}
local DAMAGED = {damaged = true}
local function parse(record)
  local layout = string.byte(record)
  if layout == PLAIN then return NOTHING end
  if layout ~= EXTENDED then return DAMAGED end
  local good, _, extras = pcall(cmsgpack.unpack_limit, record, 1, 10)
  return good and type(extras) == 'table' and extras or DAMAGED
end

-- The record of a job with these extras. Fails before anything is written if they are too long.
local function record_of(extras, priority, pushed_at, sealed)
  if next(extras) == nil then return struct.pack('>BBI6', PLAIN, priority, pushed_at) .. sealed end
  local packed = cmsgpack.pack(extras)
  if #packed > 65535 then error(redis.error_reply('ERR what a push asks for is too long')) end
  return struct.pack('>BBI6I2', EXTENDED, priority, pushed_at, #packed) .. packed .. sealed
end

-- The sealed body of a record.
local function sealed_of(record)
  if string.byte(record) == PLAIN then return string.sub(record, 9) end
  return string.sub(record, 11 + struct.unpack('>I2', record, 9))
end

local function priority_of(record) return string.byte(record, 2) end
local function pushed_at_of(record) return (struct.unpack('>I6', record, 3)) end

-- What the record of a job says besides its body: `size`, `priority`, `pushed_at` and `job`, as `parse` returned it; nil if
-- there is none. Second, how many bytes were read for it. A record can be read only as a whole, so of large ones this is
-- kept in here: otherwise a job of 40 MiB at the head of a queue would hold up the store each time that somebody asks how
-- long it has waited. Good for what people are shown: data that was exchanged behind the functions (FLUSHALL) is noticed
-- by its size alone.
local head_of, forget_head
do
local HEADS_MOST = 1000
local heads, heads_count = {}, 0

-- Forget what is known of the record of this job, or of all if no id is given.
function forget_head(q, id)
  if id then heads[q.jobs .. ' ' .. id] = nil else heads, heads_count = {}, 0 end
end

function head_of(q, id)
  local name = q.jobs .. ' ' .. id
  local known = heads[name]
  if known and redis.call('HSTRLEN', q.jobs, id) == known.size then return known, 0 end
  local record = redis.call('HGET', q.jobs, id)
  if not record then return nil, 0 end
  local head = {size = #record, job = parse(record), priority = priority_of(record), pushed_at = pushed_at_of(record)}
  if #record > LOOK_BYTES then
    if heads_count >= HEADS_MOST then forget_head(q) end
    if not known then heads_count = heads_count + 1 end
    heads[name] = head
  end
  return head, #record
end

end

-- The entry of a job in a ready list: its id, and after a move within the queue (PATCH) also the number of moves. So an
-- entry that it left in another place is known to be stale.
local function entry_of(id, job)
  local place = job.place
  return place and id .. 'v' .. place or id
end

-- Go through the values that a hash has for many jobs: a few at first, then as many at a time as should fill LOOK_BYTES
-- given the sizes so far, LOOK at most. `visit` gets the id, the value (false if there is none) and the position in
-- `ids`. It may return true to stop.
local function each_value(hash, ids, visit)
  local first, most = 1, 4
  while first <= #ids do
    local last, bytes = math.min(first + most - 1, #ids), 0
    local values = redis.call('HMGET', hash, unpack(ids, first, last))
    for i = first, last do
      local value = values[i - first + 1]
      if value then bytes = bytes + #value end
      if visit(ids[i], value, i) then return end
    end
    most = math.max(1, math.min(LOOK, math.floor(LOOK_BYTES * (last - first + 1) / (bytes + 1))))
    first = last + 1
  end
end

local function each_record(q, ids, visit) return each_value(q.jobs, ids, visit) end

-- Release the uniq keys of these jobs, where they still hold them.
local function release_uniq(q, keys, ids)
  if #keys == 0 then return end
  local holders = redis.call('HMGET', q.uniq, unpack(keys))
  local free = {}
  for i, holder in ipairs(holders) do
    if holder == ids[i] then free[#free + 1] = keys[i] end
  end
  if #free > 0 then redis.call('HDEL', q.uniq, unpack(free)) end
end

-- Delete records. `bytes` is their total size, if known.
local function delete_records(q, ids, bytes)
  if q.inside and not bytes then
    bytes = 0
    for _, id in ipairs(ids) do bytes = bytes + redis.call('HSTRLEN', q.jobs, id) end
  end
  q.came = q.came - redis.call('HDEL', q.jobs, unpack(ids))
  if bytes then q.grown = q.grown - bytes end
end

-- Note how a job of a recurring job ended, to be shown with it. If that fails, no job is lost.
local OUTCOME_BYTES = 200
local function note_outcome(q, cron, word, now, id, text)
  name_more(q)
  local said = string.format('%s %.0f %s %s', word, now, id, string.sub(text or '', 1, OUTCOME_BYTES))
  redis.pcall('HSET', q.recurred, cron, said)
end

-- Delete jobs: record, run, ttl and uniq key. `ids` are strings, `jobs` is what `parse` said about them by position, if
-- anything. The caller removes the ids from lists and sets. `bytes` is the total size of the records, if known.
-- `outcome` is how the jobs ended and `now` when; nil if that is noted elsewhere.
local function forget(q, ids, jobs, bytes, outcome, now)
  if #ids == 0 then return end
  if next(jobs) == nil then  -- all of them are plain
    delete_records(q, ids, bytes)
    if q.leases then redis.call('HDEL', q.runs, unpack(ids)) end
    return
  end
  local timed, uniq_keys, uniq_ids = {}, {}, {}
  for i, job in pairs(jobs) do
    if job.expires_at then timed[#timed + 1] = padded(ids[i]) end
    if job.cron and outcome then note_outcome(q, job.cron, outcome, now, ids[i]) end
    if job.uniq then
      uniq_keys[#uniq_keys + 1] = job.uniq
      uniq_ids[#uniq_ids + 1] = ids[i]
    end
  end
  delete_records(q, ids, bytes)
  if q.leases then redis.call('HDEL', q.runs, unpack(ids)) end
  if #timed > 0 then redis.call('ZREM', q.ttl, unpack(timed)) end
  release_uniq(q, uniq_keys, uniq_ids)
end
