--[[
Hold stock anew for a live order whose reservation here was lost, or was given back though the order is completed. The
order has the units by right, so available falls as far as there are any; what is not there is recorded as short.
Recovery alone calls it. Repeatable.

KEYS[1] meta              the partition's meta hash
KEYS[2] events            the partition's event stream
KEYS[3] reservation       this order's reservation here
KEYS[4...] product_key    one key per product
ARGV[1] server            the recovery's mark, or the identity of a trusted server
ARGV[2] generation        the generation of the recovery
ARGV[3] now_ms            the time in ms, or nothing for the server's own clock
ARGV[4] backlog_max       events that may be waiting for the writer
ARGV[5] request           nothing: a recovery is for no request
ARGV[6] order             order id
ARGV[7] user              user id
ARGV[8] packed            the order's lines here: product:stock:quantity, joined by commas, each stock item once
ARGV[9...] product        product ids, in the order of their keys
Returns                   in order of precedence
  unverified
  stale, generation
  overloaded
  exists, place, state    it is held or sold; nothing changed
  unknown_reference, product, stock
  adopted, place, short   the lines, packed, that available could not give; nothing when it gave all
Event stock.adopted
]]
local meta = KEYS[1]
local events = KEYS[2]
local reservation = KEYS[3]
local product_key = 4
local server = ARGV[1]
local generation = ARGV[2]
local now_ms = ARGV[3]
local backlog_max = ARGV[4]
local request = ARGV[5]
local order = ARGV[6]
local user = ARGV[7]
local packed = ARGV[8]
local product = 9

--- @include guard
--- @include clock
--- @include events
--- @include reservations

local refusal, epoch, seq = guard(meta, server, generation, backlog_max)
if refusal then
  return refusal
end
local found = redis.call('HMGET', reservation, 'state', 'seq')
if found[1] and found[1] ~= 'released' then
  return {'exists', found[2], found[1]}
end
local lines = unpack_lines(packed)
if not key_lines(lines, keys_by_id({unpack(KEYS, product_key)}, {unpack(ARGV, product)})) then
  return redis.error_reply('RESERVATION other products are adopted than were declared')
end
local short = {}
for _, line in ipairs(lines) do
  whole(int(line.quantity), 1)
  local available = redis.call('HGET', line.key, 'a:' .. line.stock)
  if not available then
    return {'unknown_reference', line.product, line.stock}
  end
  line.taken = math.min(line.quantity, tonumber(available))
  if line.taken < line.quantity then
    short[#short + 1] = line.product .. ':' .. line.stock .. ':' .. int(line.quantity - line.taken)
  end
end

local now, missing = clock_ms(now_ms), table.concat(short, ',')
local place = append(events, meta, epoch, seq, request, 'stock.adopted', now,
  'order', order, 'user', user, 'lines', packed, 'short', missing)
redis.call('HSET', reservation, 'user', user, 'state', 'held', 'lines', packed, 'at', int(now), 'seq', place)
redis.call('HDEL', reservation, 'finished_at')
for _, line in ipairs(lines) do
  redis.call('HINCRBY', line.key, 'a:' .. line.stock, int(-line.taken))
  redis.call('HINCRBY', line.key, 'r:' .. line.stock, int(line.quantity))
  redis.call('HSET', line.key, 'seq', place)
end
return {'adopted', place, missing}
