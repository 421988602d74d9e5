--[[
Begin a new epoch of a partition that a recovery holds, when all of it is durable. Repeatable.

KEYS[1] meta              the partition's meta hash
ARGV[1] server            the recovery's mark: `recovering:<token>:` and the identity of the server
ARGV[2] generation        the global generation
ARGV[3] epoch             the epoch that ends
ARGV[4] next_epoch        the epoch that begins
ARGV[5] seq               the partition's last sequence, which must be its last still
Returns                   in order of precedence
  unverified              this recovery does not hold it
  changed                 the partition is not what it was taken for
  begun
Event none
]]
local meta = KEYS[1]
local server = ARGV[1]
local generation = ARGV[2]
local epoch = ARGV[3]
local next_epoch = ARGV[4]
local seq = ARGV[5]

local found = redis.call('HMGET', meta, 'server', 'epoch', 'seq')
if not found[1] or found[1] ~= server then
  return {'unverified'}
end
if (found[2] ~= epoch and found[2] ~= next_epoch) or found[3] ~= seq then
  return {'changed'}
end
redis.call('HSET', meta, 'generation', generation, 'epoch', next_epoch, 'durable', seq)
return {'begun'}
