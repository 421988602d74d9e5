--[[
Hold the stock of an order's lines in this partition: all of them or none. Repeatable by the order id. Or only look
whether they could be held, and change nothing.

KEYS[1] meta              the partition's meta hash
KEYS[2] events            the partition's event stream
KEYS[3] reservation       this order's reservation here
KEYS[4...] product_key    one key per product
ARGV[1] server            identity of the server this call was meant for
ARGV[2] generation        the generation the flow began in
ARGV[3] now_ms            the time in ms, or nothing for the server's own clock
ARGV[4] backlog_max       events that may be waiting for the writer
ARGV[5] request           id of the HTTP request that this is for, or nothing
ARGV[6] order             order id
ARGV[7] created_ms        when the order id was made
ARGV[8] age_max_ms        an order id older than this is refused
ARGV[9] user              user id
ARGV[10] quantity_max     most units of one stock item in an order
ARGV[11] hold             1, or 0 to look only
ARGV[12...] line          repeating: number of the product's key (1 for KEYS[4]), product id, stock id or nothing, quantity
Returns                   in order of precedence
  unverified
  stale, generation
  overloaded
  finished, state         this reservation was confirmed or released before
  too_old
  unknown_reference, product, stock
  stock_id_required, product
  quantity_limit, product, stock, quantity
  out_of_stock, lines     product, stock, requested, available, reserved of each line that fails
  available               all could be held; to look was all that was asked
  reserved, place, lines  product, stock, quantity, name, option, price of each stock item
Event stock.reserved
]]
local meta = KEYS[1]
local events = KEYS[2]
local reservation = KEYS[3]
local product_key = 3
local server = ARGV[1]
local generation = ARGV[2]
local now_ms = ARGV[3]
local backlog_max = ARGV[4]
local request = ARGV[5]
local order = ARGV[6]
local created_ms = tonumber(ARGV[7])
local age_max_ms = tonumber(ARGV[8])
local user = ARGV[9]
local quantity_max = tonumber(ARGV[10])
local hold = ARGV[11]
local line = 12

--- @include guard
--- @include clock
--- @include events
--- @include reservations

local refusal, epoch, seq = guard(meta, server, generation, backlog_max)
if refusal then
  return refusal
end
local held = redis.call('HMGET', reservation, 'state', 'seq', 'lines')
if held[1] and held[1] ~= 'held' then
  return {'finished', held[1]}
end
local now = clock_ms(now_ms)
if not held[1] and now - created_ms > age_max_ms then
  return {'too_old'}
end

-- Each stock item once, in the order it was first asked for; the same one given twice is added up. What is held
-- already is what it was asked for then, however the product has changed since.
local items, item_of, key_of = {}, {}, {}
local required, limit
for index = line, #ARGV, 4 do
  local key = KEYS[product_key + whole(ARGV[index], 1)]
  local product, stock, quantity = ARGV[index + 1], ARGV[index + 2], whole(ARGV[index + 3], 1)
  key_of[product] = key
  if not held[1] and stock == '' then
    local only = redis.call('HMGET', key, 'only', 'name')
    if not only[2] then
      return {'unknown_reference', product, ''}
    end
    stock = only[1]
  end
  local name = product .. ':' .. (stock or '')
  local item = item_of[name]
  if not stock then
    required = required or product
  elseif item then
    item.quantity = item.quantity + quantity
  else
    item = {key = key, product = product, stock = stock, quantity = quantity, available = 0, reserved = 0}
    items[#items + 1] = item
    item_of[name] = item
  end
end
if held[1] then
  items = unpack_lines(held[3])
  if not key_lines(items, key_of) then
    return redis.error_reply('RESERVATION other products are held than were asked for')
  end
end

local short, reply, packed = {}, {}, {}
for _, item in ipairs(items) do
  local found = redis.call('HMGET', item.key, 'a:' .. item.stock, 'r:' .. item.stock, 'o:' .. item.stock, 'name', 'price')
  if not found[1] then
    return {'unknown_reference', item.product, item.stock}
  end
  item.available, item.reserved = tonumber(found[1]), tonumber(found[2])
  local quantity = int(item.quantity)
  if not held[1] and item.quantity > quantity_max then
    limit = limit or item
  end
  if not held[1] and item.available < item.quantity then
    local last = #short
    short[last + 1], short[last + 2], short[last + 3] = item.product, item.stock, quantity
    short[last + 4], short[last + 5] = found[1], found[2]
  end
  packed[#packed + 1] = item.product .. ':' .. item.stock .. ':' .. quantity
  local last = #reply
  reply[last + 1], reply[last + 2], reply[last + 3] = item.product, item.stock, quantity
  reply[last + 4], reply[last + 5], reply[last + 6] = found[4], found[3], found[5]
end
if required then
  return {'stock_id_required', required}
end
if limit then
  return {'quantity_limit', limit.product, limit.stock, int(limit.quantity)}
end
if #short > 0 then
  return {'out_of_stock', short}
end
if held[1] then
  return {'reserved', held[2], reply}
end
if hold == '0' then
  return {'available'}
elseif hold ~= '1' then
  error('to hold is 1, to look only 0')
end

local lines = table.concat(packed, ',')
local place = append(events, meta, epoch, seq, request, 'stock.reserved', now,
  'order', order, 'user', user, 'lines', lines)
redis.call('HSET', reservation, 'user', user, 'state', 'held', 'lines', lines, 'at', int(now), 'seq', place)
for _, item in ipairs(items) do
  redis.call('HSET', item.key, 'a:' .. item.stock, int(item.available - item.quantity),
    'r:' .. item.stock, int(item.reserved + item.quantity), 'seq', place)
end
return {'reserved', place, reply}
