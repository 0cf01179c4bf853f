local HEX = '[0-9a-f]'
local ID = '^[0-7]' .. HEX:rep(7) .. '%-' .. HEX:rep(4) .. '%-7' .. HEX:rep(3) .. '%-[89ab]' .. HEX:rep(3) .. '%-' .. HEX:rep(12) .. '$'

-- Return the tombstone, '' for none, and whether there is one that is no id: it covers nothing.
local function read_tombstone(key)
  local tombstone = redis.pcall('GET', key) or '' -- a table where it is of another type
  if tombstone == '' or type(tombstone) == 'string' and string.find(tombstone, ID) then
    return tombstone, false
  end
  return '', true
end

-- Leave a tombstone that covers all up to the id, or a later one that is there, which lives for so many seconds, and not
-- shorter than what it replaces.
local function leave_tombstone(key, id, ttl)
  local there = read_tombstone(key)
  redis.call('SET', key, there > id and there or id, 'EX', math.max(tonumber(ttl), redis.call('TTL', key)))
end
