--[[
Make a product or change its name, price and stock items. A stock item left out stays as it is; the quantity of one
that exists is changed by adjust_stock alone.

KEYS[1] meta              the partition's meta hash
KEYS[2] events            the partition's event stream
KEYS[3] products          the partition's product ids
KEYS[4] product_key       the product's hash
ARGV[1] server            identity of the server this call was meant for
ARGV[2] generation        the generation the flow began in
ARGV[3] now_ms            the time in ms, or nothing for the server's own clock
ARGV[4] backlog_max       events that may be waiting for the writer
ARGV[5] request           id of the HTTP request that this is for, or nothing
ARGV[6] product           product id
ARGV[7] name              display name
ARGV[8] price             minor units
ARGV[9] stock_json        the requested stock items as JSON, passed through to the event
ARGV[10] stock_items_max  most stock items a product may have
ARGV[11...] stock         repeating: stock id, option, initial quantity (units)
Returns                   in order of precedence
  unverified
  stale, generation
  overloaded
  too_many_items, stock_items
  created, place
  updated, place
Event product.put
]]
local meta = KEYS[1]
local events = KEYS[2]
local products = KEYS[3]
local product_key = KEYS[4]
local server = ARGV[1]
local generation = ARGV[2]
local now_ms = ARGV[3]
local backlog_max = ARGV[4]
local request = ARGV[5]
local product = ARGV[6]
local name = ARGV[7]
local price = ARGV[8]
local stock_json = ARGV[9]
local stock_items_max = tonumber(ARGV[10])
local stock = 11

--- @include guard
--- @include clock
--- @include events

local refusal, epoch, seq = guard(meta, server, generation, backlog_max)
if refusal then
  return refusal
end
whole(price, 0)
local known = redis.call('HGET', product_key, 'stocks')
local stocks, added, writes = {}, {}, {}
if known then
  for id in string.gmatch(known, '[^,]+') do
    stocks[#stocks + 1] = id
    stocks[id] = true
  end
end
for index = stock, #ARGV, 3 do
  local id = ARGV[index]
  whole(ARGV[index + 2], 0)
  writes[#writes + 1] = {'o:' .. id, ARGV[index + 1]}
  if not stocks[id] then
    stocks[#stocks + 1] = id
    stocks[id] = true
    added[#added + 1] = id
    writes[#writes] = {'o:' .. id, ARGV[index + 1], 'a:' .. id, ARGV[index + 2], 'r:' .. id, '0', 's:' .. id, '0'}
  end
end
if #stocks > stock_items_max then
  return {'too_many_items', int(#stocks)}
end

local place = append(events, meta, epoch, seq, request, 'product.put', clock_ms(now_ms),
  'product', product, 'name', name, 'price', price, 'stock', stock_json, 'added', table.concat(added, ','))
redis.call('HSET', product_key, 'name', name, 'price', price, 'stocks', table.concat(stocks, ','), 'seq', place)
for _, write in ipairs(writes) do
  redis.call('HSET', product_key, unpack(write))
end
if #stocks == 1 then
  redis.call('HSET', product_key, 'only', stocks[1])
else
  redis.call('HDEL', product_key, 'only')
end
redis.call('ZADD', products, 0, product)
return {known and 'updated' or 'created', place}
