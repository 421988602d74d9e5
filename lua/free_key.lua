--[[
Free an idempotency key that this flow has claimed and not spent: its request was refused and has changed nothing.
Repeatable.

KEYS[1] meta              the partition's meta hash
KEYS[2] key_record        the idempotency key's hash
ARGV[1] server            identity of the server this call was meant for
ARGV[2] generation        the generation the flow began in
ARGV[3] now_ms            not used: nothing here depends on the time
ARGV[4] backlog_max       events that may be waiting for the writer
ARGV[5] request           not used: there is no event
ARGV[6] claim             names the flow
Returns                   in order of precedence
  unverified
  stale, generation
  overloaded
  freed                   or it was not this flow's any more
Event none
]]
local meta = KEYS[1]
local key_record = KEYS[2]
local server = ARGV[1]
local generation = ARGV[2]
local now_ms = ARGV[3]
local backlog_max = ARGV[4]
local request = ARGV[5]
local claim = ARGV[6]

--- @include guard

local refusal = guard(meta, server, generation, backlog_max)
if refusal then
  return refusal
end
if redis.call('HGET', key_record, 'claim') == claim then
  redis.call('DEL', key_record)
end
return {'freed'}
