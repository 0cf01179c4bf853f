-- Add turns to one conversation, each in the place of its id; drop the oldest over the limits; renew the TTL.
--
-- KEYS[1] the conversation, KEYS[2] its tombstone, KEYS[3] its Idempotency-Keys,
-- KEYS[4] the hash of flags, if one is to be set
-- ARGV    ttl in seconds, most turns, most bytes, session, its flag, time before which no key is kept, most keys,
--         seconds to keep them, 1 if the last turn counts as there by a key too,
--         then for each turn: id, its key ("" for none), its time, its two lines
-- answers {1 if the last turn is new, messages that were there before, tombstone if it covers the last turn,
--          1 if there is a tombstone that is no id: it covers nothing,
--          time of the last turn's key if that is kept and its turn is not there}

-- include: tombstone.lua
-- include: turns.lua
-- include: keys.lua

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

turns = newest(turns, ARGV[2]) -- what readers do not see is not there

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
local size = 0
for _, turn in ipairs(turns) do
  size = size + #turn
end
local added = 0
local tombstoned = ''
local expired = ''
for argument = 10, #ARGV, 4 do
  local id, key, time, lines = ARGV[argument], ARGV[argument + 1], ARGV[argument + 2], ARGV[argument + 3]
  local place = #turns -- the turn comes after this many others
  while place > 0 and turn_id(place) > id do
    place = place - 1
  end
  local there = place > 0 and turn_id(place) == id
  if ARGV[9] == '1' and argument + 4 > #ARGV and not there then
    there = is_named('turn:' .. id) or key ~= '' and is_named(key)
    local used = not there and key ~= '' and time_of_key(KEYS[3], key, ARGV[6])
    expired = used and string.format('%.0f', used) or ''
  end
  added = 0
  tombstoned = id <= tombstone and tombstone or ''
  if not there and tombstoned == '' and expired == '' then
    table.insert(turns, place + 1, lines)
    size = size + #lines
    added = 1
    if key ~= '' then
      keep_key(KEYS[3], key, time, ARGV[6], ARGV[7], ARGV[8])
    end
  end
end

local oldest = 1
while oldest < #turns and (#turns - oldest + 1 > tonumber(ARGV[2]) or size > tonumber(ARGV[3])) do
  size = size - #turns[oldest]
  oldest = oldest + 1
end
if KEYS[4] then
  redis.call('HSET', KEYS[4], ARGV[4], ARGV[5])
end
if #turns > 0 then
  redis.call('SET', KEYS[1], table.concat(turns, '', oldest), 'EX', ARGV[1])
end
return {added, before, tombstoned, corrupt and 1 or 0, expired}
