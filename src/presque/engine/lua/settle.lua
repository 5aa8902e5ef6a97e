-- Settling: how a lease ends before its time, or is made longer.

local MS_MOST = 2 ^ 47

local settle
do  -- a library has room for 200 local names at once: those in here end with the block

-- A number of ms from a request, nil if it is not given. Fails before anything is written if it is not a sensible
-- number.
local function ms_of(value)
  if value == nil then return nil end
  if type(value) ~= 'number' or not (value >= 0 and value <= MS_MOST) then
    error(redis.error_reply('ERR not a number of ms'))
  end
  return math.floor(value)
end

-- After how many ms a job is retried that has failed for the n-th time. `random` is from 0 to 1.
local function backoff(q, attempt, random)
  local policy = policy_of(q)
  local delay = 0
  if policy.backoff_first > 0 then  -- zero times infinity is not a number
    delay = math.min(policy.backoff_first * policy.backoff_factor ^ (attempt - 1), policy.backoff_most)
  end
  return math.floor(delay * (1 + policy.backoff_jitter * (2 * random - 1)))
end

-- What each verb does to a job that the caller holds. It decides the fate of the job, and returns the word and the
-- moment for the answer. `run` is shared by all jobs whose runs are the same bytes; `own_run` gives a job a run of its
-- own that may be changed.
local verbs = {}

local function own_run(fates, id, run) return fates.runs[id] or read_run(run.packed) end

-- Make a job whose lease is over ready after `delay` ms.
local function again(q, fates, id, job, run, now, delay)
  if delay <= 0 then
    fate_back(q, fates, id, job, run)
    return 'ready'
  end
  run.token, fates.runs[id] = '', run
  add(fates.later, q.clock + delay, padded(id))
  q.soonest = math.min(q.soonest or delay, delay)
  return 'scheduled', now + delay
end

-- Note the progress that a job shows, and what it saves for its next attempt; null saves nothing.
local function note_told(run, fields)
  if fields.progress then run.more.progress = fields.progress end
  if fields.saved then run.more.saved = not string.find(fields.saved, '^%s*null%s*$') and fields.saved or nil end
end

local function deleted(fates, id, job)
  fates.deleted[#fates.deleted + 1] = id
  fate_gone(fates, id, job)
  return 'deleted'
end

function verbs.ack(q, fates, id, job, run, now, fields)
  q.processed = q.processed + 1
  ran(q, now, run)
  leave_lease(fates, id, job)
  fates.done[#fates.done + 1] = id
  if job.cron then fates.outcomes[#fates.outcomes + 1] = {job.cron, 'done', now, id} end
  local keep = job.keep or policy_of(q).keep
  if keep == 0 then
    fate_gone(fates, id, job)
    return 'done'
  end
  run = own_run(fates, id, run)
  note_told(run, fields)
  run.token, run.more.result, run.more.finished, run.more.saved = '', fields.result, now, nil
  fates.runs[id] = run
  add(fates.kept, now + keep * 1000, padded(id))
  free_uniq(fates, id, job)
  return 'done'
end

function verbs.fail(q, fates, id, job, run, now, fields, random)
  local retry_in = ms_of(fields.retry_in)
  ran(q, now, run)
  run = own_run(fates, id, run)
  note_told(run, fields)
  add_error(run, now, fields.error or '', fields.backtrace)
  q.failed = q.failed + 1
  leave_lease(fates, id, job)
  if run.more.cancel then return deleted(fates, id, job) end
  if fields.retry == false or run.attempt >= max_attempts(q, job) then
    local reason = fields.reason or (fields.retry == false and 'failed for good') or 'attempts used up'
    fate_dead(fates, id, job, run, now, reason)
    return 'dead'
  end
  happened_to(q, 'failed', id)
  return again(q, fates, id, job, run, now, retry_in or backoff(q, run.attempt, random))
end

function verbs.release(q, fates, id, job, run, now, fields)
  local delay = ms_of(fields.delay) or 0
  run = own_run(fates, id, run)
  note_told(run, fields)
  leave_lease(fates, id, job)
  if run.more.cancel then return deleted(fates, id, job) end
  run.attempt = run.attempt - 1  -- a release is not a failure
  happened_to(q, 'released', id)
  return again(q, fates, id, job, run, now, delay)
end

verbs.give_back = verbs.release

function verbs.extend(q, fates, id, _, run, _, fields)
  local ms = ms_of(fields.ms)
  run = own_run(fates, id, run)
  run.ends = q.clock + (ms or run.ms)
  note_told(run, fields)
  fates.runs[id] = run
  add(fates.extended, run.ends, padded(id))
  return run.more.cancel and 'cancel' or 'leased', run.ends - q.skew
end

local function holds(list, value)
  for _, one in ipairs(list) do
    if one == value then return true end
  end
  return false
end

-- The answer for a lease that the caller does not hold.
local function not_held(q, fates, id, key)
  local before = recall(q, key)
  if before then
    local word, moment = string.match(before, '^(%a+) ?(%d*)$')
    return moment == '' and word or {word, tonumber(moment)}
  end
  if holds(fates.done, id) or holds(fates.deleted, id) then return 410 end
  if redis.call('HEXISTS', q.jobs, id) == 1 and not redis.call('ZSCORE', q.done, padded(id)) then return 409 end
  if tonumber(id) <= q.seq then return 410 end
  return 404
end

-- In a full store leases end as usual, but must not use more memory: long texts are cut, and long results, progress and
-- what jobs save are left out.
local lean
do
  local MOST_OF_FULL = 200  -- bytes of a text that a full store still takes

  -- Whether the store is over its memory limit. A function with `allow-oom` has no other way to find out.
  local function is_full()
    local said = redis.pcall('INFO', 'memory')
    if type(said) ~= 'string' then return false end  -- the user of this connection may not ask
    local used, most = string.match(said, '\nused_memory:(%d+)'), string.match(said, '\nmaxmemory:(%d+)')
    return used and most and tonumber(most) > 0 and tonumber(used) > tonumber(most)
  end

  local function is_long(text) return type(text) == 'string' and #text > MOST_OF_FULL end

  local function shorten(fields, name)
    if not is_long(fields[name]) then return end
    -- not within a character of UTF-8
    local cut = string.gsub(string.sub(fields[name], 1, MOST_OF_FULL), '[\192-\255][\128-\191]*$', '')
    fields[name] = cut .. ' … (cut: the store was full)'
  end

  -- Returns whether the store is full, if it had to find out: `full` is what the call before returned.
  lean = function(fields, full)
    local long = false
    for _, value in pairs(fields) do long = long or is_long(value) end
    if not long then return full end
    if full == nil then full = is_full() or false end
    if full then
      shorten(fields, 'error')
      shorten(fields, 'backtrace')
      for _, name in ipairs({'result', 'progress', 'saved'}) do
        if is_long(fields[name]) then fields[name] = nil end
      end
    end
    return full
  end
end

-- Read the arguments: {verb=, token=, fields=, first=, last=} for each group, and the ids one after the other.
local function read_groups(args)
  local groups, ids, full = {}, {}, nil
  for at = 2, #args, 4 do
    local fields, first = args[at + 2], #ids + 1
    for id in string.gmatch(args[at + 3], '%d+') do ids[#ids + 1] = id end
    if not verbs[args[at]] then error(redis.error_reply('ERR settle knows no ' .. args[at])) end
    fields = fields == '' and NONE or cmsgpack.unpack(fields)
    if fields ~= NONE then full = lean(fields, full) end
    groups[#groups + 1] = {
      verb = args[at], token = args[at + 1], fields = fields, first = first, last = #ids, bytes = #args[at + 2],
    }
  end
  return groups, ids
end

-- The runs of the jobs to settle, unpacked: of as many, from the first on, as the call may read and write. Most are the
-- same bytes, and share a table. And what `parse` says about the jobs that are not plain, by id.
local function runs_to_settle(q, groups, ids)
  local runs, special, at, seen = {}, {}, 1, {}
  each_value(q.runs, ids, function(id, packed, n)
    if spare.bytes <= 0 then return true end
    while n > groups[at].last do at = at + 1 end
    local run, bytes = packed and seen[packed], groups[at].bytes
    if packed then
      if not run then
        run = read_run(packed)
        run.packed = packed
        seen[packed] = run
      end
      bytes = bytes + #packed
      if not run.plain then
        bytes = bytes + redis.call('HSTRLEN', q.jobs, id)
        special[#special + 1] = id
      end
    end
    runs[n] = run
    spare.bytes = spare.bytes - bytes
  end)
  local jobs = {}
  if #special > 0 then
    each_record(q, special, function(id, record) if record then jobs[id] = parse(record) end end)
  end
  return runs, jobs
end

-- Whether so many groups lost a lease that the call should end, since all those with a limit may have a turn again.
local function many_left(q, fates)
  return fates.groups_left >= LOOK and policy_of(q).group_leased > 0
end

-- settle: end or extend leases of one queue.
--
-- keys   the keys of the queue
-- args   a random number from 0 to 1, then any number of groups: verb, token, fields (MessagePack: a map, or '' if
--        there are none), and the ids, separated by blanks. The verbs and their fields, all of which may be left out:
--        ack      result, progress (JSON as text)
--        fail     error, backtrace, retry_in (ms; as the policy says), retry (false to try no more), reason (why
--                 it is dead then), progress, saved (JSON as text)
--        release  delay (ms), progress, saved
--        give_back  (as release, by the server that could not answer with the lease; 409 if the same lease was
--                 told in another answer, which may be read and was not given back)
--        extend   ms (as long as it was given for), progress, saved
-- reply  for each id what its job is now: 'done', 'dead', 'deleted' or 'ready', or {'scheduled', 'leased' or
--        'cancel', until when}; or 409 the lease is another's by now, 410 the job is finished, 404 it never was.
--        Only once if all are the same word or number, as most are. Fewer answers if there is much to write, at least
--        one: the other jobs are as before, to be settled by another call; then after a 0
--
-- A repeated call gets the same answer for a minute or two, and has no further effect. In a store over its memory limit
-- long texts are cut or left out, see `lean`.
settle = function(keys, args)
  local q, now = open(keys, 1), clock()
  if not q.leases then check_leases(q) end
  local logical, random = steady_clock(q, now), tonumber(args[1])
  note(q, now)
  local groups, ids = read_groups(args)
  if #ids > MOST then return redis.error_reply('ERR too many leases in one settle') end
  local runs, jobs = runs_to_settle(q, groups, ids)
  local fates, replies, memo, alike = new_fates(), {}, {}, true
  local answered = {}  -- by key: the answer, for a repetition within this call

  for _, group in ipairs(groups) do
    local verb, token, fields = group.verb, group.token, group.fields
    local decide, ends, of_token = verbs[verb], verb ~= 'extend', ':' .. token
    for n = group.first, math.min(group.last, #runs) do
      if q.policy and many_left(q, fates) then break end
      local id, run = ids[n], runs[n]
      local key = id .. of_token
      local reply = answered[key]
      if not reply then
        local job = run and (run.plain and NOTHING or jobs[id])
        local told = verb == 'give_back' and run and run.token == token and (fates.runs[id] or run).more.told_again
        if told then
          run = own_run(fates, id, run)
          run.more.told_again = (tonumber(told) or 1) > 1 and told - 1 or nil
          fates.runs[id] = run
          reply = 409
        elseif job and run.token == token and token ~= '' and ends_of(q, run) > logical then
          local word, moment = decide(q, fates, id, job, run, now, fields, random)
          reply = moment and {word, moment} or word
          if ends then
            answered[key] = reply
            local m = #memo
            memo[m + 1], memo[m + 2] = key, moment and string.format('%s %.0f', word, moment) or word
          end
        else
          reply = not_held(q, fates, id, key)
        end
      end
      replies[n] = reply
      alike = alike and reply == replies[1]
    end
  end

  write_fates(q, fates)
  remember(q, now, memo)
  count_runs(q)
  write_meta(q, {'processed', q.processed, 'failed', q.failed, 'ran', q.ran_ms, 'clock', q.clock, 'skew', q.skew})
  local freed, ready = #memo / 2, fates.ready
  if q.policy and (policy_of(q).max_leased > 0 or policy_of(q).group_leased > 0) then ready = freed end
  if ready > 0 or q.soonest then wake(q, ready, q.soonest) end
  tell_ends(q)
  tell_events(q, now)
  if #replies < #ids then return {0, unpack(replies)} end
  return alike and {replies[1]} or replies
end

end

offer('settle', settle, {'allow-oom'})
