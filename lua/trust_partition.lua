--[[
Trust a server for a partition that has been recovered: a new epoch, and the server's identity. Repeatable.

KEYS[1] meta              the partition's meta hash
ARGV[1] server            identity of the server this call was meant for
ARGV[2] generation        the global generation
ARGV[3] epoch             the epoch that ends
ARGV[4] next_epoch        the epoch that begins
ARGV[5] seq               the partition's last sequence, which must be its last still
Returns                   in order of precedence
  changed                 the partition is not what it was taken for
  trusted
Event none
]]
local meta = KEYS[1]
local server = ARGV[1]
local generation = ARGV[2]
local epoch = ARGV[3]
local next_epoch = ARGV[4]
local seq = ARGV[5]

local found = redis.call('HMGET', meta, 'epoch', 'seq', 'server')
if found[1] == next_epoch and found[3] == server then
  return {'trusted'}
end
if found[1] ~= epoch or found[2] ~= seq then
  return {'changed'}
end
redis.call('HSET', meta, 'generation', generation, 'epoch', next_epoch, 'durable', seq, 'server', server)
return {'trusted'}
