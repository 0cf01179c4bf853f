-- A line is opaque but for its beginning, which names the role, and its end, `"id":"…","at":"…"}`, whose width is
-- fixed. In content every quote is escaped, so `"id":"` and `"key":"` can only be the message's own.
local QUESTION = '{"role":"user",'
local TAIL = 77 -- bytes from the first quote of "id" to the newline
local WHOLE_TAIL = '^"id":"([%x-]+)","at":"[^"]+"}\n$'
local ID_IN_TAIL = '^"id":"([%x-]+)"'

-- Return the tail of the line that ends with the newline at stop.
local function tail_before(text, stop)
  return string.sub(text, stop - TAIL + 1, stop)
end

-- Return the id in the tail of a line; of what is no tail, whatever is in its place.
local function id_in(tail)
  return string.sub(tail, 7, 42)
end

-- Return where the question and the answer end that begin at position, nil where they do not.
local function ends_of_turn(text, position)
  local question_ends = string.find(text, '\n', position, true)
  return question_ends, question_ends and string.find(text, '\n', question_ends + 1, true)
end

-- Return the last of a list, so many at the most.
local function newest(list, most)
  local kept = {}
  for number = math.max(#list - most + 1, 1), #list do
    kept[#kept + 1] = list[number]
  end
  return kept
end
