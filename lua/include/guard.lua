-- Refuse a partition that is not trusted (`unverified`), a flow that a recovery has overtaken (`stale`) or a
-- writer that is too far behind (`overloaded`). Returns nil, epoch and seq when the script may go on.
local function guard(meta, server, generation, backlog_max)
  local found = redis.call('HMGET', meta, 'server', 'generation', 'epoch', 'seq', 'durable')
  if not found[1] or found[1] ~= server then
    return {'unverified'}
  end
  if generation ~= found[2] then
    return {'stale', found[2]}
  end
  local seq = tonumber(found[4])
  if seq - tonumber(found[5]) >= tonumber(backlog_max) then
    return {'overloaded'}
  end
  return nil, found[3], seq
end
