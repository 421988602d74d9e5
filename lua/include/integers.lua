-- A whole number under 2^53 as decimal text. `tostring` and `..` would write 1e+15 for a large one.
local function int(number)
  return string.format('%.0f', number)
end
