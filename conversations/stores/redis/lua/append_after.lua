-- Add one turn at the end of a conversation that still is what its writer has read; renew the TTL.
--
-- KEYS[1] the conversation, KEYS[2] its tombstone, KEYS[3] its Idempotency-Keys,
-- KEYS[4] the hash of flags, if one is to be set
-- ARGV    ttl in seconds, last id that was read, bytes to drop from the beginning, -1 to add the turn in place,
--         id of the question that then is the first ("" where nothing is dropped), the turn's id, its two lines,
--         half of the bytes that the string is to have room for, 0 for no more than it has,
--         its key ("" for none) and its time, time before which no key is kept, most keys, seconds to keep them,
--         session, its flag
-- answers 1, or 0 and has changed nothing where append.lua has to look at all turns
--
-- In place Redis copies nothing, but doubles the memory of a string that has no room. So the writer asks for that only
-- where there is room, and for room where more turns are to follow: see stores/redis/room.py.

-- include: turns.lua
-- include: keys.lua

-- Return whether the text begins with the question of that id. In content every quote is escaped, so a line that was
-- cut does not begin like this.
local function begins_with(text, id)
  local line_ends = string.find(text, '\n', 1, true)
  return string.sub(text, 1, #QUESTION) == QUESTION and line_ends and id_in(tail_before(text, line_ends)) == id
end

if id_in(redis.call('GETRANGE', KEYS[1], -TAIL, -1)) ~= ARGV[2] then
  return 0
end
local tombstone = redis.pcall('GET', KEYS[2])
if tombstone and not (type(tombstone) == 'string' and #tombstone == #ARGV[5] and tombstone < ARGV[5]) then
  return 0
end
if ARGV[8] and ARGV[8] ~= '' and time_of_key(KEYS[3], ARGV[8], ARGV[10]) then
  return 0
end
local half = tonumber(ARGV[7])
local first = ARGV[3] ~= '-1' and redis.call('GETRANGE', KEYS[1], ARGV[3], half > 0 and ARGV[3] + half - 1 or -1)
local rest = first and half > 0 and redis.call('GETRANGE', KEYS[1], ARGV[3] + half, -1)
if first and ARGV[4] ~= '' and not begins_with(first, ARGV[4]) then
  return 0
end
if KEYS[4] then -- first: what fails here leaves no turn without its flag
  redis.call('HSET', KEYS[4], ARGV[13], ARGV[14])
end
if not first then
  redis.call('APPEND', KEYS[1], ARGV[6])
  redis.call('EXPIRE', KEYS[1], ARGV[1])
elseif rest then -- of the first APPEND Redis allocates twice the bytes: room for the others
  redis.call('APPEND', KEYS[1], '') -- where this is refused nothing has changed
  redis.call('SET', KEYS[1], '', 'EX', ARGV[1])
  redis.call('APPEND', KEYS[1], first)
  redis.call('APPEND', KEYS[1], rest)
  redis.call('APPEND', KEYS[1], ARGV[6])
else
  redis.call('SET', KEYS[1], first .. ARGV[6], 'EX', ARGV[1])
end
if ARGV[8] and ARGV[8] ~= '' then
  keep_key(KEYS[3], ARGV[8], ARGV[9], ARGV[10], ARGV[11], ARGV[12])
end
return 1
