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

-- Leave a tombstone that covers all up to the id, unless there is a later one.
local function leave_tombstone(key, id, ttl)
  if read_tombstone(key) < id then
    redis.call('SET', key, id, 'EX', ttl)
  end
end
