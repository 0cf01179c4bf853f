-- Clear a session's unsynced flag, unless it is not the one that was seen.
-- KEYS[1] the hash of flags; ARGV the session and the flag
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then
  return redis.call('HDEL', KEYS[1], ARGV[1])
end
return 0
