-- Delete the turns of a conversation up to an id, and all quarantined copies of it; leave a tombstone.
--
-- KEYS[1] the conversation, KEYS[2] its tombstone, KEYS[3] corrupt:{conversation}
-- ARGV    the id, ttl of the tombstone in seconds
-- answers how many turns and quarantined copies went

-- include: tombstone.lua
-- include: turns.lua
-- include: remove_turns.lua

local gone = 0
local number = 1
while redis.call('UNLINK', KEYS[3] .. ':' .. number) == 1 do
  gone = gone + 1
  number = number + 1
end

if redis.call('TYPE', KEYS[1])['ok'] == 'string' then
  gone = gone + remove_turns(KEYS[1], ARGV[1], true)
else
  gone = gone + redis.call('UNLINK', KEYS[1])
end
leave_tombstone(KEYS[2], ARGV[1], ARGV[2])
return gone
