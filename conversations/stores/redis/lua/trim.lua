-- Remove the turns of a conversation up to an id; the others and the time it has left stay.
--
-- KEYS[1] the conversation, KEYS[2] its tombstone
-- ARGV    the id, ttl of the tombstone in seconds, 0 for none
-- answers how many turns went, -1 if it is no history

if redis.call('TYPE', KEYS[1])['ok'] ~= 'string' then
  return redis.call('EXISTS', KEYS[1]) == 1 and -1 or 0
end
local value = redis.call('GET', KEYS[1])
local gone, position = 0, 1
while position <= #value do -- oldest first: stop at the first turn that is later
  local question_ends = string.find(value, '\n', position, true)
  local answer_ends = question_ends and string.find(value, '\n', question_ends + 1, true)
  local id = answer_ends and string.match(string.sub(value, question_ends - 76, question_ends), '^"id":"([%x-]+)"')
  if not id then
    return -1
  elseif id > ARGV[1] then
    break
  end
  gone = gone + 1
  position = answer_ends + 1
end
if position > #value then
  redis.call('UNLINK', KEYS[1])
elseif position > 1 then
  redis.call('SET', KEYS[1], string.sub(value, position), 'KEEPTTL')
end
if gone > 0 and ARGV[2] ~= '0' and (redis.call('GET', KEYS[2]) or '') < ARGV[1] then
  redis.call('SET', KEYS[2], ARGV[1], 'EX', ARGV[2])
end
return gone
