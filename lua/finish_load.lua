--[[
End the loading of a partition: its meta is written last, in a new epoch, and held by the recovery. Repeatable.

KEYS[1] meta              the partition's meta hash
ARGV[1] server            the recovery's mark: `recovering:<token>:` and the identity of the server
ARGV[2] generation        the global generation
ARGV[3] next_epoch        the epoch that begins
ARGV[4] seq               the sequence that was loaded
ARGV[5] format            version of the layout of keys and events
Returns                   in order of precedence
  unverified              it is not this recovery that loads
  held, epoch, seq
Event none
]]
local meta = KEYS[1]
local server = ARGV[1]
local generation = ARGV[2]
local next_epoch = ARGV[3]
local seq = ARGV[4]
local format = ARGV[5]

local found = redis.call('HMGET', meta, 'loading', 'server', 'epoch', 'seq')
if found[2] == server and found[3] == next_epoch and found[4] == seq then
  return {'held', next_epoch, seq}
end
if found[1] ~= server then
  return {'unverified'}
end
redis.call('HSET', meta, 'format', format, 'generation', generation, 'epoch', next_epoch, 'seq', seq, 'durable', seq,
  'server', server)
redis.call('HDEL', meta, 'loading')
return {'held', next_epoch, seq}
