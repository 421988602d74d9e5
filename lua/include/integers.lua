-- Largest integer that Lua keeps exactly.
local INTEGER_MAX = 9007199254740991

-- A whole number under 2^53 as decimal text, on a server of 64 bits. `tostring` and `..` would write 1e+15 for a large
-- one; `%d` takes half the time of `%.0f`, and writes the -0 that negation makes of 0 as 0, which HINCRBY understands.
-- It cuts a fraction off, by which `whole` knows one.
local function int(number)
  return string.format('%d', number)
end

-- A text as an error may quote it: Redis up to 8.2 sends an error on as it is, and a line break would end its reply.
local function quoted(text, length)
  return (string.gsub(string.sub(text, 1, length), '%c', ' '))
end

-- The number that an argument says in decimal digits, `least` or more; else an error. `tonumber` alone also takes 1.5,
-- 0x10, 1e3 and nan, which the arithmetic of Redis would refuse halfway through the writes.
local function whole(text, least)
  local number = tonumber(text)
  if not number or not (math.abs(number) <= INTEGER_MAX) or int(number) ~= text or (least and number < least) then
    error('an argument is no whole number of its range: ' .. quoted(text or '', 40))
  end
  return number
end

-- The same for an argument that may be nothing.
local function whole_or_nothing(text, least)
  return text ~= '' and whole(text, least) or nil
end
