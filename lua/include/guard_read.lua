-- The guard of a script that changes no state: nothing is shown from a partition that is not trusted, nor let go there.
local function guard_read(meta, server, generation)
  local found = redis.call('HMGET', meta, 'server', 'generation')
  if not found[1] or found[1] ~= server then
    return {'unverified'}
  end
  if generation ~= found[2] then
    return {'stale', found[2]}
  end
  return nil
end
