-- Add one turn at the end of a conversation that still is what its writer has read; renew the TTL.
--
-- KEYS[1] the conversation, KEYS[2] its tombstone, KEYS[3] its Idempotency-Keys,
-- KEYS[4] the hash of flags, if one is to be set
-- ARGV    ttl in seconds, last id that was read, bytes to drop from the beginning, -1 to add the turn in place,
--         id of the question that then is the first ("" where nothing is dropped), the turn's id, its two lines,
--         its key ("" for none) and its time, time before which no key is kept, most keys, seconds to keep them,
--         session, its flag
-- answers 1, or 0 and has changed nothing where append.lua has to look at all turns
--
-- In place Redis copies nothing, but doubles the memory of a string that it has no room for. So the writer asks for that
-- only where there is room, or where turns beyond the limit are to follow: see stores/redis/room.py.

-- include: turns.lua
-- include: keys.lua

local function begins_after(value, bytes, id)
  local line_ends = string.find(value, '\n', bytes + 1, true)
  return string.sub(value, bytes, bytes) == '\n' and line_ends and id_in(tail_before(value, line_ends)) == id
end

if id_in(redis.call('GETRANGE', KEYS[1], -TAIL, -1)) ~= ARGV[2] then
  return 0
end
local tombstone = redis.pcall('GET', KEYS[2])
if tombstone and not (type(tombstone) == 'string' and #tombstone == #ARGV[5] and tombstone < ARGV[5]) then
  return 0
end
if ARGV[7] and ARGV[7] ~= '' and time_of_key(KEYS[3], ARGV[7], ARGV[9]) then
  return 0
end
local value = ARGV[3] ~= '-1' and redis.call('GET', KEYS[1])
if value and ARGV[4] ~= '' and not begins_after(value, tonumber(ARGV[3]), ARGV[4]) then
  return 0
end
if KEYS[4] then -- first: what fails here leaves no turn without its flag
  redis.call('HSET', KEYS[4], ARGV[12], ARGV[13])
end
if value then
  redis.call('SET', KEYS[1], string.sub(value, ARGV[3] + 1) .. ARGV[6], 'EX', ARGV[1])
else
  redis.call('APPEND', KEYS[1], ARGV[6])
  redis.call('EXPIRE', KEYS[1], ARGV[1])
end
if ARGV[7] and ARGV[7] ~= '' then
  keep_key(KEYS[3], ARGV[7], ARGV[8], ARGV[9], ARGV[10], ARGV[11])
end
return 1
