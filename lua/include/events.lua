--- @include integers

-- Add the event that follows `seq` to the stream alone, and return its sequence and its place, `<epoch>-<seq>`;
-- `request` is the id of the request that it is for, or nothing. What follows the time are names and values by turns,
-- all of them strings; they are one field, since each by itself costs more than what it holds, here and where it is
-- read. A script's first event is its first write: Redis refuses the entry of an older epoch here, before anything is
-- changed. Whoever adds events sets the meta's seq.
local function add_event(events, epoch, seq, request, kind, at_ms, ...)
  local place = epoch .. '-' .. int(seq + 1)
  local parts = {...}
  if #parts ~= select('#', ...) then
    error('a field of ' .. kind .. ' has no value')
  end
  redis.call('XADD', events, place, 'type', kind, 'v', '2', 'at', int(at_ms), 'request', request,
    'data', table.concat(parts, '\31'))
  return seq + 1, place
end

-- Append the partition's next event and return its place.
local function append(events, meta, epoch, seq, ...)
  local last, place = add_event(events, epoch, seq, ...)
  redis.call('HSET', meta, 'seq', int(last))
  return place
end
