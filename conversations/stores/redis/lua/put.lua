-- Have one conversation hold what it should of its turns and of those that are given: see conversations/merge.py.
--
-- KEYS[1] the conversation, KEYS[2] its tombstone, KEYS[3] corrupt:{conversation}
-- ARGV    ttl in seconds, most turns, most bytes, tombstone ("" for none), its ttl in seconds, 1 to replace what is
--         there, then for each turn: id, its two lines
-- answers {given turns that no tombstone covers, turns that were there}

-- include: tombstone.lua
-- include: turns.lua

local kind = redis.call('TYPE', KEYS[1])['ok']
if kind ~= 'string' and kind ~= 'none' then
  return redis.error_reply('CORRUPT of another type')
end
local value = redis.call('GET', KEYS[1]) or ''
local there = read_tombstone(KEYS[2])
local deleted = ARGV[4] > there
local tombstone = deleted and ARGV[4] or there

local function id_before(stop) -- the id in the line that ends with the newline at stop
  return string.match(tail_before(value, stop), WHOLE_TAIL)
end

local ids, turns = {}, {}
local before, position, last = 0, 1, ''
while position <= #value do
  local question_ends, answer_ends = ends_of_turn(value, position)
  local id = answer_ends and id_before(answer_ends) and id_before(question_ends)
  if not id or id <= last or string.sub(value, position, position + #QUESTION - 1) ~= QUESTION then
    return redis.error_reply('CORRUPT not the turns of a conversation')
  end
  before = before + 1
  last = id
  if id > tombstone then
    ids[#ids + 1] = id
    turns[id] = string.sub(value, position, answer_ends)
  end
  position = answer_ends + 1
end

ids = newest(ids, ARGV[2]) -- what readers do not see is not there
before = math.min(before, ARGV[2])

local given = 0
for argument = 7, #ARGV, 2 do
  if ARGV[argument] > tombstone then
    given = given + 1
  end
end
if ARGV[6] == '1' and given > 0 then
  ids, turns = {}, {}
end
for argument = 7, #ARGV, 2 do
  local id = ARGV[argument]
  if id > tombstone and not turns[id] then
    ids[#ids + 1] = id
    turns[id] = ARGV[argument + 1]
  end
end
table.sort(ids)

local kept, size = {}, 0
for number, id in ipairs(ids) do
  kept[number] = turns[id]
  size = size + #kept[number]
end
local oldest = 1
while given > 0 and oldest < #kept and (#kept - oldest + 1 > tonumber(ARGV[2]) or size > tonumber(ARGV[3])) do
  size = size - #kept[oldest]
  oldest = oldest + 1
end

if #kept == 0 then
  redis.call('UNLINK', KEYS[1])
elseif given > 0 then
  local ttl = math.max(tonumber(ARGV[1]), redis.call('TTL', KEYS[1]))
  redis.call('SET', KEYS[1], table.concat(kept, '', oldest), 'EX', ttl)
elseif #kept < before then
  redis.call('SET', KEYS[1], table.concat(kept), 'KEEPTTL')
end
if deleted then
  local number = 1
  while redis.call('UNLINK', KEYS[3] .. ':' .. number) == 1 do
    number = number + 1
  end
  leave_tombstone(KEYS[2], tombstone, ARGV[5])
end
return {given, before}
