-- Count the epoch of the dataset up, and record that a process is here, by Redis' clock.
--
-- KEYS[1] the dataset, KEYS[2] the heartbeats
-- ARGV    the dataset's id, the process, seconds after which a silent process is forgotten
-- answers the new epoch, nothing where the dataset has another id
if redis.call('HGET', KEYS[1], 'id') ~= ARGV[1] then
  return false
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local all = redis.call('HGETALL', KEYS[2])
for place = 1, #all, 2 do
  local at = tonumber(all[place + 1]) or 0 -- no number: another program wrote it
  if now - at > ARGV[3] * 1000 then
    redis.call('HDEL', KEYS[2], all[place])
  end
end
redis.call('HSET', KEYS[2], ARGV[2], string.format('%.0f', now))
return redis.call('HINCRBY', KEYS[1], 'epoch', 1)
