--[[
Read whole hashes from a trusted partition, all at one moment.

KEYS[1] meta              the partition's meta hash
KEYS[2...] hash           the hashes
ARGV[1] server            identity of the server this call was meant for
ARGV[2] generation        the generation the flow began in
Returns                   in order of precedence
  unverified
  stale, generation
  read, hashes            each hash as fields and values; empty where there is none
Event none
]]
local meta = KEYS[1]
local hash = 2
local server = ARGV[1]
local generation = ARGV[2]

--- @include guard_read

local refusal = guard_read(meta, server, generation)
if refusal then
  return refusal
end
local hashes = {}
for index = hash, #KEYS do
  hashes[#hashes + 1] = redis.call('HGETALL', KEYS[index])
end
return {'read', hashes}
