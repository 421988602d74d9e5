--[[
Begin to load a partition anew: from now on its meta holds the recovery's mark and nothing else, so that nothing is
served from it and no other recovery loads it. Repeatable.

KEYS[1] meta              the partition's meta hash
ARGV[1] server            the recovery's mark: `recovering:<token>:` and the identity of the server
ARGV[2] claim             the part of the mark before the identity
ARGV[3] expected          meta.server, or meta.loading, or nothing, as it was when the recovery looked
Returns                   in order of precedence
  trusted                 this very server is trusted: hold it first
  changed                 the partition is not what it was taken for
  loading
Event none
]]
local meta = KEYS[1]
local server = ARGV[1]
local claim = ARGV[2]
local expected = ARGV[3]

local found = redis.call('HMGET', meta, 'server', 'loading')
local mark = found[1] or found[2] or ''
if mark == string.sub(server, #claim + 1) then
  return {'trusted'}
end
if mark ~= expected and mark ~= server then
  return {'changed'}
end
redis.call('DEL', meta)
redis.call('HSET', meta, 'loading', server)
return {'loading'}
