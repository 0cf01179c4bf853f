-- Count the messages of one conversation and return the end of its last line, its size, the beginning of its newest
-- question, and its user, so that a list fetches no whole values.
--
-- KEYS[1] the conversation
-- ARGV    most turns that readers see, bytes wanted of the newest question's line
-- answers nothing if there is none, {0, "", 0, "", ""} if it is not lines of a conversation, else {messages, last 77
-- bytes, bytes in all, that beginning, user}
--
-- Only the beginning and the end of each line are looked at.

-- include: turns.lua
-- include: users.lua

local CORRUPT = {0, '', 0, '', ''}

local value = redis.pcall('GET', KEYS[1])
if type(value) == 'table' then -- an error
  return string.find(value.err, 'WRONGTYPE', 1, true) and CORRUPT or value
elseif not value then
  return false
elseif string.sub(value, 1, #QUESTION) ~= QUESTION or string.sub(value, -1) ~= '\n' then
  return CORRUPT
end

local messages, position = 0, 1
local question, answer, tail
while position <= #value do
  local stop = string.find(value, '\n', position, true)
  tail = tail_before(value, stop)
  if not string.find(tail, WHOLE_TAIL) then
    return CORRUPT
  end
  messages = messages + 1
  question, answer, position = answer, position, stop + 1
end
if messages % 2 == 1 then
  return CORRUPT
end
local words = string.sub(value, question, math.min(question + ARGV[2], answer) - 1)
return {math.min(messages, 2 * ARGV[1]), tail, #value, words, newest_user(value)}
