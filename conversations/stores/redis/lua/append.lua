-- Add turns to one conversation, each in the place of its id; drop the oldest over the limits; renew the TTL.
--
-- KEYS[1] the conversation, KEYS[2] its tombstone, KEYS[3] the hash of flags, if one is to be set
-- ARGV    ttl in seconds, most turns, most bytes, session, its flag,
--         then for each turn: id, the keys that name it ("" where its id alone counts), its two lines
-- answers {1 if the last turn is new, messages that were there before, tombstone if it covers the last turn,
--          1 if there is a tombstone that is no id: it covers nothing}

-- include: tombstone.lua
-- include: turns.lua

local value = redis.call('GET', KEYS[1]) or ''
local tombstone, corrupt = read_tombstone(KEYS[2])

local turns = {} -- two lines each, in the order of their ids
local position = 1
while position <= #value do
  local _, answer_ends = ends_of_turn(value, position)
  if not answer_ends then
    return redis.error_reply('CORRUPT a turn is not whole')
  end
  turns[#turns + 1] = string.sub(value, position, answer_ends)
  position = answer_ends + 1
end
if value ~= '' and not (string.sub(value, 1, #QUESTION) == QUESTION and string.find(tail_before(value, #value), WHOLE_TAIL)) then
  return redis.error_reply('CORRUPT not lines of a conversation')
end

local function turn_id(number)
  local turn = turns[number]
  return string.match(tail_before(turn, string.find(turn, '\n', 1, true)), WHOLE_TAIL) or ''
end

local function is_named(key)
  local id = string.match(key, '^turn:(.+)')
  for number, turn in ipairs(turns) do
    if id and turn_id(number) == id or string.find(turn, '"key":"' .. key .. '"', 1, true) then
      return true
    end
  end
  return false
end

local before = 2 * #turns
local size = #value
local added = 0
local covered = ''
for argument = 6, #ARGV, 3 do
  local id, keys, lines = ARGV[argument], ARGV[argument + 1], ARGV[argument + 2]
  local place = #turns -- the turn comes after this many others
  while place > 0 and turn_id(place) > id do
    place = place - 1
  end
  local there = place > 0 and turn_id(place) == id
  for key in string.gmatch(keys, '%S+') do
    there = there or is_named(key)
  end
  added = 0
  covered = id <= tombstone and tombstone or ''
  if not there and covered == '' then
    table.insert(turns, place + 1, lines)
    size = size + #lines
    added = 1
  end
end

local oldest = 1
while oldest < #turns and (#turns - oldest + 1 > tonumber(ARGV[2]) or size > tonumber(ARGV[3])) do
  size = size - #turns[oldest]
  oldest = oldest + 1
end
if KEYS[3] then
  redis.call('HSET', KEYS[3], ARGV[4], ARGV[5])
end
if #turns > 0 then
  redis.call('SET', KEYS[1], table.concat(turns, '', oldest), 'EX', ARGV[1])
end
return {added, before, covered, corrupt and 1 or 0}
