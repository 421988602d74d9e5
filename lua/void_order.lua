--[[
Settle what became of an order whose placing was never answered: its status if it is on record; else a tombstone that
makes a late place_order or checkout_order fail. One that may have left Redis is PostgreSQL's to answer. Repeatable.

KEYS[1] meta              the partition's meta hash
KEYS[2] events            the partition's event stream
KEYS[3] order_key         the order's hash
KEYS[4] cold              how far what is finished has left
ARGV[1] server            identity of the server this call was meant for
ARGV[2] generation        the generation the flow began in
ARGV[3] now_ms            the time in ms, or nothing for the server's own clock
ARGV[4] backlog_max       events that may be waiting for the writer
ARGV[5] request           id of the HTTP request that this is for, or nothing
ARGV[6] order             order id
ARGV[7] user              user id
ARGV[8] created_ms        when the order id was made
ARGV[9] asked             what `cold` said before PostgreSQL was asked, which has no such order; or nothing
Returns                   in order of precedence
  unverified
  stale, generation
  overloaded
  exists, place, status   the order is on record; nothing changed
  cold, times             it may be in PostgreSQL alone: ask there
  voided, place
Event order.voided
]]
local meta = KEYS[1]
local events = KEYS[2]
local order_key = KEYS[3]
local cold = KEYS[4]
local server = ARGV[1]
local generation = ARGV[2]
local now_ms = ARGV[3]
local backlog_max = ARGV[4]
local request = ARGV[5]
local order = ARGV[6]
local user = ARGV[7]
local created_ms = tonumber(ARGV[8])
local asked = ARGV[9]

--- @include guard
--- @include clock
--- @include events
--- @include cold

local refusal, epoch, seq = guard(meta, server, generation, backlog_max)
if refusal then
  return refusal
end
local known = redis.call('HMGET', order_key, 'status', 'seq')
if known[1] == 'void' then
  return {'voided', known[2]}
end
if known[1] then
  return {'exists', known[2], known[1]}
end
local times = may_be_cold(cold, created_ms, asked)
if times then
  return {'cold', times}
end
local place = append(events, meta, epoch, seq, request, 'order.voided', clock_ms(now_ms), 'order', order, 'user', user)
redis.call('HSET', order_key, 'user', user, 'status', 'void', 'seq', place)
return {'voided', place}
