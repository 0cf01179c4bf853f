-- Remove the turns up to an id; the others and the time the conversation has left stay. Return how many went.
-- What is no turn goes too, or, unless `corrupt_too`, nothing changes and -1 is returned.
local function remove_turns(key, upto, corrupt_too)
  local value = redis.call('GET', key)
  local gone, position = 0, 1
  while position <= #value do -- oldest first: stop at the first turn that is later
    local question_ends, answer_ends = ends_of_turn(value, position)
    local id = answer_ends and string.match(tail_before(value, question_ends), ID_IN_TAIL)
    if id and id > upto then
      break
    elseif not id and not corrupt_too then
      return -1
    end
    gone = gone + 1
    position = (answer_ends or #value) + 1
  end
  if position > #value then
    redis.call('UNLINK', key)
  elseif position > 1 then
    redis.call('SET', key, string.sub(value, position), 'KEEPTTL')
  end
  return gone
end
