-- Remove conversations from the list of a tenant, unless they have another place there by now.
--
-- KEYS[1] the list
-- ARGV    for each: its name there, and the score it had

for i = 1, #ARGV, 2 do
  local score = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if score and tonumber(score) == tonumber(ARGV[i + 1]) then
    redis.call('ZREM', KEYS[1], ARGV[i])
  end
end
