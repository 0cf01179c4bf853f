-- Keep the Idempotency-Keys of a conversation.
--
-- KEYS[1] its keys
-- ARGV    time before which none is kept, most keys, seconds to keep them, then for each: key, time

-- include: keys.lua

for argument = 4, #ARGV, 2 do
  keep_key(KEYS[1], ARGV[argument], ARGV[argument + 1], ARGV[1], ARGV[2], ARGV[3])
end
return 1
