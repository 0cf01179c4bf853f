-- Clear unsynced flags, unless they are not those that were seen.
-- KEYS[1] the hash of flags; ARGV a session and its flag, for each
for argument = 1, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[argument]) == ARGV[argument + 1] then
    redis.call('HDEL', KEYS[1], ARGV[argument])
  end
end
