--[[
Raise or lower the available quantity of a stock item, never below zero. Every call is an adjustment of its own.

KEYS[1] meta              the partition's meta hash
KEYS[2] events            the partition's event stream
KEYS[3] product_key       the product's hash
ARGV[1] server            identity of the server this call was meant for
ARGV[2] generation        the generation the flow began in
ARGV[3] now_ms            the time in ms, or nothing for the server's own clock
ARGV[4] backlog_max       events that may be waiting for the writer
ARGV[5] product           product id
ARGV[6] stock             stock id
ARGV[7] delta             units, negative lowers
ARGV[8] reason            the operator's words
ARGV[9] available_max     most units a stock item may have available
ARGV[10] key              hash of the idempotency key, or nothing
ARGV[11] fingerprint      fingerprint of the request, or nothing
Returns                   in order of precedence
  unverified
  stale, generation
  overloaded
  unknown
  stock_limit, available
  adjusted, place, available, option
Event stock.adjusted
]]
local meta = KEYS[1]
local events = KEYS[2]
local product_key = KEYS[3]
local server = ARGV[1]
local generation = ARGV[2]
local now_ms = ARGV[3]
local backlog_max = ARGV[4]
local product = ARGV[5]
local stock = ARGV[6]
local delta = ARGV[7]
local reason = ARGV[8]
local available_max = tonumber(ARGV[9])
local key = ARGV[10]
local fingerprint = ARGV[11]

--- @include guard
--- @include clock
--- @include events

local refusal, epoch, seq = guard(meta, server, generation, backlog_max)
if refusal then
  return refusal
end
local change = whole(delta)
local item = redis.call('HMGET', product_key, 'a:' .. stock, 'o:' .. stock)
if not item[1] then
  return {'unknown'}
end
local available = tonumber(item[1]) + change
if available < 0 or available > available_max then
  return {'stock_limit', item[1]}
end
local place = append(events, meta, epoch, seq, 'stock.adjusted', clock_ms(now_ms),
  'product', product, 'stock', stock, 'delta', delta, 'available', int(available), 'reason', reason,
  'key', key, 'fingerprint', fingerprint)
redis.call('HINCRBY', product_key, 'a:' .. stock, delta)
redis.call('HSET', product_key, 'seq', place)
return {'adjusted', place, int(available), item[2]}
