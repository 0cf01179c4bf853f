-- Who is named as the user of a conversation. In content every quote is escaped, so `,"user":"` can only be a question's
-- own, which begins with its role.
local USER = ',"user":"'

-- Return the user of the newest question that has one, '' for none.
local function newest_user(value)
  local at, user = string.find(value, USER, 1, true), ''
  while at do
    user = string.match(value, '^[^"]*', at + #USER)
    at = string.find(value, USER, at + #USER, true)
  end
  return user
end

-- Return every user that a question names, each once.
local function users_in(value)
  local found, users = {}, {}
  local at = string.find(value, USER, 1, true)
  while at do
    local user = string.match(value, '^[^"]*', at + #USER)
    if not found[user] then
      found[user] = true
      users[#users + 1] = user
    end
    at = string.find(value, USER, at + #USER, true)
  end
  return users
end
