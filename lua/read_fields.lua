--[[
Read some fields of one hash from a trusted partition.

KEYS[1] meta              the partition's meta hash
KEYS[2] hash              the hash
ARGV[1] server            identity of the server this call was meant for
ARGV[2] generation        the generation the flow began in
ARGV[3...] field          field names
Returns                   in order of precedence
  unverified
  stale, generation
  read, values            each field's value or nil
Event none
]]
local meta = KEYS[1]
local hash = KEYS[2]
local server = ARGV[1]
local generation = ARGV[2]
local field = 3

--- @include guard_read

local refusal = guard_read(meta, server, generation)
if refusal then
  return refusal
end
return {'read', redis.call('HMGET', hash, unpack(ARGV, field))}
