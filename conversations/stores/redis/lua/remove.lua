-- Remove a conversation that has not gone on since it was looked at.
--
-- KEYS[1] the conversation, KEYS[2] its tombstone
-- ARGV    the last id that it may have, ttl of the tombstone in seconds, 0 for none
-- answers 1 if it went, 0 if there was none, -1 if it has gone on or is no history

-- include: tombstone.lua
-- include: turns.lua

local kind = redis.call('TYPE', KEYS[1])['ok']
if kind ~= 'none' then
  local last = kind == 'string' and string.match(redis.call('GETRANGE', KEYS[1], -TAIL, -1), ID_IN_TAIL)
  if not last or last > ARGV[1] then
    return -1
  end
  redis.call('UNLINK', KEYS[1])
end
if ARGV[2] ~= '0' then
  leave_tombstone(KEYS[2], ARGV[1], ARGV[2])
end
return kind == 'none' and 0 or 1
