-- Remove the turns of a conversation up to an id; the others and the time it has left stay.
--
-- KEYS[1] the conversation, KEYS[2] its tombstone
-- ARGV    the id, ttl of the tombstone in seconds, 0 for none
-- answers how many turns went, -1 if it is no history

-- include: tombstone.lua
-- include: turns.lua
-- include: remove_turns.lua

if redis.call('TYPE', KEYS[1])['ok'] ~= 'string' then
  return redis.call('EXISTS', KEYS[1]) == 1 and -1 or 0
end
local gone = remove_turns(KEYS[1], ARGV[1], false)
if gone > 0 and ARGV[2] ~= '0' then
  leave_tombstone(KEYS[2], ARGV[1], ARGV[2])
end
return gone
