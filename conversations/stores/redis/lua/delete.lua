-- Delete the turns of a conversation up to an id, and all quarantined copies of it; leave a tombstone.
--
-- KEYS[1] the conversation, KEYS[2] its tombstone, KEYS[3] corrupt:{conversation}
-- ARGV    the id, ttl of the tombstone in seconds
-- answers how many turns and quarantined copies went

local gone = 0
local number = 1
while redis.call('UNLINK', KEYS[3] .. ':' .. number) == 1 do
  gone = gone + 1
  number = number + 1
end

if redis.call('TYPE', KEYS[1])['ok'] == 'string' then
  local value = redis.call('GET', KEYS[1])
  local position = 1
  while position <= #value do -- oldest first: stop at the first turn that is later
    local question_ends = string.find(value, '\n', position, true)
    local answer_ends = question_ends and string.find(value, '\n', question_ends + 1, true)
    local id = question_ends and string.match(string.sub(value, question_ends - 76, question_ends), '^"id":"([%x-]+)"')
    if answer_ends and id and id > ARGV[1] then
      break
    end
    gone = gone + 1
    position = (answer_ends or #value) + 1
  end
  if position > #value then
    redis.call('UNLINK', KEYS[1])
  elseif position > 1 then
    redis.call('SET', KEYS[1], string.sub(value, position), 'KEEPTTL')
  end
else
  gone = gone + redis.call('UNLINK', KEYS[1])
end

local HEX = '[0-9a-f]'
local ID = '^[0-7]' .. HEX:rep(7) .. '%-' .. HEX:rep(4) .. '%-7' .. HEX:rep(3) .. '%-[89ab]' .. HEX:rep(3) .. '%-' .. HEX:rep(12) .. '$'
local tombstone = redis.pcall('GET', KEYS[2]) or ''
if type(tombstone) ~= 'string' or not string.find(tombstone, ID) or tombstone < ARGV[1] then
  redis.call('SET', KEYS[2], ARGV[1], 'EX', ARGV[2])
end
return gone
