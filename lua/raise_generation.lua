--[[
Raise a trusted partition's generation: every flow that began before is `stale` from now on. Never lowers it.

KEYS[1] meta              the partition's meta hash
ARGV[1] server            identity of the server this call was meant for
ARGV[2] generation        the global generation
Returns                   in order of precedence
  unverified
  raised, seq             the partition's last sequence of the earlier generation
Event none
]]
local meta = KEYS[1]
local server = ARGV[1]
local generation = ARGV[2]

local found = redis.call('HMGET', meta, 'server', 'generation', 'seq')
if not found[1] or found[1] ~= server then
  return {'unverified'}
end
if tonumber(found[2]) < tonumber(generation) then
  redis.call('HSET', meta, 'generation', generation)
end
return {'raised', found[3]}
