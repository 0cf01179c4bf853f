-- Count what a client asks, and permit it more while less than its limit is counted of the time of its rate.
--
-- KEYS[1] the counts: a hash of period to asks and permits, where 30 periods are that time
-- ARGV    the limit, the time in milliseconds, asks to count, permits that come back, the period that these were of,
--         "1" to give permits
-- answers how many permits, the period that they are of, milliseconds until there is one where none is left
local limit = tonumber(ARGV[1])
local width = math.ceil(ARGV[2] / 30)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local period = math.floor(now / width)
-- A permit may be used until a period after it was given, and is counted for the whole time from then on.
local kept = 32

local counts, periods, used = {}, {}, 0
local all = redis.call('HGETALL', KEYS[1])
for place = 1, #all, 2 do
  local one, count = tonumber(all[place]), tonumber(all[place + 1])
  if one and count and one > period - kept and one <= period + 1 then
    counts[one] = count
    table.insert(periods, one)
    used = used + count
  else
    redis.call('HDEL', KEYS[1], all[place])
  end
end

local function add(one, number)
  if number == 0 then
    return
  end
  if not counts[one] then
    table.insert(periods, one)
  end
  counts[one] = (counts[one] or 0) + number
  used = used + number
  redis.call('HINCRBY', KEYS[1], one, number)
  redis.call('PEXPIRE', KEYS[1], (kept + 1) * width)
end

local before = tonumber(ARGV[5])
add(before, -math.min(tonumber(ARGV[4]), counts[before] or 0))
add(period, tonumber(ARGV[3]))
local given = 0
if ARGV[6] == '1' and used < limit then
  -- A part of what is left: other processes have theirs, and what one has and does not use is missing for a while.
  given = math.ceil((limit - used) / 8)
  add(period, given)
end

local wait, over = 0, used - limit
if over >= 0 then
  table.sort(periods)
  for _, one in ipairs(periods) do
    over = over - counts[one]
    wait = (one + kept) * width - now
    if over < 0 then
      break
    end
  end
end
return {given, period, wait}
