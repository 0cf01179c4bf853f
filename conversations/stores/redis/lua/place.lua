-- Return what the lists need of a conversation: the end of its last line, and its users.
--
-- KEYS[1] the conversation, or a quarantined copy of it
-- answers nothing if there is none, else {last 77 bytes, then each user that a question names}; {""} where it is of
--         another type

-- include: turns.lua
-- include: users.lua

local value = redis.pcall('GET', KEYS[1])
if not value then
  return false
elseif type(value) ~= 'string' then
  return {''}
end
return {string.sub(value, -TAIL), unpack(users_in(value))}
