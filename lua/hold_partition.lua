--[[
Take hold of a partition for a recovery: no flow runs there, and no other recovery, until it is trusted again.
Repeatable.

KEYS[1] meta              the partition's meta hash
ARGV[1] server            the recovery's mark: `recovering:<token>:` and the identity of the server
ARGV[2] expected_server   what meta.server was when the recovery looked
Returns                   in order of precedence
  changed                 the partition is not what it was taken for
  held, epoch, seq
Event none
]]
local meta = KEYS[1]
local server = ARGV[1]
local expected_server = ARGV[2]

local found = redis.call('HMGET', meta, 'server', 'epoch', 'seq')
if not found[1] or (found[1] ~= expected_server and found[1] ~= server) then
  return {'changed'}
end
redis.call('HSET', meta, 'server', server)
return {'held', found[2], found[3]}
