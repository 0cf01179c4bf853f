-- Give the store an identity, unless it has another by now than it was seen with.
--
-- KEYS[1] the dataset; ARGV the id that was seen ("" for none), then the new id, epoch and instance; answers 1 if given
if (redis.call('HGET', KEYS[1], 'id') or '') ~= ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[1], 'id', ARGV[2], 'epoch', ARGV[3], 'instance', ARGV[4])
return 1
