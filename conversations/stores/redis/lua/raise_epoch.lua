-- Raise what a part of a cluster has as the dataset's epoch, unless it has lost what it had.
--
-- KEYS[1] the part's epoch
-- ARGV    the epoch, the one that every part was seen to have reached: "" to raise whatever is there
-- answers 1, 0 where the part has less than was seen: it has lost data, and that has to stay visible
local has = tonumber(redis.call('GET', KEYS[1]) or '') or -1
if ARGV[2] ~= '' and has < tonumber(ARGV[2]) then
  return 0
end
if has < tonumber(ARGV[1]) then
  redis.call('SET', KEYS[1], ARGV[1])
end
return 1
