-- Settling: how a lease ends before its time, or is made longer.

-- After how many ms a job that failed for the n-th time is tried again. `random` is from 0 to 1.
local function backoff(q, attempt, random)
  local policy = policy_of(q)
  local delay = policy.backoff_first * policy.backoff_factor ^ (attempt - 1)
  delay = math.min(delay, policy.backoff_most)
  return math.floor(delay * (1 + policy.backoff_jitter * (2 * random - 1)))
end

-- Let a job whose lease is over be ready after `delay` ms. Returns the word and the moment for the answer.
local function again(q, id, record, run, now, delay)
  run.token = ''
  save_run(q, id, run)
  if delay <= 0 then
    back_to_ready(q, id, record)
    q.freed = q.freed + 1
    return 'ready'
  end
  redis.call('ZADD', q.due, now + delay, padded(id))
  if not q.timed then
    redis.call('HSET', q.meta, 'timed', '1')
    q.timed = '1'
  end
  q.soonest = math.min(q.soonest or delay, delay)
  return 'scheduled', now + delay
end

-- Let a job be forgotten at the end of `settle_some`, with the others.
local function leave_for_good(q, id, job)
  q.gone[#q.gone + 1] = id
  if job ~= NOTHING then q.gone_jobs[#q.gone] = job end
  q.gone_ids[id] = true
end

local function remove_cancelled(q, id, record)
  ended(q, id, 'deleted')
  leave_for_good(q, id, parse(record))
  return 'deleted'
end

-- A finished job: kept for a while, or gone.
local function finish(q, id, record, run, now)
  local job = parse(record)
  local keep = job.keep or policy_of(q).keep
  ended(q, id, 'done')
  if keep == 0 then
    leave_for_good(q, id, job)
    return
  end
  run.finished = now
  redis.call('ZADD', q.done, now + keep * 1000, padded(id))
  save_run(q, id, run)
  release_uniq(q, {job.uniq}, {id})
end

-- What each verb does to a job that the caller holds. Returns the word and the number for the answer.
local verbs = {}

function verbs.ack(q, id, record, run, now, result)
  if result ~= '' then run.result = result end
  q.processed = q.processed + 1
  finish(q, id, record, run, now)
  return 'done'
end

function verbs.fail(q, id, record, run, now, text, backtrace, retry_in, retry, random)
  add_error(run, now, text, backtrace ~= '' and backtrace or nil)
  q.failed = q.failed + 1
  if run.cancel then return remove_cancelled(q, id, record) end
  if retry == '0' then
    die(q, id, record, run, now, 'failed for good')
    return 'dead'
  end
  if run.attempt >= max_attempts(q, parse(record)) then
    die(q, id, record, run, now, 'attempts used up')
    return 'dead'
  end
  happened_to(q, 'failed', id)
  return again(q, id, record, run, now, tonumber(retry_in) or backoff(q, run.attempt, random))
end

function verbs.release(q, id, record, run, now, delay)
  if run.cancel then return remove_cancelled(q, id, record) end
  run.attempt = run.attempt - 1  -- giving back is no failure
  happened_to(q, 'released', id)
  return again(q, id, record, run, now, tonumber(delay) or 0)
end

verbs.give_back = verbs.release

function verbs.extend(q, id, _, run, now, ms, progress)
  run.ends = lease_clock(q, now) + (tonumber(ms) or run.ms)
  if progress ~= '' then run.progress = progress end
  redis.call('ZADD', q.leased, run.ends, padded(id))
  save_run(q, id, run)
  return run.cancel and 'cancel' or 'leased', run.ends - q.skew
end

-- What to answer about a lease that the caller does not hold.
local function not_held(q, id, token, record)
  local before = recall(q, 'settle:' .. id .. ':' .. token)
  if before then return {200, unpack(cmsgpack.unpack(before))} end
  if record and not redis.call('ZSCORE', q.done, padded(id)) then return {409} end
  if tonumber(id) <= q.seq then return {410} end
  return {404}
end

-- Settle some leases, whose records are read at once. `args` has seven for each, from `first` to `last`.
local function settle_some(q, now, logical, random, args, first, last, answered, replies, memo)
  local ids, members, runs = {}, {}, {}
  for i = first, last, 7 do
    ids[#ids + 1] = args[i + 1]
    members[#members + 1] = padded(args[i + 1])
  end
  local records = redis.call('HMGET', q.jobs, unpack(ids))
  local packed = redis.call('HMGET', q.runs, unpack(ids))
  local ends = redis.call('ZMSCORE', q.leased, unpack(members))
  for n, id in ipairs(ids) do
    local i = first + 7 * (n - 1)
    local verb, token, record = args[i], args[i + 2], records[n]
    local run = runs[id] or (packed[n] and cmsgpack.unpack(packed[n]))
    runs[id] = run
    local key = 'settle:' .. id .. ':' .. token
    local reply = answered[key]
    if not reply then
      if verb == 'give_back' and run and run.told_again then
        reply = {409}
      elseif record and run and token ~= '' and run.token == token and ends[n] and tonumber(ends[n]) > logical then
        if verb ~= 'extend' then
          q.over[#q.over + 1] = members[n]
          q.left[#q.left + 1] = parse(record)
        end
        reply = {200, verbs[verb](q, id, record, run, now, args[i + 3], args[i + 4], args[i + 5], args[i + 6],
          random)}
        if verb ~= 'extend' then
          answered[key] = reply
          add(memo, key, cmsgpack.pack({reply[2], reply[3]}))
        end
      else
        reply = not_held(q, id, token, record and not q.gone_ids[id])
      end
    end
    replies[#replies + 1] = reply
  end
  if #q.over > 0 then redis.call('ZREM', q.leased, unpack(q.over)) end
  forget(q, q.gone, q.gone_jobs)
  q.over, q.gone, q.gone_jobs = {}, {}, {}
end

-- settle: end or extend leases of one queue.
--
-- keys   the keys of the queue
-- args   a random number from 0 to 1, then for each lease seven: verb, id, token, and
--        ack      result, '', '', ''               (JSON, or '')
--        fail     error, backtrace, ms until retried ('' for the policy), '0' to retry no more
--        release  ms until ready, '', '', ''
--        give_back  '', '', '', ''                (as release, by the server that could not answer with the
--                 lease; {409} if the same lease was told to a repeated request, whose answer may be read)
--        extend   ms ('' for as long as it was given), progress (JSON, or ''), '', ''
-- reply  for each {200, state, moment}: 'done', 'dead', 'deleted', 'ready', 'scheduled' (until), 'leased' or
--        'cancel' (until); or {409} the lease is another's by now, {410} the job is finished, {404} it never was
--
-- A call that is repeated gets the same answer again for a minute or two, and has no further effect.
local function settle(keys, args)
  local q, now = open(keys, 1), clock()
  if not q.leases then check_leases(q) end
  local rates, logical = snapshot(q, now), lease_clock(q, now)
  local random, replies, memo = tonumber(args[1]), {}, {}
  q.freed, q.soonest, q.left = 0, nil, {}
  q.over, q.gone, q.gone_jobs, q.gone_ids = {}, {}, {}, {}
  if #args > 7 * MOST + 1 then return redis.error_reply('ERR too many leases in one settle') end
  local answered = {}  -- a repetition within the call
  for first = 2, #args, 7 * LOOK do
    local last = math.min(#args, first + 7 * LOOK - 1)
    settle_some(q, now, logical, random, args, first, last, answered, replies, memo)
  end

  for _, job in ipairs(q.left) do leave_group(q, job) end
  remember(q, now, memo)
  write_meta(q, rates, {'processed', q.processed, 'failed', q.failed, 'clock', q.clock, 'skew', q.skew})
  local freed = #memo / 2
  if (policy_of(q).max_leased > 0 or policy_of(q).group_leased > 0) and freed > 0 then q.freed = freed end
  if q.freed > 0 or q.soonest then wake(q, q.freed, q.soonest) end
  tell_ends(q)
  tell_events(q, now)
  return replies
end
