--- @include integers

-- Append the partition's next event and return its place, `<epoch>-<seq>`; `request` is the id of the request that
-- it is for, or nothing. It is the first write of its script: Redis refuses the entry of an older epoch here, before
-- anything is changed.
local function append(events, meta, epoch, seq, request, kind, at_ms, ...)
  local next_seq = int(seq + 1)
  local place = epoch .. '-' .. next_seq
  redis.call('XADD', events, place, 'type', kind, 'v', '1', 'at', int(at_ms), 'request', request, ...)
  redis.call('HSET', meta, 'seq', next_seq)
  return place
end
