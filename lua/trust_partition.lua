--[[
Trust the server of a partition that a recovery holds, when all that the recovery did there is durable. Repeatable.

KEYS[1] meta              the partition's meta hash
ARGV[1] server            the recovery's mark: `recovering:<token>:` and the identity of the server
ARGV[2] claim             the part of the mark before the identity
ARGV[3] epoch             the partition's epoch
ARGV[4] seq               its last sequence, which must be its last still
Returns                   in order of precedence
  unverified              this recovery does not hold it
  changed                 the partition is not what it was taken for
  trusted
Event none
]]
local meta = KEYS[1]
local server = ARGV[1]
local claim = ARGV[2]
local epoch = ARGV[3]
local seq = ARGV[4]

local identity = string.sub(server, #claim + 1)
local found = redis.call('HMGET', meta, 'server', 'epoch', 'seq')
if found[1] == identity and found[2] == epoch then
  return {'trusted'}
end
if not found[1] or found[1] ~= server then
  return {'unverified'}
end
if found[2] ~= epoch or found[3] ~= seq then
  return {'changed'}
end
redis.call('HSET', meta, 'server', identity, 'durable', seq)
return {'trusted'}
