--[[
The products of this partition sold most over some days: the top of the union of the days' sorted sets.

KEYS[1] meta              the partition's meta hash
KEYS[2...] sales          the days' sorted sets of units sold per product
ARGV[1] server            identity of the server this call was meant for
ARGV[2] generation        the generation the flow began in
ARGV[3] count_max         most products to return
Returns                   in order of precedence
  unverified
  stale, generation
  read, ranking           product id and units sold, most sold first; equals in the order of their ids
Event none
]]
local meta = KEYS[1]
local sales = 2
local server = ARGV[1]
local generation = ARGV[2]
local count_max = tonumber(ARGV[3])

--- @include guard_read
--- @include integers

local refusal = guard_read(meta, server, generation)
if refusal then
  return refusal
end
local sold, products = {}, {}
for index = sales, #KEYS do
  local scores = redis.call('ZRANGE', KEYS[index], 0, -1, 'WITHSCORES')
  for at = 1, #scores, 2 do
    local product = scores[at]
    if not sold[product] then
      products[#products + 1] = product
    end
    sold[product] = (sold[product] or 0) + tonumber(scores[at + 1])
  end
end
table.sort(products, function(one, other)
  if sold[one] ~= sold[other] then
    return sold[one] > sold[other]
  end
  return one < other
end)
local ranking = {}
for index = 1, math.min(count_max, #products) do
  ranking[#ranking + 1] = products[index]
  ranking[#ranking + 1] = int(sold[products[index]])
end
return {'read', ranking}
