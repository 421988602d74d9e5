--[[
Turn what completed orders hold of this partition's stock into sold units, all in one event, and count them for the day
of their payment. Repeatable: each is sold once. The worker calls it when the orders are durable; one whose
reservation is not as it should be holds up no other.

KEYS[1] meta              the partition's meta hash
KEYS[2] events            the partition's event stream
KEYS[3] sales             the sorted set of units sold that day
KEYS[4...] held_key       the reservation of each order here, then one key per product of theirs
ARGV[1] server            identity of the server this call was meant for
ARGV[2] generation        the generation the flow began in
ARGV[3] now_ms            the time in ms, or nothing for the server's own clock
ARGV[4] backlog_max       events that may be waiting for the writer
ARGV[5] request           id of the HTTP request that this is for, or nothing
ARGV[6] day               the day of the payment in the business time zone, yyyymmdd
ARGV[7] orders            how many orders there are
ARGV[8...] id             order ids, then product ids, in the order of their keys
Returns                   in order of precedence
  unverified
  stale, generation
  overloaded
  confirmed, outcomes     for each order what it is and its place: confirmed; or what calls for an alarm: missing (there
                          is no such reservation), released (it was given back before), mismatched (it holds others)
Event stock.confirmed
]]
local meta = KEYS[1]
local events = KEYS[2]
local sales = KEYS[3]
local held_key = 4
local server = ARGV[1]
local generation = ARGV[2]
local now_ms = ARGV[3]
local backlog_max = ARGV[4]
local request = ARGV[5]
local day = ARGV[6]
local orders = ARGV[7]
local id = 8

--- @include guard
--- @include clock
--- @include events
--- @include reservations

local refusal, epoch, seq = guard(meta, server, generation, backlog_max)
if refusal then
  return refusal
end
local count = whole(orders, 1)
local key_of = {}
for index = id + count, #ARGV do
  key_of[ARGV[index]] = KEYS[held_key - id + index]
end

-- What is sold: the orders with their reservations, and the units of each stock item, by the product's key.
local sold, reservations, product_keys, items_of, item_of = {}, {}, {}, {}, {}
local function sell(line)
  if not items_of[line.key] then
    items_of[line.key] = {}
    product_keys[#product_keys + 1] = line.key
  end
  local name = line.product .. ':' .. line.stock
  local item = item_of[name]
  if item then
    item.quantity = item.quantity + line.quantity
  else
    item_of[name] = line
    table.insert(items_of[line.key], line)
  end
end

local outcomes, place_at, seen = {}, {}, {}
for index = 0, count - 1 do
  local order, reservation = ARGV[id + index], KEYS[held_key + index]
  local found = redis.call('HMGET', reservation, 'state', 'seq', 'lines')
  local outcome, place = found[1] or 'missing', found[2] or ''
  if outcome == 'sold' then
    outcome = 'confirmed'
  elseif outcome == 'held' then
    local lines = unpack_lines(found[3])
    if seen[order] then
      error('an order is given twice')
    elseif key_lines(lines, key_of) then
      outcome, seen[order] = 'confirmed', true
      sold[#sold + 1], reservations[#reservations + 1], place_at[#place_at + 1] = order, reservation, 2 * index + 2
      for _, line in ipairs(lines) do
        sell(line)
      end
    else
      outcome = 'mismatched'
    end
  end
  outcomes[2 * index + 1], outcomes[2 * index + 2] = outcome, place
end
if #sold == 0 then
  return {'confirmed', outcomes}
end

local packed = {}
for _, key in ipairs(product_keys) do
  for _, item in ipairs(items_of[key]) do
    packed[#packed + 1] = item.product .. ':' .. item.stock .. ':' .. int(item.quantity)
  end
end
local now = clock_ms(now_ms)
local place = append(events, meta, epoch, seq, request, 'stock.confirmed', now,
  'orders', table.concat(sold, ','), 'day', day, 'lines', table.concat(packed, ','))
for index, reservation in ipairs(reservations) do
  outcomes[place_at[index]] = place
  redis.call('HSET', reservation, 'state', 'sold', 'finished_at', int(now), 'seq', place)
end
for _, key in ipairs(product_keys) do
  local units = 0
  for _, item in ipairs(items_of[key]) do
    redis.call('HINCRBY', key, 'r:' .. item.stock, int(-item.quantity))
    redis.call('HINCRBY', key, 's:' .. item.stock, int(item.quantity))
    units = units + item.quantity
  end
  redis.call('HSET', key, 'seq', place)
  redis.call('ZINCRBY', sales, int(units), items_of[key][1].product)
end
return {'confirmed', outcomes}
