-- The Idempotency-Keys of a conversation: a sorted set of key and time. What is of another type is left as it is.

-- Return the time of a key, nil where it is not kept.
local function time_of_key(set, key, oldest)
  local time = redis.pcall('ZSCORE', set, key)
  time = type(time) == 'string' and tonumber(time)
  return time and time >= tonumber(oldest) and time or nil
end

-- Keep a key, for so many seconds from now, as long as it is one of the newest.
local function keep_key(set, key, time, oldest, most, seconds)
  local before = time_of_key(set, key, oldest) or 0
  if tonumber(time) >= tonumber(oldest) and type(redis.pcall('ZADD', set, math.max(before, time), key)) ~= 'table' then
    redis.call('ZREMRANGEBYSCORE', set, '-inf', '(' .. oldest)
    redis.call('ZREMRANGEBYRANK', set, 0, -1 - most)
    redis.call('EXPIRE', set, seconds)
  end
end
