-- A clock that tests can move. Only a server with a test clock loads this file; for all others `clock` is the store's
-- own time.

local ahead = 0  -- of the store's own time (ms). As the data of such a store, it ends with the store's process
local of_the_store = clock

-- Every function above calls `clock` through the same local name, which from here on means this.
clock = function() return of_the_store() + ahead end

-- move_clock: set the clock, or only look at it.
--
-- args   'to' and the moment that it shows from now on, 'ahead' and by how much it is ahead of the store's own time
--        (both in ms); or nothing, to leave it as it is
-- reply  the time now, and how far it is ahead of the store's own time (both in ms)
local function move_clock(_, args)
  local own, value = of_the_store(), tonumber(args[2])
  if args[1] == 'to' then ahead = value - own elseif args[1] == 'ahead' then ahead = value end
  return {string.format('%.0f', own + ahead), string.format('%.0f', ahead)}
end

offer('move_clock', move_clock, {'allow-oom'})
