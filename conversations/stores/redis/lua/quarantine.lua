-- Move a conversation that is no history to the first free name beside it. Every copy then lives for ARGV[1] seconds
-- from now: an earlier one that expired before would leave a gap, at which a deletion of all copies stops.
-- KEYS[1] the conversation, KEYS[2] corrupt:{conversation}, which the braces keep in the same cluster slot.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return 0
end
local number = 1
while redis.call('RENAMENX', KEYS[1], KEYS[2] .. ':' .. number) == 0 do
  number = number + 1
end
for each = number, 1, -1 do
  redis.call('EXPIRE', KEYS[2] .. ':' .. each, ARGV[1])
end
return 1
