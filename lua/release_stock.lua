--[[
Give back what an order holds of this partition's stock. Repeatable: it happens once.

KEYS[1] meta              the partition's meta hash
KEYS[2] events            the partition's event stream
KEYS[3] reservation       this order's reservation here
KEYS[4...] product_key    one key per product of the reservation
ARGV[1] server            identity of the server this call was meant for
ARGV[2] generation        the generation the flow began in
ARGV[3] now_ms            the time in ms, or nothing for the server's own clock
ARGV[4] backlog_max       events that may be waiting for the writer
ARGV[5] request           id of the HTTP request that this is for, or nothing
ARGV[6] order             order id
ARGV[7...] product        product ids, in the order of their keys
Returns                   in order of precedence
  unverified
  stale, generation
  overloaded
  missing                 there is no such reservation
  sold, place             it was confirmed before; nothing is given back
  released, place
Event stock.released
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
local product = 7

--- @include guard
--- @include clock
--- @include events
--- @include reservations

local refusal, epoch, seq = guard(meta, server, generation, backlog_max)
if refusal then
  return refusal
end
local found = redis.call('HMGET', reservation, 'state', 'seq', 'lines')
if not found[1] then
  return {'missing'}
end
if found[1] == 'sold' then
  return {'sold', found[2]}
end
if found[1] == 'released' then
  return {'released', found[2]}
end
local lines = unpack_lines(found[3])
if not key_lines(lines, keys_by_id({unpack(KEYS, product_key)}, {unpack(ARGV, product)})) then
  return redis.error_reply('RESERVATION other products are held than were declared')
end

local now = clock_ms(now_ms)
local place = append(events, meta, epoch, seq, request, 'stock.released', now, 'order', order, 'lines', found[3])
redis.call('HSET', reservation, 'state', 'released', 'finished_at', int(now), 'seq', place)
for _, line in ipairs(lines) do
  redis.call('HINCRBY', line.key, 'r:' .. line.stock, int(-line.quantity))
  redis.call('HINCRBY', line.key, 'a:' .. line.stock, int(line.quantity))
  redis.call('HSET', line.key, 'seq', place)
end
return {'released', place}
