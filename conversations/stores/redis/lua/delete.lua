-- Delete the turns of a conversation up to an id, and all quarantined copies of it; leave a tombstone.
--
-- KEYS[1] the conversation, KEYS[2] its tombstone, KEYS[3] corrupt:{conversation},
-- KEYS[4] the hash of flags, if one is to be set
-- ARGV    the id, ttl of the tombstone in seconds, session, its flag
-- answers how many turns and quarantined copies went, and then each user that a question named

-- include: tombstone.lua
-- include: turns.lua
-- include: users.lua
-- include: remove_turns.lua

local gone, users = 0, {}
local number = 1
while redis.call('UNLINK', KEYS[3] .. ':' .. number) == 1 do
  gone = gone + 1
  number = number + 1
end

if redis.call('TYPE', KEYS[1])['ok'] == 'string' then
  users = users_in(redis.call('GET', KEYS[1]))
  gone = gone + remove_turns(KEYS[1], ARGV[1], true)
else
  gone = gone + redis.call('UNLINK', KEYS[1])
end
leave_tombstone(KEYS[2], ARGV[1], ARGV[2])
if KEYS[4] then
  redis.call('HSET', KEYS[4], ARGV[3], ARGV[4])
end
return {gone, unpack(users)}
