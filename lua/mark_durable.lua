--[[
Note how far PostgreSQL has this partition's events, and trim the stream of older ones. Never goes back.

KEYS[1] meta              the partition's meta hash
KEYS[2] events            the partition's event stream
ARGV[1] server            identity of the server this call was meant for
ARGV[2] epoch             the epoch the events were read in
ARGV[3] seq               the last sequence that is committed
ARGV[4] keep_from_seq     events before this sequence may leave the stream
Returns                   in order of precedence
  unverified
  changed                 the partition is in another epoch, or has not come so far
  marked
Event none
]]
local meta = KEYS[1]
local events = KEYS[2]
local server = ARGV[1]
local epoch = ARGV[2]
local seq = ARGV[3]
local keep_from_seq = ARGV[4]

--- @include integers

local durable, keep_from = whole(seq, 0), whole(keep_from_seq, 0)
if keep_from > durable + 1 then
  error('events would leave the stream that are not durable')
end
local found = redis.call('HMGET', meta, 'server', 'epoch', 'seq', 'durable')
if not found[1] or found[1] ~= server then
  return {'unverified'}
end
if found[2] ~= epoch or tonumber(found[3]) < durable then
  return {'changed'}
end
if tonumber(found[4]) < durable then
  redis.call('HSET', meta, 'durable', seq)
end
if keep_from > 0 then
  redis.call('XTRIM', events, 'MINID', '~', epoch .. '-' .. keep_from_seq)
end
return {'marked'}
