-- Finding: looks at the jobs of a queue a piece at a time, for those that match a filter.
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
